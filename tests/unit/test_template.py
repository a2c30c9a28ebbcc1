"""`start`'s side of the template: what is asked, and that every odd answer means to spawn."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trioshim.bootstrap import _dialects, _template
from trioshim.bootstrap._template import Template, early_environment, template_path
from trioshim.template import _child, _request

ARGV = ["/py", "-I", "-m", "trioshim", "-namespace", "n"]
ENVIRON = {"A": "1", "B": "ä\udc80", "C": ""}


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where a template would listen."""
    monkeypatch.setattr(_template, "TEMPLATE_TIMEOUT", 0.2)
    with tempfile.TemporaryDirectory(prefix="ts-") as directory:
        yield f"{directory}/t/x.sock"


def listen(path: str) -> socket.socket:
    Path(path).parent.mkdir(mode=0o700, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    return listener


def fork_from(path: str, answer: Callable[[socket.socket], None]) -> object:
    """Ask a template that answers so."""

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            answer(connection)

    listener = listen(path)
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with socket.socket(socket.AF_UNIX) as wanted:
            return Template(path).fork(ARGV, ENVIRON, wanted.fileno())
    finally:
        thread.join()


def say(*words: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        for word in words:
            connection.sendall(word)
            connection.recv(64)

    return answer


# ---------------------------------------------------------------- the request


def test_a_request_is_understood() -> None:
    """Words, variables, the listener and the directory arrive as they were sent."""
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket(socket.AF_UNIX) as listener:
        _template._send_request(ours, ARGV, ENVIRON, [listener.fileno()])
        argv, environ, fds = _request.receive(theirs, 2)
        try:
            assert argv == [word.encode() for word in ARGV]
            assert environ == [b"A=1", b"B=\xc3\xa4\x80", b"C="]
            assert os.path.samestat(os.fstat(fds[0]), os.fstat(listener.fileno()))
            assert os.path.samestat(os.fstat(fds[1]), os.stat("."))
            assert not any(os.get_inheritable(fd) for fd in fds)
        finally:
            for fd in fds:
                os.close(fd)


def test_a_large_request_is_understood() -> None:
    """Larger than one read, and than the socket's buffer."""
    ours, theirs = socket.socketpair()
    variables = {f"V{number}": "x" * 1000 for number in range(2000)}
    with ours, theirs, socket.socket(socket.AF_UNIX) as listener:
        arguments = (ours, ARGV, variables, [listener.fileno()])
        sender = threading.Thread(target=_template._send_request, args=arguments)
        sender.start()
        _, environ, fds = _request.receive(theirs, 2)
        sender.join()
        for fd in fds:
            os.close(fd)
    assert len(environ) == 2000


@pytest.mark.parametrize(
    "data",
    [b"", b"tsf1", b"GET / HTTP/1.1\r\n\r\n", b"tsf1" + bytes(8), b"tsf1" + b"\xff" * 8],
    ids=["nothing", "short", "another protocol", "no files", "huge"],
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    """Whoever else connects gets no shim."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(_request.RefusalError):
            _request.receive(theirs, 2)


def test_half_a_request_is_refused() -> None:
    """`start` was killed while it wrote."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(ours, [b"tsf1" + (100).to_bytes(8, "big") + b"1\0x"], [0, 1])
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(_request.RefusalError, match="half"):
            _request.receive(theirs, 2)


@pytest.mark.parametrize(
    "argv",
    [
        ["/other", "-I", "-m", "trioshim", "-namespace", "n"],
        [sys.executable, "-c", "pass"],
        [sys.executable, "-I", "-m", "trioshim", "-namespace", "n", "-id", "x", "delete"],
    ],
)
def test_only_a_server_is_forked(argv: list[str]) -> None:
    """A template does what `start` needs, and nothing else."""
    with pytest.raises(_request.RefusalError):
        _child.server_arguments([word.encode() for word in argv])


# ---------------------------------------------------------------- odd answers


@pytest.mark.parametrize(
    "answer",
    [
        say(b"-not alike"),
        say(b"nonsense"),
        say(b"+"),
        say(b"+abc"),
        say(b"+0"),
        say(b"+999999999999"),
        lambda connection: connection.recv(1 << 16) and None,
        socket.socket.getpeername,
    ],
    ids=["no", "nonsense", "no pid", "no number", "pid 0", "no such pid", "closes", "closes early"],
)
def test_an_odd_answer_means_to_spawn(path: str, answer: Callable[[socket.socket], None]) -> None:
    """Whatever a template says instead of a pid; and no file descriptor is left open."""
    before = sorted(os.listdir("/proc/self/fd"))
    assert fork_from(path, answer) is None
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_silence_means_to_spawn_and_to_forget(path: str) -> None:
    """After the time limit; nobody else is to wait for it."""
    told = threading.Event()
    assert fork_from(path, lambda _: told.wait(0.5) and None) is None
    assert not os.path.exists(path)


def test_a_shim_that_has_gone_means_to_spawn(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It said its pid, and cannot hear that it may go on."""
    gone = threading.Event()
    pidfd_open = os.pidfd_open

    def pidfd_open_after(pid: int) -> int:
        assert gone.wait(30)
        return pidfd_open(pid)

    def answer(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(b"+%d" % os.getpid())
        connection.shutdown(socket.SHUT_RDWR)
        gone.set()

    monkeypatch.setattr(os, "pidfd_open", pidfd_open_after)
    assert fork_from(path, answer) is None


def test_a_good_answer_is_a_process(path: str) -> None:
    """Its pid, and the last word has been said to it."""
    heard = []

    def answer(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(b"+%d" % os.getpid())
        heard.append(connection.recv(8))

    left = fork_from(path, answer)
    assert left is not None
    assert left.pid == os.getpid()  # type: ignore[attr-defined]
    os.close(left._pidfd)  # type: ignore[attr-defined]
    assert heard == [b"!"]


def test_nobody_listens(path: str) -> None:
    """No socket, a stale one, a file."""
    Path(path).parent.mkdir()
    assert Template(path).fork(ARGV, ENVIRON, 0) is None
    listen(path).close()
    assert Template(path).fork(ARGV, ENVIRON, 0) is None
    os.unlink(path)
    Path(path).write_text("")
    assert Template(path).fork(ARGV, ENVIRON, 0) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user listens")
def test_another_users_template_is_not_asked(path: str) -> None:
    """Not a byte is sent there: the environment may hold secrets."""
    Path(path).parent.mkdir()
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        listener.bind(path)
        os.seteuid(65534)
        try:
            listener.listen()
        finally:
            os.seteuid(0)
        assert Template(path).fork(ARGV, ENVIRON, 0) is None
        listener.setblocking(False)
        with listener.accept()[0] as connection:
            assert connection.recv(1) == b""


# ---------------------------------------------------------------- making one


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines of templates that were started, by a `spawn` that starts nothing."""
    made: list[list[str]] = []
    monkeypatch.setattr(_template, "spawn", lambda argv, *_: made.append(argv))
    return made


def test_a_start_without_a_template_leaves_one(path: str, spawned: list[list[str]]) -> None:
    """In a private directory, and without the caller's environment."""
    Template(path).leave_one({"PATH": "/bin"})
    argv = [sys.executable, "-I", "-m", "trioshim.template", path, "600", sys.argv[0]]
    assert spawned == [argv]
    assert Path(path).parent.stat().st_mode & 0o777 == 0o700


def test_one_that_is_on_its_way_is_enough(path: str, spawned: list[list[str]]) -> None:
    """Its lock is held."""
    Path(path).parent.mkdir(mode=0o700)
    with open(_template.lock_path(path), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Template(path).leave_one({})
    assert spawned == []


def test_one_that_failed_is_not_tried_at_once(path: str, spawned: list[list[str]]) -> None:
    """But after a minute."""
    Path(path).parent.mkdir(mode=0o700)
    lock = Path(_template.lock_path(path))
    lock.write_text("OSError: it does not work here\n")
    Template(path).leave_one({})
    assert spawned == []
    then = time.time() - _template.TEMPLATE_RETRY - 1
    os.utime(lock, (then, then))
    Template(path).leave_one({})
    assert len(spawned) == 1


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_directory_of_others_is_not_used(path: str, mode: int, spawned: list[list[str]]) -> None:
    """Nobody else may put a socket there."""
    Path(path).parent.mkdir()
    Path(path).parent.chmod(mode)
    Template(path).leave_one({})
    assert spawned == []


def test_a_link_to_a_directory_is_not_used(path: str, spawned: list[list[str]]) -> None:
    """It could lead anywhere."""
    real = Path(path).parent.with_name("real")
    real.mkdir(mode=0o700)
    Path(path).parent.symlink_to(real)
    Template(path).leave_one({})
    assert spawned == []
    assert list(real.iterdir()) == []


def test_without_a_path_nothing_is_done(spawned: list[list[str]]) -> None:
    """Templates are off."""
    template = Template("")
    assert template.fork(ARGV, ENVIRON, 0) is None
    template.leave_one({})
    assert spawned == []


# ---------------------------------------------------------------- decisions


@pytest.mark.parametrize(
    ("word", "wanted"), [("on", True), ("1", True), ("off", False), ("0", False)]
)
def test_the_variable_switches(word: str, wanted: bool) -> None:
    """On and off, in words and in digits."""
    assert _dialects.wants_template({"TRIOSHIM_TEMPLATE": word}) is wanted


def test_another_word_is_an_error() -> None:
    """It says what can be said."""
    with pytest.raises(ValueError, match="TRIOSHIM_TEMPLATE='no' is not known: choose on or off"):
        _dialects.wants_template({"TRIOSHIM_TEMPLATE": "no"})


def test_core_scheduling_is_not_forked() -> None:
    """Its cookie is that of `start`'s own group."""
    assert not _dialects.wants_template({"TRIOSHIM_TEMPLATE": "on", "SCHED_CORE": "1"})


def test_another_user_has_another_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's is in /run; a user's in what the session gives, or nowhere."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    root = template_path({"XDG_RUNTIME_DIR": "/run/user/7"})
    assert root.startswith("/run/trioshim-template/")
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    assert template_path({"XDG_RUNTIME_DIR": "/run/user/7"}).startswith(
        "/run/user/7/trioshim-template/"
    )
    assert template_path({}) == template_path({"XDG_RUNTIME_DIR": "x"}) == ""


def test_another_python_has_another_template(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so has another version of the code."""
    names = {template_path({"XDG_RUNTIME_DIR": "/x"})}
    monkeypatch.setattr(sys, "executable", "/other/python")
    names.add(template_path({"XDG_RUNTIME_DIR": "/x"}))
    monkeypatch.setattr(_template, "__version__", "99")
    names.add(template_path({"XDG_RUNTIME_DIR": "/x"}))
    assert len(names) == 3


def test_what_works_at_the_start_of_a_process_is_kept_apart() -> None:
    """The linker's, the allocator's and the locale's variables; not the daemon's own."""
    environ = {"LD_PRELOAD": "x", "LC_ALL": "C", "LANG": "C", "MALLOC_ARENA_MAX": "1", "PATH": "/"}
    assert set(early_environment(environ)) == {"LD_PRELOAD", "LC_ALL", "LANG", "MALLOC_ARENA_MAX"}
