"""What goes out on one gRPC connection: whole frames, in order, from whoever has said something.

Rules of this file:

* what the socket takes at once is written at once; for the rest one task writes at a time, for
  all; a write that is cut short is the last one (law 10);
* what a slow peer has not read is not added to without end: `room` waits.
"""

from __future__ import annotations

import math
from typing import Any

import trio

from ..ttrpc._socket import send_at_once

__all__ = ["Writer"]

_PIECE = 1024 * 1024  # what is written under one deadline
_MUCH = 1024 * 1024  # unwritten: whoever can wait, waits


class Writer:
    """The way out.

    Args:
        stream: nobody else writes to it.
        grpc: purerpc's engine, whose bytes these are.
        tasks: cancelled when a write fails; it takes the tasks that write.
        send_timeout: seconds that one write may take.

    Attributes:
        closing: there will be no new tasks; with the last one the nursery is closed.
    """

    def __init__(
        self, stream: trio.abc.Stream, grpc: Any, tasks: trio.Nursery, send_timeout: float
    ) -> None:
        self.closing = False
        self._stream = stream
        self._grpc = grpc
        self._tasks = tasks
        self._send_timeout = send_timeout
        self._outgoing = bytearray()
        self._writing = False
        self._written = trio.lowlevel.ParkingLot()

    @property
    def much(self) -> bool:
        """More has been said than should wait."""
        return len(self._outgoing) > _MUCH

    async def room(self) -> None:
        """Wait until the peer has read: its window may be larger than our memory."""
        self._outgoing += self._grpc.data_to_send()
        while self.much:
            self.flush_soon()
            if self.much:
                await self._written.park()

    def flush_soon(self) -> None:
        """Write what has been said, now or as soon as the peer reads."""
        self._outgoing += self._grpc.data_to_send()  # what h2 holds would not be counted
        if self._writing or self._write_some():
            return
        if self._tasks.child_tasks or not self.closing:
            self._tasks.start_soon(self.flush)

    async def say_last_words(self) -> None:
        """Return when all is written, whoever does it; a GOAWAY would be lost with its writer."""
        while self._writing:
            await self._written.park()
        await self.flush()

    async def flush(self) -> None:
        """Write what waits; returns at once if another task is doing that, for all."""
        if self._writing:
            return
        # Stays set when a write fails: after a torn frame nothing that follows makes sense.
        self._writing = True
        if self._write_some():  # what others say in this turn of the loop goes out together
            await trio.lowlevel.checkpoint()
        if self._write_some() or await self._write_all():
            self._writing = False
            self._written.unpark_all()

    def _write_some(self) -> bool:
        """Whether the socket has taken all there is."""
        self._outgoing += self._grpc.data_to_send()
        if sent := send_at_once(self._stream, self._outgoing):
            del self._outgoing[:sent]
            self._written.unpark_all()
        return not self._outgoing

    async def _write_all(self) -> bool:
        """False: the peer is gone."""
        scope = self._tasks.cancel_scope  # the one that is there: one more costs as much as a write
        try:
            while data := bytes(self._outgoing) + self._grpc.data_to_send():
                self._outgoing.clear()
                for start in range(0, len(data), _PIECE):
                    scope.deadline = trio.current_time() + self._send_timeout
                    await self._stream.send_all(data[start : start + _PIECE])
                self._written.unpark_all()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            scope.cancel()
            return False
        scope.deadline = math.inf
        return True
