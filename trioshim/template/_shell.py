"""What `start` does, done by the spare that becomes the shim: for a shell that asks at the hatch.

Rules: until it is certain that a server is needed nothing of this process is changed for good, and
it goes on as a spare if none is; from then on it serves or dies.  Whatever is odd is an end of file
for the shell, and then Python does it as ever and says what is wrong.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from .._compose import serve_forever
from ..bootstrap import Arguments, Verb, check_arguments, parse_arguments
from ..bootstrap._dialects import STDIN_LIMIT, wants_template
from ..bootstrap._files import read_stdin
from ..bootstrap._spawn import Left
from ..bootstrap._start import LISTENER_FD, Caller, start
from ..bootstrap._template import TEMPLATE_TIMEOUT
from ._child import adopters, server_arguments
from ._hatch import ITS_STDIN
from ._likeness import Traits, parent_of, umask_of
from ._request import OUT_OF_THE_WAY, RefusalError, check_environment, compare, stand_in
from ._spare import Visit

__all__ = ["answer_shell"]


def answer_shell(visit: Visit, traits: Traits, known: frozenset[str]) -> int | None:
    """Do what `start` is to do for a shell.

    Args:
        visit: of the shell.
        traits: those of the template.
        known: names of processes whose orphans are adopted as we are.

    Returns:
        The exit status of the shim that this process has been; None: it is a spare as before.
    """
    caller = None
    try:
        with _time_limit():
            arguments, environ = _asked(visit, traits, known)
            caller = _Shell(visit, environ, traits)
            _start_there(arguments, environ, caller)
    except (RefusalError, OSError, ValueError):
        if caller is not None and caller.is_changed:
            raise SystemExit(1) from None
    if caller is None or caller.server is None:
        return None
    os.closerange(LISTENER_FD + 1, OUT_OF_THE_WAY)
    visit.hatch.close()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    serve_forever(caller.server)
    return 0


@contextmanager
def _time_limit() -> Iterator[None]:
    """Die when it takes too long: a shell cannot limit its patience, and Python waits then."""
    signal.setitimer(signal.ITIMER_REAL, TEMPLATE_TIMEOUT)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    try:
        yield
    finally:
        _end_time_limit()


def _end_time_limit() -> None:
    # In this order: a signal that is kept back would end the shim when it unblocks all.
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})


def _start_there(arguments: Arguments, environ: dict[str, str], caller: _Shell) -> None:
    """In its directory and with its umask: for good, if we serve."""
    umask = os.umask(umask_of(caller.pid))
    try:
        os.chdir(f"/proc/{caller.pid}/cwd")
        start(arguments, environ, caller)
    finally:
        if caller.server is None:
            os.umask(umask)
            os.chdir("/")


def _asked(visit: Visit, traits: Traits, known: frozenset[str]) -> tuple[Arguments, dict[str, str]]:
    """The command line and the environment of a process that we can stand in for."""
    pid = visit.pid
    compare(pid, traits)
    if adopters(pid) not in known:
        raise RefusalError("who adopts its orphans?")
    words = [os.fsdecode(word) for word in _items(pid, "cmdline")]
    if words[1:2] != [visit.executable]:
        raise RefusalError("another executable")
    environ = _environment(_items(pid, "environ"))
    environ["PWD"] = os.readlink(f"/proc/{pid}/cwd")  # as a shell sets it
    if not wants_template(environ):
        raise RefusalError("no template is wanted")
    check_environment(environ)
    arguments = parse_arguments(words[2:])
    check_arguments(arguments)
    if arguments.verb is not Verb.START:
        raise RefusalError("not `start`")
    return arguments, environ


def _environment(variables: Iterable[bytes]) -> dict[str, str]:
    """What a Python in its place would have."""
    environ: dict[str, str] = {}
    for variable in variables:
        key, equals, value = os.fsdecode(variable).partition("=")
        if key and equals:
            environ.setdefault(key, value)
    locale = environ.get("LC_CTYPE") or environ.get("LANG") or "C"
    if locale in ("C", "POSIX") and not environ.get("LC_ALL"):
        environ["LC_CTYPE"] = "C.UTF-8"  # PEP 538, and children inherit it
    return environ


def _items(pid: int, name: str) -> list[bytes]:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read().split(b"\0")[:-1]


class _Shell(Caller):
    """A shell that has been run as `start`.

    Attributes:
        pid: its number.
        is_changed: this process is no spare any more.
        server: what it is to serve, if it is the server.
    """

    __slots__ = ("_traits", "_visit", "is_changed", "pid", "server")

    def __init__(self, visit: Visit, environ: Mapping[str, str], traits: Traits) -> None:
        super().__init__(environ)
        self._visit = visit
        self._traits = traits
        self.pid = visit.pid
        self.is_changed = False
        self.server: Arguments | None = None

    def parent(self) -> int:
        return parent_of(self.pid)

    def read_stdin(self) -> bytes:
        fd = os.open(f"/proc/{self.pid}/fd/{ITS_STDIN}", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            return read_stdin(STDIN_LIMIT, fd)
        finally:
            os.close(fd)

    def expect_server(self) -> None:
        """It is there."""

    def leave_server(self, argv: list[str], environ: dict[str, str], listener: int) -> Left:
        words = [os.fsencode(word) for word in argv]
        arguments = server_arguments(words)
        self.is_changed = True
        self._visit.take()
        os.dup2(listener, LISTENER_FD)
        variables = [os.fsencode(f"{key}={value}") for key, value in environ.items()]
        stand_in(self.pid, words, variables, self._traits)
        sys.argv[1:] = argv[4:]
        self.server = arguments
        return Left(os.getpid())

    def answer(self, data: bytes) -> None:
        _end_time_limit()  # who has heard it has a shim that lives
        if not self._visit.hatch.tell(data):
            raise ConnectionError("nobody waits for the answer any more")

    def end(self) -> None:
        """The template is there, too."""
