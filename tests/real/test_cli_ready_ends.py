"""Signals, and who dies first, when `trioshim run` is done by a ready process."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .cli_world import end, read_line
from .poll import eventually
from .ready_world import GUARD, Front, Templates, holds, open_front, open_templates

SLEEP = "echo ready; exec sleep 1000"
OBEDIENT = "trap 'echo bye; exit 42' {}; echo ready; while :; do sleep 0.1; done"
STUBBORN = "trap 'echo no' INT; echo ready; while :; do sleep 0.1; done"
DEAF = "trap '' HUP INT TERM; echo ready; while :; do sleep 0.1; done"
LOST = "trioshim: the process that held the container was killed\n"


@pytest.fixture(scope="module")
def templates(machine: None) -> Iterator[Templates]:
    with open_templates() as templates:
        yield templates


@pytest.fixture
def cli(templates: Templates) -> Iterator[Front]:
    """Whoever calls `run`; a status of 250 says that no ready process has done it."""
    with open_front(templates) as cli:
        yield cli


def begin(cli: Front, script: str, *options: str) -> subprocess.Popen[str]:
    """Run a script that says when it is ready."""
    process = cli.begin("run", *options, "sh", "-c", script)
    read_line(process, "ready")
    return process


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_is_passed_on(cli: Front, signum: signal.Signals) -> None:
    """What its handler does is done, and its exit status is ours."""
    process = begin(cli, OBEDIENT.format(signum.name.removeprefix("SIG")))
    assert end(process, signum) == ("bye\n", "")
    assert process.returncode == 42


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_that_nobody_handles_ends_it(cli: Front, signum: signal.Signals) -> None:
    """As it would end it outside."""
    process = begin(cli, SLEEP)
    assert end(process, signum) == ("", "")
    assert process.returncode == 128 + signum


def test_the_third_interrupt_kills(cli: Front) -> None:
    """Who handles Ctrl-C and goes on has two tries."""
    process = begin(cli, STUBBORN)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        read_line(process, "no")
    assert end(process) == ("", "")
    assert process.returncode == 128 + signal.SIGKILL


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_early_ends_the_start(cli: Front, signum: signal.Signals) -> None:
    """At whatever moment: the status is that of the signal, and nothing is said."""
    for _ in range(3):
        process = cli.begin("run", "sleep", "1000")
        cli.helper()
        assert end(process, signum) == ("", "")
        assert process.returncode == 128 + signum
        eventually(lambda: not cli.helpers(), "its end")


def test_a_front_that_is_stopped_goes_on_later(cli: Front) -> None:
    """The container does not wait for it; its output and status are not lost."""
    process = begin(cli, "echo ready; echo more >&2; exit 3")
    process.send_signal(signal.SIGSTOP)
    eventually(lambda: not cli.helpers(), "the container's end")
    assert process.poll() is None
    assert end(process, signal.SIGCONT) == ("", "more\n")
    assert process.returncode == 3


# ---------------------------------------------------------------- the front is killed


def test_the_container_ends_with_the_front(cli: Front) -> None:
    """kill -9: bundle, shim, cgroup are gone, as if its terminal had been closed."""
    process = begin(cli, SLEEP)
    end(process, signal.SIGKILL)
    eventually(lambda: not cli.left(), f"nothing to be left of {cli.left()}")


def test_a_container_that_hears_nothing_ends_too(cli: Front) -> None:
    """A hang-up that means "read your settings again", or that is ignored, is not the last word."""
    process = begin(cli, DEAF)
    end(process, signal.SIGKILL)
    eventually(lambda: not cli.left(), f"nothing to be left of {cli.left()}")


def test_a_front_that_is_killed_early(cli: Front) -> None:
    """Before the container runs: then it never does, or it ends."""
    for _ in range(3):
        process = cli.begin("run", "sleep", "1000")
        cli.helper()
        end(process, signal.SIGKILL)
        eventually(lambda: not cli.left(), f"nothing to be left of {cli.left()}")


def test_the_background_does_not_end_with_the_front(cli: Front) -> None:
    """Who has been told the id may go."""
    id_ = cli("run", "-d", "sleep", "1000").stdout.strip()
    assert [row["id"] for row in cli.rows("ps")] == [id_]
    (holder,) = cli.helpers()
    flags = [path.read_text() for path in Path(f"/proc/{holder}/fdinfo").iterdir()]
    asynchronous = [text for text in flags if int(text.split()[3], 8) & os.O_ASYNC]
    assert asynchronous == []  # no connection to a front is left open


def test_what_the_front_was_given_is_not_kept_open(cli: Front) -> None:
    """A pipe of its caller ends when it does, whatever becomes of the container."""
    reading, writing = os.pipe()
    process = cli.begin("run", "sh", "-c", SLEEP, pass_fds=[writing])
    read_line(process, "ready")
    assert holds(process.pid, writing)
    helper = cli.helper()
    assert not holds(helper, writing)
    os.close(writing)
    os.kill(helper, signal.SIGSTOP)
    try:
        process.kill()
        assert os.read(reading, 1) == b""
    finally:
        os.kill(helper, signal.SIGCONT)
        os.close(reading)
    eventually(lambda: not cli.left(), f"nothing to be left of {cli.left()}")


# ---------------------------------------------------------------- the others are killed


def test_a_ready_process_that_is_killed(cli: Front) -> None:
    """We say so; the next one removes what it has left."""
    process = begin(cli, SLEEP, "--name", "lost")
    os.kill(cli.helper(), signal.SIGKILL)
    assert process.communicate(timeout=GUARD) == ("", LOST)
    assert process.returncode == 137
    assert cli.bundle("lost").exists()
    done = cli("run", "echo", "hello")
    assert done.stdout == "hello\n"
    assert "lost was left over" in done.stderr
    assert not cli.bundle("lost").exists()


def test_a_template_that_is_killed(cli: Front) -> None:
    """Whoever works already does not notice; there is another one for the next."""
    process = begin(cli, OBEDIENT.format("TERM"))
    for pid in [*cli.templates.processes(), *cli.templates.spares()]:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not cli.templates.spares(), "their end")
    assert end(process, signal.SIGTERM) == ("bye\n", "")
    assert process.returncode == 42
    assert cli("run", "echo", "hello").stdout == "hello\n"


def test_a_template_that_ends_in_order(cli: Front) -> None:
    """SIGTERM: the same, and its files go with it."""
    process = begin(cli, OBEDIENT.format("TERM"))
    for pid in cli.templates.processes():
        os.kill(pid, signal.SIGTERM)
    eventually(lambda: not list(cli.templates.directory.iterdir()), "its files to go")
    assert end(process, signal.SIGTERM) == ("bye\n", "")
    assert process.returncode == 42


def test_a_template_that_hangs(cli: Front) -> None:
    """We wait for its word, do without, and forget it; the next one does not wait."""
    cli.what = "main"
    argv = cli.argv("run", "echo", "hello")
    argv[2] = argv[2].replace("TIMEOUT = 30.0", "TIMEOUT = 0.2")
    stopped = [*cli.templates.processes(), *cli.templates.spares()]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        # Not a pipe: what it was sent it lets go of only when it goes on.
        with (cli.base / "said").open("w+b") as said:
            subprocess.run(argv, env=cli.env, stdout=said, stderr=said, timeout=GUARD, check=True)
        assert (cli.base / "said").read_bytes() == b"hello\n"
        assert not list(cli.templates.directory.glob("*.sock"))
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    eventually(lambda: not cli.templates.processes(), "it to see that nobody wants it")
