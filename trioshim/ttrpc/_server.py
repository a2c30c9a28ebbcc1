"""The server's side of one connection: read, dispatch, reply.

Rules of this file:

* the reader waits for the peer and for nothing else, above all not for a writer;
* every call has its own task, from its request to the last byte of its reply;
* when the peer is gone its calls are cancelled; what has to go on nevertheless is for `dispatch`
  to hand to somebody else;
* nothing that one call raises ends the connection, and nothing that one connection does ends
  another.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from ..errors import (
    InternalError,
    ResourceExhaustedError,
    ShimError,
    StatusError,
    UnimplementedError,
    to_status,
)
from ._connection import Connection
from ._events import (
    NEED_DATA,
    BadFrame,
    ConnectionClosed,
    LocalProtocolError,
    Mode,
    RemoteProtocolError,
    Request,
    Response,
    Role,
)
from ._outbox import Outbox

if TYPE_CHECKING:
    from trio.abc import Stream

__all__ = ["serve_connection"]

_log = logging.getLogger("trioshim.ttrpc")

_CHUNK = 64 * 1024


async def serve_connection(
    stream: Stream,
    dispatch: Callable[[Request], Awaitable[bytes]],
    *,
    reading: trio.CancelScope | None = None,
    send_timeout: float = 30.0,
    max_in_flight: int = 16384,
) -> None:
    """Serve one connection until the peer is gone, then close it.

    Calls run concurrently and are answered in the order in which they end.  A reply is written
    whole or the connection ends with it (law 10).

    Args:
        stream: closed on return, however that comes.
        dispatch: gives the payload of the reply to a unary request.  A `ShimError` becomes the
            status of the reply; another exception is logged and answered UNKNOWN.  The time
            limit in `Request.timeout_nano` is for `dispatch` to keep.
        reading: cancel it to stop: no request is read any more, the calls that run are finished
            and answered, then `serve_connection` returns.
        send_timeout: seconds for one write; a peer that takes longer is cut off.
        max_in_flight: with more requests unanswered than that, the peer is cut off.
    """
    async with stream, trio.open_nursery() as tasks:
        served = _Served(stream, dispatch, tasks, Outbox(stream, send_timeout), max_in_flight)
        with reading or trio.CancelScope() as scope:
            await served.read()
        if not scope.cancelled_caught:
            tasks.cancel_scope.cancel()


class _Served:
    """A connection being served: the reader and the calls share it."""

    def __init__(
        self,
        stream: Stream,
        dispatch: Callable[[Request], Awaitable[bytes]],
        tasks: trio.Nursery,
        outbox: Outbox,
        max_in_flight: int,
    ) -> None:
        self._stream = stream
        self._dispatch = dispatch
        self._tasks = tasks
        self._outbox = outbox
        self._max_in_flight = max_in_flight
        self._running = 0
        self._connection = Connection(Role.SERVER)

    async def read(self) -> None:
        """Start what the peer asks for; returns when there is nothing more to expect from it."""
        going_on = True
        while going_on:
            try:
                data = await self._stream.receive_some(_CHUNK)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            self._connection.receive_data(data)
            try:
                going_on = self._take_events()
            except RemoteProtocolError as error:
                _log.info("ttrpc: connection ends: %s", error)
                return

    def _take_events(self) -> bool:
        while (event := self._connection.next_event()) is not NEED_DATA:
            if isinstance(event, ConnectionClosed):
                return False
            if isinstance(event, Request) and event.mode is Mode.UNARY:
                self._running += 1
                self._tasks.start_soon(self._answer, event, name=event.method)
            elif isinstance(event, Request):
                self._reply(_status(event, UnimplementedError("streaming")))
            elif isinstance(event, BadFrame):
                self._reply(event)
            if self._running + len(self._outbox) > self._max_in_flight:
                limit = self._max_in_flight
                _log.warning("ttrpc: more than %d requests unanswered, closing", limit)
                return False
        return True

    async def _answer(self, request: Request) -> None:
        try:
            response = await self._respond(request)
        finally:
            self._running -= 1
        self._put(response)
        await self._flush()

    async def _respond(self, request: Request) -> Response:
        try:
            payload = await self._dispatch(request)
        except Exception as error:  # noqa: BLE001 (the peer gets it; Cancelled is no Exception)
            return _status(request, error)
        except BaseExceptionGroup as group:
            # A call that is cancelled may fail in several ways at once.  What is an error is
            # told here, so that only the cancellation leaves this call.
            errors, others = group.split(Exception)
            if errors is not None:
                _log_failure(request, errors)
            assert others is not None
            raise others from None
        return Response(request.stream_id, payload)

    def _reply(self, reply: Response | BadFrame) -> None:
        """From the reader, which must not wait."""
        self._put(reply)
        if not self._outbox.writing:
            self._tasks.start_soon(self._flush)

    def _put(self, reply: Response | BadFrame) -> None:
        try:
            frame = self._connection.send(reply)
        except ResourceExhaustedError as error:
            frame = self._connection.send(_refusal(reply.stream_id, error))
        except LocalProtocolError as error:
            _log.exception("ttrpc: unusable reply")
            frame = self._connection.send(_refusal(reply.stream_id, InternalError(str(error))))
        self._outbox.put(frame)

    async def _flush(self) -> None:
        # Not shielded: only the end of the whole connection can cancel this, and then a torn
        # frame is followed by nothing; a shield would keep Shutdown waiting for a deaf peer.
        try:
            await self._outbox.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._tasks.cancel_scope.cancel()
        except trio.TooSlowError:
            _log.warning("ttrpc: the peer does not read its replies, closing")
            self._tasks.cancel_scope.cancel()


def _status(request: Request, error: Exception) -> Response:
    """The reply that tells an error to the peer."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if not isinstance(error, ShimError):
        _log_failure(request, error)
        error = StatusError(str(error) or type(error).__name__)
    return _refusal(request.stream_id, error)


def _refusal(stream_id: int, error: ShimError) -> Response:
    code, text = to_status(error)
    # File names that are not UTF-8 come as lone surrogates, which no protobuf string can hold.
    text = text.encode(errors="backslashreplace").decode()
    return Response(stream_id, code=code, message=text, details=error.details)


def _log_failure(request: Request, error: BaseException) -> None:
    _log.error("ttrpc: %s/%s failed", request.service, request.method, exc_info=error)
