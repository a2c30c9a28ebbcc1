"""`trioshim run` by a ready process, our side: what is asked of it, and what if it is not there."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from trioshim.bootstrap import _template
from trioshim.cli import _ready

from .ready_world import GUARD, WORDS, Answer, hand_over, open_place, say, take


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where a template would listen; nobody does."""
    with open_place(monkeypatch) as path:
        yield path


# ---------------------------------------------------------------- what is simple


@pytest.mark.parametrize(
    ("words", "simple"),
    [
        ("run true", True),
        ("run", True),
        ("run --bogus", True),
        ("run -d --name box sleep 9", True),
        ("run -v ./dir:/data -e NAME -w /tmp -m 64m -- sh -c exit", True),
        ("run --image /dev/stdin true", True),
        ("", False),
        ("ps", False),
        ("exec box true", False),
        ("--debug run true", False),
        ("run -i cat", False),
        ("run -t sh", False),
        ("run -it sh", False),
        ("run -dit sh", False),
        ("run --interactive cat", False),
        ("run --tty sh", False),
        ("run --image /dev/fd/63 true", False),
        ("run --image=/proc/self/fd/3 true", False),
        ("run -v /proc/thread-self/fd/4:/x true", False),
    ],
)
@pytest.mark.usefixtures("path")
def test_what_another_process_can_do(words: str, simple: bool) -> None:
    """Whatever needs our terminal or our other files is done here; so is what is not `run`."""
    assert _ready._is_simple(words.split(), {"PATH": "/bin"}) is simple


@pytest.mark.parametrize(
    ("name", "simple"),
    [
        ("PATH", True),
        ("PYTHONUNBUFFERED", True),
        ("PYTHONDONTWRITEBYTECODE", True),
        ("PYTHONHASHSEED", True),
        ("PYTHONPATH", False),
        ("PYTHONWARNINGS", False),
        ("PYTHONIOENCODING", False),
        ("PYTHONUTF8", False),
        ("PYTHON_OF_TOMORROW", False),
    ],
)
@pytest.mark.usefixtures("path")
def test_variables_that_change_a_python(name: str, simple: bool) -> None:
    """The template has been started without them."""
    assert _ready._is_simple(WORDS, {name: "1"}) is simple


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_closed_stream(closed: int) -> None:
    """It cannot be handed over, and in its place there would be another file."""
    code = (
        "import os; from trioshim.cli import _ready\n"
        f"said = os.dup(2); simple = _ready._is_simple(['run'], {{}}); os.close({closed})\n"
        "os.write(said, b'%d %d' % (simple, _ready._is_simple(['run'], {})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=GUARD,
    )
    assert done.stderr == b"1 0"


# ---------------------------------------------------------------- whom to ask


def test_there_is_one_for_each_login_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is not the shims'."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    kinds: list[str] = []

    def spy(environ: object, kind: str = "") -> str:
        kinds.append(kind)
        return f"/x/{kind}.sock"

    monkeypatch.setattr(_template, "template_path", spy)
    assert _ready._path({}) == f"/x/{kinds[0]}.sock"
    session = Path("/proc/self/sessionid")
    assert kinds == [f"commands {session.read_text() if session.exists() else ''}"]


@pytest.mark.parametrize("word", ["off", "0", "nonsense"])
def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    """A word that is not known is for `start` to complain of."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert _ready._path({"TRIOSHIM_TEMPLATE": "on"}) != ""
    assert _ready._path({"TRIOSHIM_TEMPLATE": word}) == ""


def test_who_is_refused_anyway_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root can run containers: nothing stays in memory for others."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert _ready._path({"XDG_RUNTIME_DIR": "/run/user/1000"}) == ""


def test_switched_off_nothing_is_asked_and_nothing_is_left(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor for a command that is not simple."""
    made: list[object] = []
    monkeypatch.setattr(_template, "start_template", lambda *words: made.append(words))
    monkeypatch.setattr(_template, "connect", made.append)
    for words in (["ps"], ["run", "-it", "sh"]):
        assert _ready.hand_over(words, {}) is None
        _ready.leave_one(words, {})
    monkeypatch.setattr(_ready, "_path", lambda _: "")
    assert _ready.hand_over(WORDS, {}) is None
    _ready.leave_one(WORDS, {})
    assert made == []


