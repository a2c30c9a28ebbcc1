"""The template itself: keep one spare shim ready, and see that the code is still the code on disk.

A fork takes milliseconds here, and so do the page faults after it.  So it is done beforehand: the
spare has been forked, has run once more, and waits for a connection beside the template.

Rules:

* one thread and no event loop, so that a fork is whole;
* every fork is a double one: a spare is nobody's child, as a server is after `start` has ended;
* the template never talks to a peer, a spare to one;
* a spare ends with the template, and the template replaces a spare that is taken or gone.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from posixpath import dirname
from types import FrameType
from typing import NoReturn

from ..bootstrap._template import lock_path
from . import _code, _command_line
from ._hatch import file_of, sweep
from ._likeness import traits_of
from ._spare import STALE, TAKEN, USED, Kind, Spare

__all__ = ["serve_template"]

_LOOK = 60.0  # seconds between two looks at the code and at our own socket
_REST = 0.15  # seconds that the shim which was a spare, and its container, have the processors
_FAILURES = 3  # spares that end at once
_BACKLOG = 128
_ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_KNOWN = 64


def serve_template(
    path: str, idle: float, lock: int, load: Callable[[], Kind], executable: str = ""
) -> None:
    """Load the code, listen, and turn into what is wanted for each connection.

    Ends when there was no request for a while, when the code on disk is another, when the socket
    is another's, or by SIGTERM.

    Args:
        path: where to listen.
        idle: seconds without a request.
        lock: an fd with a lock that keeps other templates away.
        load: imports everything.
        executable: the place of the program whose shell may ask without a connection.

    Raises:
        OSError: there is no place to listen, or this kernel cannot do it.
    """
    before = _code.marks(_code.own_files())
    kind = load()
    warm = path + ".warm"
    kind.warm_up(warm)
    kept = _command_line.show([b"trioshim-template", os.fsencode(path)], [])  # or say why not
    files = _code.loaded_files()
    traits = traits_of(os.getpid())

    with _listening(path, lock) as listener:
        if any(_code.mark(name) != then for name, then in before.items() if name in files):
            return  # it has changed while it was loaded
        files = [path, *files]
        spare = Spare(
            kind=kind,
            traits=traits,
            listener=listener,
            files=files,
            code=_code.fingerprint(files),
            warm=warm,
            executable=executable,
            door=_door(kind, path, executable),
        )
        _keep(_Spares(spare), spare, idle)
    del kept


def _door(kind: Kind, path: str, executable: str) -> str:
    if kind.answer_shell is None or not executable.startswith("/"):
        return ""
    return file_of(dirname(path), executable)


def _keep(spares: _Spares, spare: Spare, idle: float) -> None:
    end = time.monotonic() + idle
    while (left := end - time.monotonic()) > 0 and spare.is_fresh():
        if not spares.waiting:
            spares.make_one()
        if spares.news(min(_LOOK, left)):
            end = time.monotonic() + idle
            # Whoever waits already cannot wait for that.
            select.select([spare.listener], [], [], _REST)
            spares.news(0)  # for the next spare


class _Spares:
    """The spare that waits, and those that were taken a moment ago.

    Attributes:
        waiting: the other end of the spare's socket, by which it tells what becomes of it.
    """

    def __init__(self, spare: Spare) -> None:
        self.waiting: socket.socket | None = None
        self._spare = spare
        self._known: list[str] = []
        self._taken: list[socket.socket] = []
        self._failures = 0

    def make_one(self) -> None:
        """Fork a spare.

        Raises:
            OSError: this machine has no room for it, or the last ones have all ended at once.
        """
        if self._failures >= _FAILURES:
            raise OSError("spares end at once")
        if self._spare.door:
            sweep(self._spare.door)
        self.waiting, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            fork_orphan(lambda: self._live(theirs))

    def news(self, seconds: float) -> bool:
        """Wait for what the spares have to tell: whether the one that waited is taken.

        Raises:
            SystemExit: the code has changed.
        """
        sources = [*self._taken, *([self.waiting] if self.waiting else [])]
        taken = False
        for source in select.select(sources, [], [], seconds)[0]:
            said = source.recv(256)
            if said == STALE:
                raise SystemExit(0)
            if said == USED:
                taken = True
            elif said == TAKEN:
                taken, self._failures = True, 0
                self._taken.append(source)
                self.waiting = None
            elif said:
                self._known = [*self._known, said.decode()][-_KNOWN:]
            else:
                self._forget(source)
        return taken

    def _forget(self, source: socket.socket) -> None:
        """It has ended, or is a shim now that has nothing more to say."""
        source.close()
        if source is self.waiting:
            self.waiting = None
            self._failures += 1
        else:
            self._taken.remove(source)

    # ------------------------------------------------------------ in the spare

    def _live(self, template: socket.socket) -> int:
        assert self.waiting is not None
        self.waiting.close()  # else we would not see the template's end
        for source in self._taken:
            source.close()
        return self._spare.live(template, frozenset(self._known))


def fork_orphan(live: Callable[[], int]) -> None:
    """Run a function in a process of its own that is nobody's child, with all signals blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _leave_orphan(live)
        os.waitpid(pid, 0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_orphan(live: Callable[[], int]) -> NoReturn:
    status = 1
    try:
        middle = os.getpid()
        if os.fork() == 0:
            while os.getppid() == middle:  # the adopter is asked for
                time.sleep(0)
            status = live()
    finally:
        os._exit(status)


@contextmanager
def _listening(path: str, lock: int) -> Iterator[socket.socket]:
    """The socket, from ready to gone."""
    for signum in _ENDINGS:
        signal.signal(signum, _end)
    with socket.socket(socket.AF_UNIX) as listener:
        with suppress(FileNotFoundError):
            os.unlink(path)  # of a template that was killed
        umask = os.umask(0o177)
        listener.bind(path)
        os.umask(umask)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        mark = _code.fingerprint([path])
        os.ftruncate(lock, 0)
        try:
            yield listener
        finally:
            for name in (path, lock_path(path)):
                if name != path or _code.fingerprint([path]) == mark:
                    with suppress(FileNotFoundError):
                        os.unlink(name)


def _end(_signum: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)
