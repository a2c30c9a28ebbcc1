"""The client's side of one connection: many calls at a time.

Rules of this file:

* whoever reads never writes, and a caller that leaves, by its deadline or cancelled, leaves at
  once: the frame that it began is finished by another task;
* when the connection ends, every call that waits learns it, and every later one.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from ..errors import Code, UnavailableError, from_status
from ._calls import Call, in_time
from ._connection import Connection
from ._events import (
    NEED_DATA,
    BadFrame,
    ConnectionClosed,
    RemoteProtocolError,
    Request,
    Response,
    Role,
)
from ._frames import MAX_STREAM_ID
from ._outbox import Outbox
from ._shelter import closed_at_the_end, open_shelter, undisturbed
from ._socket import receive_some

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from trio.abc import Stream

__all__ = ["Client", "open_client"]

_log = logging.getLogger("trioshim.ttrpc")

_MAX_NANO = 2**63 - 1
# After a write has failed, what the peer said before it left may still be read, so long.
_LAST_WORDS = 1.0


@asynccontextmanager
async def open_client(stream: Stream, *, send_timeout: float = 30.0) -> AsyncIterator[Client]:
    """Make calls over a stream; it is closed at the end of the block.

    A cancellation from outside does not disturb the connection before the block has ended, so
    calls inside of a shield work.

    Args:
        stream: a connected stream; nobody else may use it.
        send_timeout: seconds for one write; a server that takes longer is given up.
    """
    async with closed_at_the_end(stream), open_shelter() as tasks:
        yield Client(stream, tasks, send_timeout)


class Client:
    """Calls over one connection.  Made by `open_client`."""

    def __init__(self, stream: Stream, tasks: trio.Nursery, send_timeout: float) -> None:
        self._stream = stream
        self._tasks = tasks
        self._outbox = Outbox(stream, send_timeout)
        self._connection = Connection(Role.CLIENT)
        self._calls: dict[int, Call] = {}
        self._usable = True
        self._ended = trio.Event()
        self._reading = trio.CancelScope()
        tasks.start_soon(self._read)

    @property
    def closed(self) -> bool:
        """No further call can be made."""
        return not self._usable

    async def wait_closed(self) -> None:
        """Wait until the connection has ended and every call knows it."""
        await self._ended.wait()

    async def call(
        self,
        service: str,
        method: str,
        payload: bytes,
        *,
        timeout: float | None = None,
        metadata: Iterable[tuple[str, str]] = (),
    ) -> bytes:
        """Call a method, return the payload of its response.

        May be cancelled at any time; the server is not told and may finish the call.

        Args:
            service: full name, such as `containerd.task.v2.Task`.
            method: bare name, such as `Create`.
            payload: the serialized request.
            timeout: seconds; also told to the server.
            metadata: keys (lower case) and values.

        Raises:
            ShimError: the status that the server answered, as a class of `trioshim.errors`.
            UnavailableError: "ttrpc: closed", the connection has ended.
            DeadlineExceededError: `timeout` has passed.
            ResourceExhaustedError: the request is too long; nothing was sent.
            LocalProtocolError: the request cannot be encoded; nothing was sent.
        """
        return await in_time(timeout, self._call, service, method, payload, tuple(metadata))

    async def _call(
        self,
        timeout: float | None,
        service: str,
        method: str,
        payload: bytes,
        metadata: tuple[tuple[str, str], ...],
    ) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()  # what nobody wants is not sent
        stream_id = self._connection.next_stream_id
        if stream_id > MAX_STREAM_ID:
            self._usable = False  # calls under way still get their answers
        if not self._usable:
            await trio.lowlevel.checkpoint()
            raise UnavailableError("ttrpc: closed")
        # No await between the choice of the id and `put`: ids go out in increasing order.
        nano = 0 if timeout is None else int(min(max(timeout * 1e9, 1), _MAX_NANO))
        request = Request(stream_id, service, method, payload, nano, metadata)
        ticket = self._outbox.put(self._connection.send(request))
        # Alone it goes out now; with others, whose calls may be many, in one write a turn.
        if (self._calls or not self._outbox.write_at_once()) and not self._outbox.writing:
            self._tasks.start_soon(self._flush)
        call = self._calls[stream_id] = Call()
        try:
            await call.answered.wait()
        finally:
            del self._calls[stream_id]
            self._connection.abandon(stream_id)
            self._outbox.withdraw(ticket)
        return call.result("ttrpc: closed")

    @undisturbed
    async def _flush(self) -> None:
        try:
            await self._outbox.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._usable = False
            self._reading.deadline = trio.current_time() + _LAST_WORDS
        except trio.TooSlowError:
            _log.warning("ttrpc: the server does not read its requests, closing")
            self._usable = False
            self._reading.cancel()

    @undisturbed
    async def _read(self) -> None:
        try:
            with self._reading:
                await self._receive()
        except (trio.BrokenResourceError, trio.ClosedResourceError, RemoteProtocolError) as error:
            _log.debug("ttrpc: connection ended: %s", error)
        finally:
            self._usable = False
            for call in self._calls.values():
                call.answered.set()
            self._ended.set()

    async def _receive(self) -> None:
        going_on = True
        while going_on:
            self._connection.receive_data(await receive_some(self._stream))
            going_on = self._take_events()

    def _take_events(self) -> bool:
        while (event := self._connection.next_event()) is not NEED_DATA:
            if isinstance(event, ConnectionClosed):
                return False
            if isinstance(event, Response | BadFrame):
                self._answered(event)
        return True

    def _answered(self, event: Response | BadFrame) -> None:
        call = self._calls.get(event.stream_id)
        if call is None:
            # The usual end of a call that was cancelled.
            _log.debug("ttrpc: nobody waits for stream %d", event.stream_id)
        elif isinstance(event, Response) and event.code == Code.OK:
            call.answer(event.payload)
        else:
            details = event.details if isinstance(event, Response) else ()
            call.answer(from_status(event.code, event.message, details))
