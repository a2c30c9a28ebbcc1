"""`trioshim run` by a ready process does what it does without one."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .cli_world import end
from .poll import eventually
from .ready_world import GUARD, Front, Templates, open_front, open_templates

Done = tuple[int, bytes, bytes]


@pytest.fixture(scope="module")
def templates(machine: None) -> Iterator[Templates]:
    with open_templates() as templates:
        yield templates


@pytest.fixture
def cli(templates: Templates) -> Iterator[Front]:
    """Whoever calls `run`; a status of 250 says that no ready process has done it."""
    with open_front(templates) as cli:
        yield cli


def do(argv: list[str], cli: Front, *, cwd: Path | None = None, **env: str) -> Done:
    done = subprocess.run(
        argv,
        cwd=cwd,
        env=cli.env | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=GUARD,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def do_both(
    cli: Front, *args: str, wrapper: tuple[str, ...] = (), cwd: Path | None = None, **env: str
) -> Done:
    """Run it with and without a ready process: the same status, stdout and stderr."""
    ready = do([*wrapper, *cli.argv("run", *args)], cli, cwd=cwd, **env)
    assert ready == do([*wrapper, *cli.plainly(*args)], cli, cwd=cwd, **env)
    return ready


# ---------------------------------------------------------------- alike


@pytest.mark.parametrize(
    ("args", "status", "stdout", "hint"),
    [
        (["echo", "hello"], 0, b"hello\n", b""),
        (["sh", "-c", "exit 7"], 7, b"", b""),
        (["sh", "-c", "echo out; echo err >&2; exit 3"], 3, b"out\n", b"err\n"),
        (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137, b"", b"Killed\n"),
        (["-w", "/usr", "pwd"], 0, b"/usr\n", b""),
        (["-e", "A=b c", "sh", "-c", "echo $A"], 0, b"b c\n", b""),
        (["sh", "-c", "ls /proc/self/fd | wc -l"], 0, b"4\n", b""),
        (["no-such-program"], 127, b"", b"there is no program 'no-such-program'"),
        (["/etc/passwd"], 126, b"", b"'/etc/passwd' cannot be executed"),
        (["--bogus", "true"], 125, b"", b"--bogus"),
        ([], 125, b"", b"args names no program"),
        (["--image", "/no/such.tar", "true"], 125, b"", b"/no/such.tar: No such file"),
        (["--log", "x", "true"], 125, b"", b"--log is for -d"),
    ],
)
def test_it_ends_and_says_the_same(
    cli: Front, args: list[str], status: int, stdout: bytes, hint: bytes
) -> None:
    """Status, stdout and stderr, each to the byte."""
    done = do_both(cli, *args)
    assert done[:2] == (status, stdout)
    assert hint in done[2]
    assert bool(hint) == bool(done[2])


def test_its_help_is_the_same(cli: Front) -> None:
    """As wide as we say that our screen is."""
    status, stdout, _ = do_both(cli, "--help", COLUMNS="60")
    assert (status, stdout[:19]) == (0, b"Usage: trioshim run")
    assert max(map(len, stdout.splitlines())) <= 60


def test_a_full_disk_is_told(cli: Front) -> None:
    """Where Python itself says it at its end, the status is Python's, too."""
    words = ["sh", "-c", '"$@" > /dev/full', "sh"]
    ready = do([*words, *cli.argv("run", "--help")], cli)
    plain = do([*words, *cli.plainly("--help")], cli)
    assert ready[0] == plain[0] != 0
    assert ready[2].splitlines()[:1] == plain[2].splitlines()[:1]


def test_what_is_relative_to_where_we_are(cli: Front, tmp_path: Path) -> None:
    """A mount's source, byte for byte what is in it, and an image."""
    blob = secrets.token_bytes(1 << 20)
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "blob").write_bytes(blob)
    mounted = ["-v", "./dir:/srv:ro", "cat", "/srv/blob"]
    assert do_both(cli, *mounted, cwd=tmp_path) == (0, blob, b"")
    status, _, stderr = do_both(cli, "--image", "dir/blob", "true", cwd=tmp_path)
    assert status == 125
    assert b"dir/blob" in stderr


def test_variables_are_those_of_who_asks(cli: Front) -> None:
    """Not the template's: one that we have, one that we do not have, a time zone."""
    words = ["-e", "OURS", "-e", "NOT_OURS", "sh", "-c", "echo $OURS-${NOT_OURS-none}"]
    assert do_both(cli, *words, OURS="ä b") == (0, "ä b-none\n".encode(), b"")


def test_path_is_that_of_who_asks(cli: Front, tmp_path: Path) -> None:
    """There is no runc where we look for it."""
    status, _, stderr = do_both(cli, "true", PATH=str(tmp_path))
    assert (status, b"there is no runc in PATH" in stderr) == (125, True)


