"""Copies one stream from its source to its sink, and knows when the last byte is through.

Promises: a pump gives every byte that it has read to its sink, in order.  When an output's sink
fails, the pump goes on reading and drops what it reads, because a container that nobody reads
from stops for ever (containerd#12462).  A pump never raises anything but `Cancelled`.

Rules: one checkpoint for each chunk, or a busy container starves the event loop.  `splice`
where both sides are pipes: nothing is copied and nothing is held in between; read and write
where one side is a terminal or a file.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

import trio

from ._fd import PIPE_SIZE, Pipe

logger = logging.getLogger("trioshim.stdio")


class Source(Protocol):
    """Where a pump reads: `read` returns b"" at the end."""

    async def read(self) -> bytes: ...

    def close(self) -> None: ...


class Sink(Protocol):
    """Where a pump writes: `write_some` returns how much it took, possibly nothing."""

    async def write_some(self, data: memoryview) -> int: ...

    def close(self) -> None: ...


class Flow(Protocol):
    """What `drain` must know of an output.

    Attributes:
        progress: changes whenever bytes come or go.
        blocked: bytes are waiting for the client to take them.
    """

    @property
    def progress(self) -> int: ...

    @property
    def blocked(self) -> bool: ...

    async def wait_ended(self) -> None: ...


class Pump:
    """One direction of one stream.

    Args:
        name: for the log.
        source, sink: closed when the copying has ended.
        lossy: a failing sink loses bytes (output); else it ends the copying (stdin).
    """

    def __init__(self, name: str, source: Source, sink: Sink, *, lossy: bool = True) -> None:
        self.name = name
        self.progress = 0
        self.blocked = False
        self.lost = 0
        self._source = source
        self._sink = sink
        self.lossy = lossy
        self._had_to_wait = False
        self._ended = trio.Event()
        self._early = b""
        self._listening = trio.CancelScope()
        self._listened = trio.Event()
        self._listened.set()

    async def listen(self) -> None:
        """Before `run`: keep what comes, so that nobody waits in a full pipe (containerd#4434).

        It is the runtime that speaks then.  If the container comes into being, `run` gives it to
        the client; if not, its words are in the error.
        """
        self._listened = trio.Event()
        try:
            with self._listening:
                while data := await self._source.read():
                    self._early = (self._early + data)[-PIPE_SIZE:]
        finally:
            self._listened.set()

    async def wait_ended(self) -> None:
        await self._ended.wait()

    async def run(self) -> None:
        """Copy to the end of the source, then close both sides."""
        try:
            self._listening.cancel()
            await self._listened.wait()
            await self._give(self._early)
            await self._run()
        except trio.ClosedResourceError:
            logger.debug("%s: closed while it was copied", self.name)
        except Exception:
            logger.exception("%s: copying failed", self.name)
        finally:
            self._source.close()
            self._sink.close()
            self._ended.set()
            logger.debug("%s: ended, %d bytes moved", self.name, self.progress)
            if self.lost:
                logger.info("%s: %d bytes lost in all", self.name, self.lost)

    async def _run(self) -> None:
        source, sink = self._source, self._sink
        if isinstance(source, Pipe) and isinstance(sink, Pipe):
            while await self._splice(source, sink):
                await trio.lowlevel.checkpoint()
        else:
            while await self._copy():
                await trio.lowlevel.checkpoint()

    async def _splice(self, source: Pipe, sink: Pipe) -> bool:
        flags = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
        try:
            count = os.splice(source.fileno(), sink.fileno(), PIPE_SIZE, flags=flags)
        except BlockingIOError:
            return await self._wait_for(source, sink)
        except OSError as error:
            return self.lossy and await self._drop(error)
        self._had_to_wait = False
        self.progress += count
        return count > 0

    async def _wait_for(self, source: Pipe, sink: Pipe) -> bool:
        """Splice does not tell which side is not ready: the source is asked first."""
        if not self._had_to_wait:
            self._had_to_wait = True
            await trio.lowlevel.wait_readable(source.fileno())
            return True
        self._had_to_wait = False
        if source.at_end():  # a full sink hides the end from splice
            return False
        self.blocked = True
        try:
            await trio.lowlevel.wait_writable(sink.fileno())
        finally:
            self.blocked = False
        return True

    async def _drop(self, error: OSError) -> bool:
        data = await self._source.read()
        self.progress += len(data)
        self._lose(len(data), error)
        return bool(data)

    async def _copy(self) -> bool:
        data = await self._source.read()
        self.progress += len(data)
        return await self._give(data)

    async def _give(self, data: bytes) -> bool:
        """All of it to the sink; whether there was any, and a point in going on."""
        left = memoryview(data)
        try:
            while left:
                left = left[await self._write_some(left) :]
        except OSError as error:
            self._lose(len(left), error)
            return self.lossy
        return bool(data)

    async def _write_some(self, data: memoryview) -> int:
        self.blocked = True
        try:
            count = await self._sink.write_some(data)
        finally:
            self.blocked = False
        self.progress += count
        return count

    def _lose(self, count: int, error: OSError) -> None:
        if not self.lost and count and self.lossy:
            logger.warning("%s: cannot be written, bytes are dropped: %s", self.name, error)
        self.lost += count


async def drain(flows: Iterable[Flow], *, idle: float, cap: float) -> bool:
    """Wait for the end of all flows; True if it came.

    Args:
        flows: the outputs of a process that has ended.
        idle: give up after this many seconds without a byte, when none is waiting for the
            client: then a descendant holds the stream (containerd#7802).
        cap: give up after this many seconds whatever happens.
    """
    flows = list(flows)
    with trio.move_on_after(cap):
        while True:
            before = [flow.progress for flow in flows]
            with trio.move_on_after(idle):
                for flow in flows:
                    await flow.wait_ended()
                return True
            if before == [flow.progress for flow in flows] and not any(f.blocked for f in flows):
                break
    return False


@asynccontextmanager
async def open_pump_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery for tasks that never fail; they are cancelled when the block ends.

    What the block raises comes out as it is, not in an exception group: the caller cannot know
    that there is a nursery, and catches `RuntimeFailedError`.
    """
    own = AsyncExitStack()
    nursery = await own.enter_async_context(trio.open_nursery())
    try:
        yield nursery
    finally:
        # Shielded: else a cancelled pump's Cancelled would replace the block's own error.
        nursery.cancel_scope.shield = True
        nursery.cancel_scope.cancel()
        await own.aclose()
