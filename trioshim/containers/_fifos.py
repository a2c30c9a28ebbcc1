"""The client's ends of a process's standard streams: fifos in the bundle, as trio streams.

The reading ends are opened before the shim opens its own, so nobody waits for anybody; they are
read from only after it has, for until then a fifo without a writer looks like one at its end.
The writing end of stdin is opened when it is first used; closing it also sends CloseIO, because
a shim may hold the fifo open until then (Go's do).  A shim that is to delete a process waits, up to
10 seconds, until its output is taken; so what nobody takes is dropped then.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import termios
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from ..proto import task_v2_pb2 as api
from ._outputs import Streams

__all__ = ["FifoWriter", "Fifos", "open_fifos"]

_LOOK_AGAIN = 0.005  # seconds; only until the shim has opened stdin, which it does in Start
_END = b"\x04"  # Ctrl-D: hands over the line, which is the end if there is nothing in it
_CHUNK = 1 << 20  # bytes: all that a pipe may hold


@dataclass(frozen=True, slots=True)
class Fifos:
    """Paths for Create or Exec, "" for what is not wanted, and our reading ends.

    Attributes:
        stdin, stdout, stderr: paths.
        out, err: readable once the process was created; None without a fifo.
        terminal: they lead to one.
    """

    stdin: str
    stdout: str
    stderr: str
    out: trio.lowlevel.FdStream | None
    err: trio.lowlevel.FdStream | None
    terminal: bool = False

    def put_into(self, request: api.CreateTaskRequest | api.ExecProcessRequest) -> None:
        """Say in Create or Exec where they are."""
        request.stdin, request.stdout, request.stderr = self.stdin, self.stdout, self.stderr

    async def drop_unread(self, *, idle: float) -> None:
        """Read and drop the output of which nobody has read anything for so many seconds.

        It goes on until it is cancelled.  For the end of a process.
        """
        with ExitStack() as stack:
            ends = []
            for path in filter(None, (self.stdout, self.stderr)):
                ends.append(_open_end(path))  # its own: the others may be in use, or closed
                stack.callback(os.close, ends[-1])
            before = [_unread(end) for end in ends]
            while True:
                await trio.sleep(idle)
                for position, end in enumerate(ends):
                    if before[position] == _unread(end):
                        await _drop(end)
                    before[position] = _unread(end)


@contextmanager
def open_fifos(directory: Path, name: str, streams: Streams) -> Iterator[Fifos]:
    """Make the fifos of one process; afterwards they are closed and gone.

    Args:
        directory: exists, and is ours alone.
        name: of the process: "init", or the exec's id.
        streams: which ones.

    Raises:
        OSError: they cannot be made.
    """
    paths = {
        kind: str(directory / f"{name}-{kind}")
        for kind in ("stdin", "stdout", "stderr")
        if getattr(streams, kind)
    }
    ends: dict[str, trio.lowlevel.FdStream] = {}
    try:
        for kind, path in paths.items():
            os.mkfifo(path, 0o600)
            if kind != "stdin":
                fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                ends[kind] = trio.lowlevel.FdStream(fd)
        yield Fifos(
            paths.get("stdin", ""),
            paths.get("stdout", ""),
            paths.get("stderr", ""),
            ends.get("stdout"),
            ends.get("stderr"),
            streams.terminal,
        )
    finally:
        for end in ends.values():
            end._fd_holder.close()  # noqa: SLF001 (aclose would have to wait, and need not)
        for path in paths.values():
            _remove(path)


def _open_end(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _unread(end: int) -> int:
    """Bytes in a fifo."""
    return int.from_bytes(fcntl.ioctl(end, termios.FIONREAD, bytes(4)), sys.byteorder)


async def _drop(end: int) -> None:
    """Read it until there is no more for a moment."""
    with suppress(BlockingIOError):
        while os.read(end, _CHUNK):  # noqa: ASYNC110 (the shim fills it again)
            await trio.sleep(_LOOK_AGAIN)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


class FifoWriter(trio.abc.SendStream):
    """What is sent here is the process's stdin; closing it is its end.

    A terminal is not closed, for that is to hang up, and would cut its output off: what is typed
    at its end is Ctrl-D.

    Args:
        path: the fifo.
        terminal: it leads to one.
        gone: says whether the process has ended, so that nobody will ever read.
        close_io: the shim's CloseIO for this process.
    """

    def __init__(
        self,
        path: str,
        gone: Callable[[], bool],
        close_io: Callable[[], Awaitable[None]],
        *,
        terminal: bool = False,
    ) -> None:
        self._path = path
        self._terminal = terminal
        self._line_ended = True
        self._gone = gone
        self._close_io = close_io
        self._stream: trio.lowlevel.FdStream | None = None
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await (await self._opened()).send_all(data)
        if data:
            self._line_ended = bytes(data[-1:]) == b"\n"

    async def wait_send_all_might_not_block(self) -> None:
        await (await self._opened()).wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """No more input: the process reads what is there, and then the end."""
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        if self._terminal:
            await self._type_end()
            return
        self._closed = True
        if self._stream is not None:
            await self._stream.aclose()
        await self._close_io()

    async def _type_end(self) -> None:
        try:
            with suppress(trio.BrokenResourceError):
                await self.send_all(_END if self._line_ended else 2 * _END)
        finally:
            self._closed = True

    def close(self) -> None:
        """Close our end and tell nobody: the process is gone."""
        self._closed = True
        if self._stream is not None:
            self._stream._fd_holder.close()  # noqa: SLF001 (as above)

    async def _opened(self) -> trio.lowlevel.FdStream:
        if self._closed:
            raise trio.ClosedResourceError("stdin was closed")
        while self._stream is None:
            fd = self._open()
            if fd is not None:
                self._stream = trio.lowlevel.FdStream(fd)
            elif self._gone():
                raise trio.BrokenResourceError("the process has ended: nobody reads its stdin")
            else:
                await trio.sleep(_LOOK_AGAIN)
        return self._stream

    def _open(self) -> int | None:
        """The writing end; None while nobody has the reading end open."""
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENOENT):
                return None
            raise
        assert stat.S_ISFIFO(os.fstat(fd).st_mode)
        return fd
