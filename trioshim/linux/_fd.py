"""File descriptors with an owner.

Promises: an `Fd` is closed once, by whoever comes first; a task that waits for it then wakes up
with `trio.ClosedResourceError`, and so does everybody who uses it later.  A number that the
kernel has given away again is never touched.

Rules: everything is close-on-exec; nothing here blocks the event loop.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
from contextlib import suppress
from types import TracebackType
from typing import Self

import trio

logger = logging.getLogger("trioshim.stdio")

CHUNK = 64 * 1024
PIPE_SIZE = 1024 * 1024


class Fd:
    """One file descriptor of ours; a context manager that closes it."""

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        if self._number < 0:
            raise trio.ClosedResourceError("this file descriptor was closed")
        return self._number

    @property
    def closed(self) -> bool:
        return self._number < 0

    def close(self) -> None:
        """Close it.  Again: nothing happens."""
        number, self._number = self._number, -1
        if number >= 0:
            trio.lowlevel.notify_closing(number)
            try:
                os.close(number)
            except OSError as error:
                # A network's file system may tell only now that it could not write.
                logger.warning("closing fd %d: %s", number, error)

    def dup(self) -> Self:
        """A second one for the same open file, so that two tasks can wait for it."""
        return type(self)(os.dup(self.fileno()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Pipe(Fd):
    """An end of a pipe or of a fifo; its reads and writes need it to be non-blocking."""

    __slots__ = ()

    async def read(self) -> bytes:
        """Some bytes; none at the end."""
        while True:
            with suppress(BlockingIOError):
                return os.read(self.fileno(), CHUNK)
            await trio.lowlevel.wait_readable(self.fileno())

    async def write_some(self, data: memoryview) -> int:
        """Write what fits; none when it had to wait for room."""
        with suppress(BlockingIOError):
            return os.write(self.fileno(), data)
        await trio.lowlevel.wait_writable(self.fileno())
        return 0

    def at_end(self) -> bool:
        """Whether all is read and nobody can write any more."""
        if self.closed:
            return True
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return poll.poll(0) == [(self.fileno(), select.POLLHUP)]

    def widen(self) -> Self:
        """Ask for room for 1 MiB: three times the throughput.  Without it, it works as well."""
        with suppress(OSError):
            fcntl.fcntl(self.fileno(), fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        return self


class File(Fd):
    """A regular file to append to.  Disks can be slow, so a thread writes."""

    __slots__ = ()

    async def write_some(self, data: memoryview) -> int:
        return await trio.to_thread.run_sync(os.write, self.fileno(), data)


class Nowhere:
    """Takes everything and keeps nothing."""

    __slots__ = ()

    async def write_some(self, data: memoryview) -> int:
        await trio.lowlevel.checkpoint()
        return len(data)

    def close(self) -> None:
        """Nothing to close."""


def make_pipe() -> tuple[Pipe, Pipe]:
    """The reading and the writing end of a new pipe, both still blocking."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    return Pipe(reader), Pipe(writer).widen()
