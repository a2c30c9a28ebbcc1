"""Frames on their way out: in order, each written whole, or never another one.

Rules of this file:

* `put` never waits, so who reads never waits for who writes (containerd/ttrpc#72, #168);
* what the socket takes at once is written at once, by whoever has put it; for the rest one task
  writes at a time, for all; small frames that wait together go out in one write;
* a write that was cut short, by an error, a cancellation or the time limit, is the last one.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import trio

from ._socket import send_at_once

if TYPE_CHECKING:
    from trio.abc import SendStream

__all__ = ["Outbox"]

# One write takes so many bytes of small frames, and a last frame of any size.
_ENOUGH = 64 * 1024


class Outbox:
    """The frames that wait to be written to one stream.

    Args:
        stream: nobody else may write to it.
        send_timeout: seconds that one write may take.
    """

    def __init__(self, stream: SendStream, send_timeout: float) -> None:
        self._stream = stream
        self._send_timeout = send_timeout
        self._frames: OrderedDict[int, bytes] = OrderedDict()
        self._begun = b""  # the rest of a write that the socket took a part of
        self._tickets = 0
        self._writing = False

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def writing(self) -> bool:
        """Somebody writes, and will take along what is put now; or an earlier write failed."""
        return self._writing

    def put(self, frame: bytes) -> int:
        """Queue a frame; a write has to follow.  Returns what `withdraw` wants."""
        self._tickets += 1
        self._frames[self._tickets] = frame
        return self._tickets

    def withdraw(self, ticket: int) -> None:
        """Take a frame back; too late if its write has begun."""
        self._frames.pop(ticket, None)

    def write_at_once(self) -> bool:
        """Write what waits, as far as that takes no waiting; False: `flush` has to follow."""
        if self._writing:
            return True
        return self._write_some()

    async def flush(self) -> None:
        """Write what waits; returns at once if another task is doing that.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: the peer is gone.
            trio.TooSlowError: the peer does not read.
        """
        if self._writing:
            return
        # Stays set when a write fails: after a torn frame nothing that follows makes sense.
        self._writing = True
        if self._write_some():  # what others put in this turn of the loop goes out together
            await trio.lowlevel.checkpoint()
        if not self._write_some():
            await self._write_all()
        self._writing = False

    def _write_some(self) -> bool:
        """True: all that waits."""
        while self._frames and not self._begun:
            data = self._take()
            self._begun = data[send_at_once(self._stream, data) :]
        return not self._begun

    async def _write_all(self) -> None:
        with trio.CancelScope() as scope:
            while self._begun or self._frames:
                # One scope for all writes: `fail_after` costs more than the write itself.
                scope.deadline = trio.current_time() + self._send_timeout
                data, self._begun = self._begun or self._take(), b""
                await self._stream.send_all(data)
        if scope.cancelled_caught:
            raise trio.TooSlowError

    def _take(self) -> bytes:
        _, frame = self._frames.popitem(last=False)
        if not self._frames:
            return frame
        batch = [frame]
        size = len(frame)
        while self._frames and size < _ENOUGH:
            _, frame = self._frames.popitem(last=False)
            batch.append(frame)
            size += len(frame)
        return b"".join(batch)