def test_the_next_one_finds_somebody(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one leaves a template of our own kind; if it cannot, nobody is told."""
    made: list[list[str]] = []
    monkeypatch.setattr(_template, "spawn", lambda argv, *_: made.append(argv))
    Path(path).parent.chmod(0o700)
    _ready.leave_one(WORDS, {})
    assert made == [[sys.executable, "-I", "-m", "trioshim.cli._template", path, "600"]]
    Path(path).parent.chmod(0o755)  # anybody's
    _ready.leave_one(WORDS, {})
    assert len(made) == 1


def test_next_to_nothing_is_imported() -> None:
    """Whoever waits for imports has gained nothing."""
    code = (
        "import sys; before = set(sys.modules); from trioshim.cli import _ready\n"
        "_ready._STREAMS = ()\n"
        "print(_ready.hand_over(['run'], {'TRIOSHIM_TEMPLATE': 'on'}), _ready._path({}) != '')\n"
        "slow = {'trio', 'click', 'google', 'socket', 'logging', 'subprocess', 'importlib.util'}\n"
        "print(sorted(slow & (set(sys.modules) - before)))\n"
    )
    setup = "import os; os.geteuid = lambda: 0\nfrom trioshim.bootstrap import _template\n"
    setup += "_template.DIRECTORY = '/no/such/directory'\n"
    argv = [sys.executable, "-c", setup + code]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=GUARD)
    assert done.stdout == "None True\n[]\n"


# ---------------------------------------------------------------- the answer


def handlers() -> list[object]:
    return [signal.getsignal(signum) for signum in _ready._FORWARDED]


def test_its_status_is_ours(path: str) -> None:
    """In digits, at its end."""
    assert hand_over(path, take(b"7")) == 7


def test_what_is_asked_for(path: str) -> None:
    """Our words and variables, our three streams and our directory."""
    heard: list[bytes] = []
    files: list[tuple[int, int]] = []

    def answer(connection: socket.socket) -> None:
        data, fds, _, _ = socket.recv_fds(connection, 1 << 16, 9)
        heard.append(data)
        for fd in fds:
            found = os.fstat(fd)
            files.append((found.st_dev, found.st_ino))
            os.close(fd)

    assert hand_over(path, answer) is None
    assert heard[0][12:] == b"4\0trioshim\0run\0echo\0hello\0A=1"
    ours = [os.fstat(fd) for fd in (0, 1, 2)] + [os.stat(".")]
    assert files == [(found.st_dev, found.st_ino) for found in ours]


@pytest.mark.parametrize(
    "answer",
    [
        say(b"-not alike: ns/mnt"),
        say(b"nonsense"),
        say(b"+"),
        say(b"+abc"),
        say(b"+0"),
        say(b"+999999999999"),
        say(b"?", b"-no"),
        lambda connection: connection.recv(1 << 16),
        socket.socket.getpeername,
    ],
    ids=[
        *("no", "nonsense", "no pid", "no number", "pid 0", "no such pid", "who adopts", "closes"),
        "closes early",
    ],
)
def test_an_odd_answer_means_to_do_it_here(path: str, answer: Answer) -> None:
    """Nothing was done; no file descriptor is left open, and signals do again what they did."""
    before = sorted(os.listdir("/proc/self/fd")), handlers()
    assert hand_over(path, answer) is None
    assert (sorted(os.listdir("/proc/self/fd")), handlers()) == before


def test_silence_means_to_do_it_here_and_to_forget(path: str) -> None:
    """After the time limit; the next one is not to wait for it, too."""
    told = threading.Event()
    assert hand_over(path, lambda _: told.wait(0.5)) is None
    assert not os.path.exists(path)


def test_nobody_listens(path: str) -> None:
    """No socket, or one that nobody is behind."""
    assert _ready.hand_over(WORDS, {}) is None
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
    assert _ready.hand_over(WORDS, {}) is None


def test_it_has_gone_before_our_last_word(path: str) -> None:
    """Then it does nothing, and we do it."""

    def answer(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(b"+%d" % os.getpid())
        connection.shutdown(socket.SHUT_RDWR)

    assert hand_over(path, answer) is None


@pytest.mark.parametrize("said", [b"", b"killed", b"7x"], ids=["nothing", "a word", "half"])
def test_it_has_gone_after_our_last_word(
    path: str, said: bytes, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Without a status it was killed, and so are we; it is not done a second time."""
    assert hand_over(path, take(said)) == 137
    assert capfdbinary.readouterr().err == (
        b"trioshim: the process that held the container was killed\n"
    )


def test_nobody_reads_that_it_was_killed(path: str) -> None:
    """That is no reason to run the container again."""
    kept = os.dup(2)
    reading, writing = os.pipe()
    os.close(reading)
    with ExitStack() as stack:
        stack.callback(os.close, kept)
        stack.callback(os.dup2, kept, 2)
        os.dup2(writing, 2)
        os.close(writing)
        assert hand_over(path, take(b"")) == 137


def test_a_connection_that_is_cut_has_no_status(path: str) -> None:
    """Killed with our last word unread: the kernel resets the connection."""

    def answer(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(b"+%d" % os.getpid())
        while not connection.recv(1, socket.MSG_PEEK):
            pass

    assert hand_over(path, answer) == 137
