"""`python -I -m trioshim.cli._template SOCKET IDLE`: processes that are ready for `trioshim run`.

`_ready` asks for one, and says what it is for; `trioshim.template` forks them.  Here is what is
loaded, and how a fork does a command in the place of the process that asked: with its streams, its
directory and its environment, until it has ended or the other is gone.
"""

from __future__ import annotations

import fcntl
import gc
import os
import select
import signal
import socket
import sys
import traceback
from contextlib import redirect_stdout, suppress
from io import StringIO
from typing import TYPE_CHECKING, NoReturn, TextIO, cast

from ..template.__main__ import main

if TYPE_CHECKING:
    from types import FrameType

    from ..template._likeness import Traits
    from ..template._spare import Kind

_STREAMS = (0, 1, 2)
_ENDINGS = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
    *(signal.SIGUSR1, signal.SIGUSR2),
)
_PATIENCE = 3.0  # seconds from SIGHUP to the first Ctrl-C when the other is gone
_INSISTENCE = 1.0  # seconds to the next
_NOT_FLUSHED = 120  # Python's, at its end


def load() -> Kind:
    """All that `trioshim run` needs."""
    from ..template._spare import Kind
    from . import _container_run, _main, _run  # noqa: F401 (loaded is all they are to be)

    return Kind(_warm_up, _run_once, become_command)


def _warm_up(path: str) -> None:
    _run_once(path)
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page that has an object on it


def _run_once(_path: str) -> None:
    import trio

    from ._main import obey

    async def turn() -> None:
        with trio.open_signal_receiver(signal.SIGWINCH):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.checkpoint)

    with redirect_stdout(StringIO()):
        obey(["run", "--help"])
    trio.run(turn)


def become_command(connection: int, _news: int, traits: Traits, _known: frozenset[str]) -> int:
    """Do a command in the place of the process that asks; tell it the status.

    Args:
        connection: to the process that asks.
        traits: those of the template.
    """
    from ..template._request import OUT_OF_THE_WAY, agree, move

    front = socket.socket(fileno=move(connection))
    # First of all: while we work, the template's lock and socket are not to seem alive.
    os.closerange(max(_STREAMS) + 1, OUT_OF_THE_WAY)
    os.register_at_fork(after_in_child=front.close)  # who stays behind with -d is not asked
    words: list[str] = []
    if not agree(front, lambda pid: words.extend(_become(front, pid, traits))):
        return 0
    _end_with_a_word(front)
    _hang_up_with(front)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    status = _do(words)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    front.sendall(str(status).encode())
    return 0


def _become(front: socket.socket, pid: int, traits: Traits) -> list[str]:
    from ..template._request import compare, receive, stand_in

    compare(pid, traits)
    argv, environ, fds = receive(front, len(_STREAMS) + 1)
    *streams, here = fds
    for theirs, ours in zip(streams, _STREAMS, strict=True):
        os.dup2(theirs, ours)
    os.fchdir(here)
    for fd in fds:
        os.close(fd)
    stand_in(pid, argv, environ, traits)
    _open_streams()
    sys.argv[:] = [os.fsdecode(word) for word in argv]
    return sys.argv[1:]


def _open_streams() -> None:
    """As Python does when it starts: what a terminal reads is not kept back."""
    encoding = sys.stdout.encoding
    errors = sys.stdout.errors
    sys.stdin = _opened(0, "r", -1, encoding, errors)
    sys.stdout = _opened(1, "w", -1, encoding, errors)
    sys.stderr = _opened(2, "w", 1, encoding, "backslashreplace")


def _opened(fd: int, mode: str, buffering: int, encoding: str, errors: str | None) -> TextIO:
    raw = os.fdopen(fd, mode, buffering, encoding=encoding, errors=errors, closefd=False)
    return cast("TextIO", raw)


def _end_with_a_word(front: socket.socket) -> None:
    """A signal ends us before the container is begun, as it would the other: that is its status."""

    def end(signum: int, _frame: FrameType | None) -> NoReturn:
        with suppress(OSError):
            front.send(str(128 + signum).encode())
        os._exit(0)

    for signum in _ENDINGS:
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, end)


def _hang_up_with(front: socket.socket) -> None:
    """When the other is gone: SIGHUP; for who does not end by that, Ctrl-C until it is enough.

    The other never writes, so nothing else makes a SIGIO.
    """

    def hang_up(_signum: int, _frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE, _INSISTENCE)
        os.kill(os.getpid(), signal.SIGHUP)

    def insist(_signum: int, _frame: FrameType | None) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGIO, hang_up)
    signal.signal(signal.SIGALRM, insist)
    fcntl.fcntl(front, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(front, fcntl.F_SETFL, fcntl.fcntl(front, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([front], [], [], 0)[0]:  # it has gone in the meantime
        os.kill(os.getpid(), signal.SIGIO)


def _do(words: list[str]) -> int:
    from ._main import obey

    try:
        return _flushed(obey(words))
    except BaseException:  # noqa: BLE001 (as Python says it at its end)
        traceback.print_exc()
        return _flushed(1)


def _flushed(status: int) -> int:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return _NOT_FLUSHED
    return status


if __name__ == "__main__":
    sys.exit(main(load))