def test_mask_and_limits_are_those_of_who_asks(cli: Front) -> None:
    """What the container sees of them, and what the ready process has."""
    wrapper = ("sh", "-c", 'umask 027; ulimit -Sn 600; "$@"', "sh")
    do_both(cli, "sh", "-c", "umask; ulimit -n; cat /proc/self/limits", wrapper=wrapper)
    argv = [*wrapper, *cli.argv("run", "sh", "-c", "echo ready; exec sleep 1000")]
    process = subprocess.Popen(argv, env=cli.env, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        account = Path(f"/proc/{cli.helper()}")
        assert "Umask:\t0027\n" in (account / "status").read_text()
        assert "open files            600 " in (account / "limits").read_text()
    finally:
        end_by_name(cli)
        process.communicate(timeout=GUARD)


def end_by_name(cli: Front) -> None:
    for id_ in cli("ps", "-q").stdout.split():
        cli("kill", id_)


def test_a_ready_process_is_seen_as_what_it_does(cli: Front, tmp_path: Path) -> None:
    """Its command line, environment, directory and cgroups; none of the template's files."""
    cli.env["OURS"] = "1"
    process = cli.begin("run", "sh", "-c", "echo ready; exec sleep 1000", cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    account, front = Path(f"/proc/{cli.helper()}"), Path(f"/proc/{process.pid}")
    assert (account / "cmdline").read_bytes().endswith(b"\0echo ready; exec sleep 1000\0")
    assert b"\0OURS=1\0" in b"\0" + (account / "environ").read_bytes()
    assert os.readlink(account / "cwd") == str(tmp_path)
    assert (account / "cgroup").read_bytes() == (front / "cgroup").read_bytes()
    files = {os.readlink(path) for path in (account / "fd").iterdir()}
    assert not [name for name in files if str(cli.templates.directory) in name]
    for number in "012":
        assert os.readlink(account / "fd" / number) == os.readlink(front / "fd" / number)
    end(process)
    assert process.returncode == 130


# ---------------------------------------------------------------- streams


def test_a_reader_that_has_enough_ends_it(cli: Front) -> None:
    """Quietly, as in any pipeline."""
    script = '"$@" | head -1; exit ${PIPESTATUS[0]}'
    assert do_both(cli, "yes", wrapper=("bash", "-c", script, "bash")) == (141, b"y\n", b"")


def test_what_we_could_read_is_not_read(cli: Front) -> None:
    """A loop over lines sees all of them."""
    script = 'printf "1\\n2\\n3\\n" | while read -r n; do "$@" echo "$n"; done'
    argv = ["bash", "-c", script, "bash", *cli.argv("run")]
    assert do(argv, cli) == (0, b"1\n2\n3\n", b"")


def test_the_output_ends_when_we_do(cli: Front) -> None:
    """$(...) waits for nobody who stays behind: neither template nor shim has our stdout."""
    script = 'said=$("$@"); echo "<$said>"'
    argv = ["bash", "-c", script, "bash", *cli.argv("run", "echo", "hello")]
    assert do(argv, cli) == (0, b"<hello>\n", b"")


# ---------------------------------------------------------------- many, and in the background


def test_ten_at_once(cli: Front) -> None:
    """Each has its own container, output and status."""
    numbers = range(10)
    begun = [cli.begin("run", "sh", "-c", f"echo {n}; exit {n}") for n in numbers]
    done = [(process.communicate(timeout=GUARD), process.returncode) for process in begun]
    assert done == [((f"{n}\n", ""), n) for n in numbers]


def test_a_container_in_the_background(cli: Front) -> None:
    """Its id is said, it lives on in its namespace, and `kill` ends it."""
    status, stdout, stderr = do(cli.argv("run", "-d", "sh", "-c", "echo out; exec sleep 1000"), cli)
    assert (status, stderr) == (0, b"")
    id_ = stdout.decode().strip()
    (row,) = cli.rows("ps")
    assert (row["id"], row["namespace"], row["status"]) == (id_, cli.namespace, "running")
    eventually(lambda: cli("logs", id_).stdout == "out\n", "the output")
    holder = Path(f"/proc/{cli.helper()}")
    files = {os.readlink(path) for path in (holder / "fd").iterdir()}
    assert [name for name in files if name.startswith(f"{cli.base}/#")]  # TMPDIR is ours
    assert os.readlink(holder / "cwd") == "/"
    cli("kill", id_)
    eventually(lambda: not cli.helpers(), "the holder's end")
    assert not cli.bundle(id_).exists()


def test_what_cannot_start_in_the_background_is_told_in_front(cli: Front) -> None:
    """With the same words and status."""
    assert do_both(cli, "-d", "no-such-program")[0] == 127


def test_the_first_one_leaves_a_template_and_the_next_one_uses_it(machine: None) -> None:
    """Nobody has to ask for it; TRIOSHIM_TEMPLATE=off does neither."""
    with open_templates() as templates, open_front(templates) as cli:
        argv = [*templates.argv("main"), *cli.argv("run", "echo", "hello")[5:]]
        templates.end()
        off = do(argv, cli, TRIOSHIM_TEMPLATE="off")
        assert (off, templates.processes()) == ((0, b"hello\n", b""), [])
        assert do(argv, cli) == (0, b"hello\n", b"")
        eventually(templates.spares, "a spare")
        assert do(argv, cli) == (0, b"hello\n", b"")
        cli.what = "main"
        process = cli.begin("run", "sh", "-c", "echo ready; exec sleep 1000")
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert cli.helper() != process.pid
        end(process)
