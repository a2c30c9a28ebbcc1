"""A process in a container as if it were our own: our streams are its streams, our signals too.

Rules of this file:

* what it writes goes to our stdout, and all of it is there before we end: that is the block's work;
* the terminal is as it was before, on every way out;
* a signal that would have ended us ends it.  Linux drops what the first process of a container
  has no handler for (`sleep 100` and Ctrl-C): then it is killed, and the status says the signal;
* who types Ctrl-C for the third time wants it to be over: SIGKILL.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext

import trio

from ..containers import ContainerProcess
from ..errors import ShimError
from ._terminal import CTRL_C, is_deaf_foreground, raw_terminal, terminal_size, would_drop

__all__ = ["Begun", "attend"]

log = logging.getLogger("trioshim.cli")

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_OTHER = (signal.SIGUSR1, signal.SIGUSR2)
_ENOUGH = 3  # times Ctrl-C
_CHUNK = 64 * 1024
_KILLED = 128 + signal.SIGKILL

# Told of the process once it runs.
Begun = Callable[[ContainerProcess], object]


async def attend(
    opening: AbstractAsyncContextManager[ContainerProcess],
    *,
    interactive: bool = False,
    terminal: bool = False,
    begun: Begun = lambda _: None,
) -> int:
    """Open a process, and stand for it until it has ended.

    Args:
        opening: the process, with PIPE for its input if `interactive`.
        interactive: what we read it reads.
        terminal: it has a pty, and ours is raw meanwhile, if we have one.
        begun: called with it when it runs.

    Returns:
        Its exit status; 128 and the signal's number, if that has ended it or us.
    """
    seat = _Seat(interactive, terminal, begun)
    # What we were told to ignore (nohup) stays ignored.
    heard = [s for s in (*_ENDING, *_OTHER) if signal.getsignal(s) is not signal.SIG_IGN]
    with trio.open_signal_receiver(*heard, signal.SIGWINCH) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(seat.obey, signals)
            with seat.scope:
                async with opening as process:
                    seat.status = await seat.sit(process)
            nursery.cancel_scope.cancel()
    return seat.final_status()


class _Seat:
    """What is known of the process while it runs."""

    def __init__(self, interactive: bool, terminal: bool, begun: Begun) -> None:
        self.scope = trio.CancelScope()
        self.status: int | None = None
        self._process: ContainerProcess | None = None
        self._interactive = interactive
        self._terminal = terminal
        self._begun = begun
        self._interrupts = 0
        self._ended_by = 0

    def final_status(self) -> int:
        if self._ended_by and self.status in (None, _KILLED):
            return 128 + self._ended_by
        assert self.status is not None
        return self.status

    async def sit(self, process: ContainerProcess) -> int:
        self._process = process
        self._begun(process)
        async with trio.open_nursery() as nursery:
            with self._own_terminal():
                await self._fit()
                if self._interactive:
                    nursery.start_soon(self._feed, process)
                status = await process.wait()
            nursery.cancel_scope.cancel()
        return status

    @contextmanager
    def _own_terminal(self) -> Iterator[None]:
        raw = self._terminal and self._interactive and os.isatty(0)
        with raw_terminal(0) if raw else nullcontext():
            yield

    # ------------------------------------------------------------ signals

    async def obey(self, signals: AsyncIterator[int]) -> None:
        async for signum in signals:
            try:
                await self._obey(signal.Signals(signum))
            except ShimError as error:  # it has ended just now, or its shim has
                log.debug("signal %d: %s", signum, error)

    async def _obey(self, signum: signal.Signals) -> None:
        if signum is signal.SIGWINCH:
            await self._fit()
        elif self._process is None or (self._terminal and signum in _ENDING):
            # Of a container with a terminal we are the terminal: if that goes, it ends.
            self._ended_by = signum
            self.scope.cancel()
        else:
            await self._forward(self._process, signum)

    async def _forward(self, process: ContainerProcess, signum: signal.Signals) -> None:
        self._interrupts += signum is signal.SIGINT
        if self._interrupts >= _ENOUGH:
            await process.kill()
        elif signum in _ENDING and not process.exec_id and would_drop(process.pid, signum):
            await self._end_as_if_by(process, signum)
        else:
            await process.send_signal(signum)

    async def _end_as_if_by(self, process: ContainerProcess, signum: signal.Signals) -> None:
        self._ended_by = signum
        await process.kill()

    # ------------------------------------------------------------ streams

    async def _fit(self) -> None:
        """Its terminal gets the size of ours."""
        size = terminal_size(0) or terminal_size(1)
        if self._terminal and self._process is not None and size is not None:
            try:
                await self._process.resize(*size)
            except ShimError as error:
                log.debug("resize: %s", error)

    async def _feed(self, process: ContainerProcess) -> None:
        assert process.stdin is not None
        try:
            while chunk := await _read(0):
                await process.stdin.send_all(chunk)
                if self._terminal and CTRL_C in chunk and not process.exec_id:
                    await self._interrupt_deaf(process)
            await process.stdin.aclose()
        except (trio.BrokenResourceError, ShimError) as error:
            log.debug("stdin: %s", error)  # it has ended: its status tells

    async def _interrupt_deaf(self, process: ContainerProcess) -> None:
        if is_deaf_foreground(process.pid, signal.SIGINT):
            await self._end_as_if_by(process, signal.SIGINT)


async def _read(fd: int) -> bytes:
    """What is there to read, as soon as there is something; b"" at the end."""
    while True:
        try:
            await trio.lowlevel.wait_readable(fd)
            return os.read(fd, _CHUNK)
        except PermissionError:  # a file: there is nothing to wait for
            return await trio.to_thread.run_sync(os.read, fd, _CHUNK)
        except BlockingIOError:  # others read there too, and were quicker
            continue
        except OSError as error:  # the terminal is gone
            log.debug("reading %d: %s", fd, error)
            return b""
