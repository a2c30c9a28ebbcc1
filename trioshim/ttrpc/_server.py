"""The server's side of one connection: read, dispatch, reply.

Rules of this file:

* the reader waits for the peer and for nothing else, above all not for a writer;
* a call that has to wait has its own task, from its request to the last byte of its reply; one
  that can be answered at once is, by the reader, so many of them before others have their turn;
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
    Event,
    LocalProtocolError,
    Mode,
    NeedData,
    RemoteProtocolError,
    Request,
    Response,
    Role,
)
from ._outbox import Outbox
from ._socket import receive_some

if TYPE_CHECKING:
    from trio.abc import Stream

__all__ = ["serve_connection"]

_log = logging.getLogger("trioshim.ttrpc")

_UNARY = Mode.UNARY  # to look it up takes longer than to compare it
_TURN = 64  # answers at once, before other tasks have their turn


def _never(_request: Request) -> None:
    return None


async def serve_connection(
    stream: Stream,
    dispatch: Callable[[Request], Awaitable[bytes]],
    *,
    at_once: Callable[[Request], bytes | None] = _never,
    first: bytes | bytearray = b"",
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
        at_once: the same for a request that needs no waiting; None: it is for `dispatch`.
        first: what was received already.
        reading: cancel it to stop: no request is read any more, the calls that run are finished
            and answered, then `serve_connection` returns.
        send_timeout: seconds for one write; a peer that takes longer is cut off.
        max_in_flight: with more requests unanswered than that, the peer is cut off.
    """
    async with stream, trio.open_nursery() as tasks:
        outbox = Outbox(stream, send_timeout)
        served = _Served(stream, dispatch, at_once, tasks, outbox, max_in_flight)
        with reading or trio.CancelScope() as scope:
            await served.read(first)
        if not scope.cancelled_caught:
            tasks.cancel_scope.cancel()


class _Served:
    """A connection being served: the reader and the calls share it."""

    def __init__(
        self,
        stream: Stream,
        dispatch: Callable[[Request], Awaitable[bytes]],
        at_once: Callable[[Request], bytes | None],
        tasks: trio.Nursery,
        outbox: Outbox,
        max_in_flight: int,
    ) -> None:
        self._stream = stream
        self._dispatch = dispatch
        self._at_once = at_once
        self._tasks = tasks
        self._outbox = outbox
        self._max_in_flight = max_in_flight
        self._running = 0
        self._connection = Connection(Role.SERVER)

    async def read(self, first: bytes | bytearray) -> None:
        """Do what the peer asks for; returns when nothing more is to be expected from it."""
        if first:
            self._connection.receive_data(first)
        try:
            await trio.lowlevel.checkpoint()
            while (last := self._take_events()) is not None:
                if last is NEED_DATA:
                    self._connection.receive_data(await receive_some(self._stream))
                else:  # others have their turn before the rest
                    await trio.lowlevel.checkpoint()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        except RemoteProtocolError as error:
            _log.info("ttrpc: connection ends: %s", error)

    def _take_events(self) -> Event | NeedData | None:
        """Take a turn's share; returns the last of it, or None if the connection is over."""
        for _ in range(_TURN):
            event = self._connection.next_event()
            if event is NEED_DATA:
                break
            if not self._take(event):
                return None
        if not self._outbox.write_at_once():
            self._tasks.start_soon(self._flush)
        return event

    def _take(self, event: Event) -> bool:
        if isinstance(event, Request):
            self._begin(event)
        elif isinstance(event, BadFrame):
            self._put(event)
        elif isinstance(event, ConnectionClosed):
            return False
        if self._running + len(self._outbox) <= self._max_in_flight:
            return True
        _log.warning("ttrpc: more than %d requests unanswered, closing", self._max_in_flight)
        return False

    def _begin(self, request: Request) -> None:
        try:
            if request.mode is not _UNARY:
                raise UnimplementedError("streaming")
            payload = self._at_once(request)
        except Exception as error:  # noqa: BLE001 (the peer gets it)
            self._put(_status(request, error))
            return
        if payload is not None:
            self._put(Response(request.stream_id, payload))
        else:
            self._running += 1
            self._tasks.start_soon(self._answer, request, name=request.method)

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
