"""`trioshim run` on a real shim and runc: streams, options, signals, exit statuses."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .cli_world import Cli, end, open_cli, read_line
from .poll import eventually

OBEDIENT = "trap 'echo bye; exit 42' TERM; echo ready; while :; do sleep 0.1; done"
STUBBORN = "trap 'echo no' INT; echo ready; while :; do sleep 0.1; done"


@pytest.fixture
def cli(machine: None) -> Iterator[Cli]:
    with open_cli() as cli:
        yield cli


def test_hello(cli: Cli) -> None:
    """Its output is ours, and nothing else is said."""
    done = cli("run", "echo", "hello")
    assert (done.stdout, done.stderr) == ("hello\n", "")


def test_the_exit_status_of_an_image_is_kept(cli: Cli, image_tar: Path) -> None:
    """With a limit, and the words behind `--`."""
    argv = ["--image", str(image_tar), "-m", "64m", "--", "sh", "-c", "echo e >&2; exit 7"]
    done = cli("run", *argv, status=7)
    assert (done.stdout, done.stderr) == ("", "e\n")


def test_what_a_container_is_given(cli: Cli, rootfs: Path, tmp_path: Path) -> None:
    """Variables, a directory, a user, a name, a mount that cannot be written to."""
    (tmp_path / "file").write_text("data\n")
    tmp_path.chmod(0o755)
    script = "echo $A $OURS $PWD $(id -u) $(hostname); cat /d/file; touch /d/x || echo refused"
    done = cli(
        *("run", "--rootfs", str(rootfs), "-e", "A=1", "-e", "OURS", "-e", "NOT_OURS"),
        *("-w", "/tmp", "-u", "1000:1000", "--hostname", "box", "-v", f"{tmp_path}:/d:ro"),
        *("--pids", "10", "--cpus", "0.5", "--network", "none", "sh", "-c", script),
        env={"OURS": "2"},
    )
    assert done.stdout == "1 2 /tmp 1000 box\ndata\nrefused\n"


def test_input_goes_in_to_its_end(cli: Cli, tmp_path: Path) -> None:
    """From a pipe and from a file; without -i there is none."""
    assert cli("run", "-i", "cat", stdin="one\ntwo").stdout == "one\ntwo"
    assert cli("run", "cat", stdin="one\n").stdout == ""
    (tmp_path / "file").write_text("three\n")
    with (tmp_path / "file").open() as file:
        process = cli.begin("run", "-i", "cat", stdin=file)
        assert process.communicate(timeout=20)[0] == "three\n"


def test_all_output_comes_through(cli: Cli) -> None:
    """However much it is at its end."""
    assert cli("run", "seq", "300000").stdout.endswith("\n299999\n300000\n")


def test_a_reader_that_has_enough_ends_it(cli: Cli) -> None:
    """Quietly, as in any pipeline."""
    command = " ".join(cli.argv("run", "yes"))
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -1; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        env=cli.env,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (141, "y\n", "")


# ---------------------------------------------------------------- signals


def test_a_signal_is_passed_on(cli: Cli) -> None:
    """What its handler does is done, and its exit status is ours."""
    process = cli.begin("run", "sh", "-c", OBEDIENT)
    read_line(process, "ready")
    assert end(process, signal.SIGTERM)[0] == "bye\n"
    assert process.returncode == 42


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_nobody_handles_ends_it(cli: Cli, signum: signal.Signals) -> None:
    """As it would end it outside; Linux alone would drop it."""
    process = cli.begin("run", "sh", "-c", "echo ready; exec sleep 1000")
    read_line(process, "ready")
    assert end(process, signum) == ("", "")
    assert process.returncode == 128 + signum


def test_the_third_interrupt_kills(cli: Cli) -> None:
    """Who handles Ctrl-C and goes on has two tries."""
    process = cli.begin("run", "sh", "-c", STUBBORN)
    read_line(process, "ready")
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        read_line(process, "no")
    end(process)
    assert process.returncode == 128 + signal.SIGKILL


@pytest.mark.parametrize("template", ["on", "off"])
def test_an_ignored_signal_stays_ignored(cli: Cli, template: str) -> None:
    """As `nohup` has it: the terminal may go, the container goes on."""
    cli.env["TRIOSHIM_TEMPLATE"] = template
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = cli.begin("run", "sh", "-c", "echo ready; sleep 0.2; exit 5")
    finally:
        signal.signal(signal.SIGHUP, before)
    read_line(process, "ready")
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == 5


def test_what_a_killed_one_leaves_is_cleaned_up_by_the_next(cli: Cli) -> None:
    """With a line that says so."""
    cli.env["TRIOSHIM_TEMPLATE"] = "off"  # a ready process would clean up at once
    process = cli.begin("run", "--name", "lost", "sh", "-c", "echo ready; exec sleep 1000")
    read_line(process, "ready")
    end(process, signal.SIGKILL)
    assert cli.bundle("lost").exists()
    done = cli("run", "echo", "hello")
    assert done.stdout == "hello\n"
    assert "lost was left over" in done.stderr
    assert not cli.bundle("lost").exists()


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("words", "status", "hint"),
    [
        (["--image", "/no/such.tar", "true"], 125, "/no/such.tar: No such file or directory"),
        (["--rootfs", "/no/such", "true"], 125, "/no/such is no directory"),
        (["-m", "1k", "true"], 125, "at least '6m'"),
        ([], 125, "args names no program"),
        (["no-such-program"], 127, "there is no program 'no-such-program' in the container"),
        (["/no/such/program"], 127, "there is no program '/no/such/program'"),
        (["/etc/passwd"], 126, "'/etc/passwd' cannot be executed"),
        (["--shim", "no-such-shim", "true"], 125, "no program 'no-such-shim'"),
    ],
)
def test_a_mistake_is_one_line(cli: Cli, words: list[str], status: int, hint: str) -> None:
    """It says what is wrong, and nothing is left."""
    done = cli("run", *words, status=status)
    assert done.stdout == ""
    assert done.stderr.startswith("trioshim: ")
    assert hint in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_id_is_taken_once(cli: Cli) -> None:
    """The second one is told by whom."""
    cli("run", "-d", "--name", "box", "sleep", "1000")
    done = cli("run", "--name", "box", "true", status=125)
    assert "container box is in use" in done.stderr


# ---------------------------------------------------------------- in the background


def test_a_container_in_the_background(cli: Cli) -> None:
    """Its id is said when it runs; what it writes is kept until it is gone."""
    id_ = cli("run", "-d", "sh", "-c", "echo out; echo err >&2; exec sleep 1000").stdout.strip()
    wanted = {"out", "err"}  # two streams: either may be first
    eventually(lambda: set(cli("logs", id_).stdout.split()) == wanted, "the output")
    follower = cli.begin("logs", "-f", id_)
    assert follower.stdout is not None
    first = follower.stdout.readline()  # it follows
    cli("kill", id_)
    assert {first.strip(), *follower.stdout.read().split()} == wanted
    assert follower.wait(20) == 0
    assert not cli.bundle(id_).exists()


def test_a_log_that_was_named_stays(cli: Cli) -> None:
    """It is added to, not replaced."""
    log = cli.base / "kept.log"
    log.write_text("before\n")
    id_ = cli("run", "-d", "--log", str(log), "echo", "hello").stdout.strip()
    eventually(lambda: not cli.bundle(id_).exists(), "the container to be gone")
    assert log.read_text() == "before\nhello\n"
    log.unlink()


def test_what_cannot_start_in_the_background_is_told_in_front(cli: Cli) -> None:
    """With the same status as without -d."""
    done = cli("run", "-d", "no-such-program", status=127)
    assert "there is no program 'no-such-program'" in done.stderr
    done = cli("run", "-d", "--log", "/no/such/dir/log", "true", status=125)
    assert "/no/such/dir/log: No such file or directory" in done.stderr


def test_nothing_of_ours_is_open_in_a_container(cli: Cli) -> None:
    """Only its three streams."""
    with open(os.devnull) as null:
        os.set_inheritable(null.fileno(), True)
        done = cli("run", "sh", "-c", "ls /proc/self/fd | wc -l")
    assert done.stdout == "4\n"  # with that of ls itself
