"""One gRPC connection: purerpc's protocol engine on our own stream.

purerpc and h2 turn bytes into events and back (`_grpc_wire`); reading, writing and the life of a
call are here.  All calls are unary but those of `_grpc_extras`: each message has its answer.

Rules of this file:

* the reader never waits for a call; it waits for the writer only when a peer makes us say much
  and reads nothing of it;
* a call that can be answered at once is, by the reader; every other one has its own task and its
  own cancel scope: RST_STREAM cancels that scope, so what has to go on nevertheless is for the
  dispatcher to hand to somebody else (law 8);
* what is wrong with one request is answered on its stream; what is wrong with the framing ends
  this connection, never another one (law 9);
* nothing that a peer sends is kept without a limit: frames, streams, requests on their way in,
  questions, unwritten replies;
* purerpc and h2 have no type hints: what is theirs is `Any` (`self._grpc`, events), nothing else.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import trio
from h2 import events
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError, StreamClosedError

from ..errors import DeadlineExceededError, ResourceExhaustedError, ShimError, StatusError
from ..ttrpc._socket import receive_some
from ._grpc_extras import talks_about
from ._grpc_frames import FrameError, Frames
from ._grpc_talk import Conversation
from ._grpc_wire import (
    MAX_STREAMS,
    Requests,
    announce_goaway,
    open_connection,
    pack_message,
    read_message,
    trailers,
)
from ._grpc_writer import Writer
from ._service import Dispatcher

__all__ = ["serve_grpc"]

log = logging.getLogger("trioshim.rpc")

_WINDOW = 64 * 1024  # bytes taken from it that may stay so
_MAX_ARRIVING = 32 * 1024 * 1024  # bytes of requests that have not come whole, together
_LAST_WORDS = 1.0  # seconds for the GOAWAY to a peer that made a mistake


async def serve_grpc(
    stream: trio.abc.Stream,
    dispatcher: Dispatcher,
    *,
    reading: trio.CancelScope,
    first: bytes | bytearray = b"",
    send_timeout: float = 30.0,
) -> None:
    """Serve one gRPC connection until the peer is gone, then close it.

    Args:
        stream: closed on return, however that comes.
        dispatcher: answers the calls.
        reading: cancel it to stop: the peer is told with GOAWAY, new requests are refused, the
            calls that run are finished and answered, then `serve_grpc` returns.
        first: what was received already.
        send_timeout: seconds for one write; a peer that takes longer is cut off.
    """
    async with stream, trio.open_nursery() as listening:
        async with trio.open_nursery() as calls:
            served = _Served(stream, dispatcher, calls, send_timeout)
            served.hear(first)
            with reading:
                await served.read()
            if reading.cancelled_caught:
                served.go_away()
                listening.start_soon(served.read_to_the_end)
            else:
                with trio.move_on_after(_LAST_WORDS):
                    await served.writer.say_last_words()
                calls.cancel_scope.cancel()
        if trio.current_time() >= calls.cancel_scope.deadline:
            log.warning("gRPC: the peer does not read its replies, closing")
        listening.cancel_scope.cancel()


@dataclass(frozen=True, slots=True)
class _Call:
    """A request on its way in, then the call that it became."""

    stream_id: int
    service: str
    method: str
    deadline: float
    body: bytearray = field(default_factory=bytearray)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    conversation: Conversation | None = None


class _Served:
    """A connection being served: the reader and the calls share it."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        dispatcher: Dispatcher,
        tasks: trio.Nursery,
        send_timeout: float,
    ) -> None:
        self._stream = stream
        self._dispatcher = dispatcher
        self._tasks = tasks
        self._talks = talks_about(dispatcher.services.values())
        self._frames = Frames()
        self._grpc = open_connection()
        self.writer = Writer(stream, self._grpc, tasks, send_timeout)
        self._requests = Requests()
        self._arriving: dict[int, _Call] = {}
        self._arrived = 0  # bytes of their bodies
        self._owed = 0  # bytes taken from the peer's window
        self._running: dict[int, _Call] = {}
        self._window_moved = trio.lowlevel.ParkingLot()

    # ------------------------------------------------------------ reading

    def hear(self, data: bytes | bytearray) -> None:
        """What was received by others."""
        self._frames.feed(data)

    async def read(self) -> None:
        """Do what the peer says; returns when there is nothing more to expect from it."""
        while True:
            await self.writer.room()
            try:
                portion = self._frames.portion(trio.current_time())
                received = self._grpc.h2_connection.receive_data(portion) if portion else ()
            except FrameError as error:
                log.warning("gRPC: %s, closing", error)
                self._grpc.h2_connection.close_connection(error.code)
                return
            except Exception as error:  # noqa: BLE001 (any bytes may come; h2 has no one error)
                log.info("gRPC: connection ends: %r", error)
                return
            for event in received:
                self._take(event)
            self.writer.flush_soon()
            if portion and self._frames.more:  # others have their turn before
                await trio.lowlevel.checkpoint()
            elif not await self._receive():
                return

    async def _receive(self) -> bool:
        """False: the peer is gone."""
        try:
            data = await receive_some(self._stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        self._frames.feed(data)
        return bool(data)

    async def read_to_the_end(self) -> None:
        """While the last calls finish: window updates, resets, and the news that nobody waits."""
        await self.read()
        self._tasks.cancel_scope.cancel()

    def go_away(self) -> None:
        """Tell the peer that no request will be served but those that run."""
        for stream_id in self._arriving:
            self._reset(stream_id, ErrorCodes.REFUSED_STREAM)
        self._arriving.clear()
        for call in self._running.values():
            if call.conversation is not None:
                call.conversation.stop()
        announce_goaway(self._grpc)
        self.writer.flush_soon()
        self.writer.closing = True

    def _take(self, event: Any) -> None:
        match event:
            case events.RequestReceived():
                self._begin(event.stream_id, event.headers)
            case events.DataReceived():
                self._acknowledge(event)
                self._add(event.stream_id, event.data)
            case events.StreamEnded():
                self._add(event.stream_id, b"", ended=True)
            case events.StreamReset():
                self._forget(event.stream_id)
                if event.stream_id in self._running:
                    self._running[event.stream_id].scope.cancel()
            case events.WindowUpdated() | events.RemoteSettingsChanged():
                self._window_moved.unpark_all()

    def _acknowledge(self, event: Any) -> None:
        """The stream of a last frame needs no window any more; what it took of ours can wait."""
        self._owed += event.flow_controlled_length
        if event.stream_ended is None or self._owed > _WINDOW:
            self._grpc.acknowledge_received_data(event.stream_id, self._owed)
            self._owed = 0

    def _begin(self, stream_id: int, headers: list[tuple[bytes, bytes]]) -> None:
        if self.writer.closing:
            self._reset(stream_id, ErrorCodes.REFUSED_STREAM)  # "not begun: try elsewhere"
            return
        try:
            if len(self._arriving) + len(self._running) >= MAX_STREAMS:
                raise ResourceExhaustedError(f"more than {MAX_STREAMS} calls on one connection")
            service, method, timeout = self._requests.read(headers)
        except ShimError as error:
            self._refuse(stream_id, error)
        else:
            deadline = trio.current_time() + timeout
            talk = self._talks.get((service, method))
            if talk is None:
                self._arriving[stream_id] = _Call(stream_id, service, method, deadline)
            else:
                conversation = Conversation(talk)
                self._start(_Call(stream_id, service, method, deadline, conversation=conversation))

    def _add(self, stream_id: int, data: bytes, *, ended: bool = False) -> None:
        call = self._arriving.get(stream_id)
        if call is None:
            call = self._running.get(stream_id)  # None: it was refused or reset before
            if call is not None and call.conversation is not None:
                call.conversation.hear(data, ended=ended)
            return
        call.body.extend(data)
        self._arrived += len(data)
        try:
            message = read_message(call.body, ended=ended)
            if self._arrived > _MAX_ARRIVING:
                raise ResourceExhaustedError(f"requests of more than {_MAX_ARRIVING} bytes at once")
        except ShimError as error:
            self._refuse(stream_id, error)
            return
        if message is not None:
            self._forget(stream_id)
            call.body.clear()
            self._start(call, message)

    def _forget(self, stream_id: int) -> None:
        """A request is not on its way any more."""
        call = self._arriving.pop(stream_id, None)
        if call is not None:
            self._arrived -= len(call.body)

    # ------------------------------------------------------------ answering

    def _start(self, call: _Call, message: bytes = b"") -> None:
        if call.conversation is None and self._answer_at_once(call, message):
            return
        self._running[call.stream_id] = call
        self._tasks.start_soon(self._answer, call, message, name=call.method)

    def _answer_at_once(self, call: _Call, message: bytes) -> bool:
        """False: the answer has to be waited for, or the peer's window, or the peer."""
        if self.writer.much or call.deadline <= trio.current_time():
            return False
        error, payload = None, b""
        try:
            answer = self._dispatcher.call_at_once(call.service, call.method, message)
            if answer is None:
                return False
            payload = pack_message(answer)
        except Exception as failure:  # noqa: BLE001 (the peer gets it)
            error = _status(call, failure)
        try:
            if self._grpc.flow_control_window(call.stream_id) < len(payload):
                return False
            self._grpc.start_response(call.stream_id)
            if payload:
                self._grpc.send_data(call.stream_id, payload)
            self._finish(call, error, payload)
        except ProtocolError as gone:  # the stream was reset before its reply
            log.debug("gRPC: no reply to %s: %s", call.method, gone)
        return True

    async def _answer(self, call: _Call, message: bytes) -> None:
        try:
            with call.scope:
                if call.conversation is not None:
                    await self._converse(call, call.conversation)
                else:
                    error, payload = await self._respond(call, message)
                    self._grpc.start_response(call.stream_id)
                    await self._send(call.stream_id, payload)
                    self._finish(call, error, payload)
        except ProtocolError as error:  # the stream was reset before its reply
            log.debug("gRPC: no reply to %s: %s", call.method, error)
        finally:
            del self._running[call.stream_id]
        # Outside of the scope: a reset must not tear the frames of others.
        await self.writer.flush()

    async def _converse(self, call: _Call, conversation: Conversation) -> None:
        self._grpc.start_response(call.stream_id)
        error: ShimError | None = DeadlineExceededError()
        with trio.move_on_at(call.deadline):
            try:
                while (answer := await conversation.next_answer()) is not None:
                    await self._send(call.stream_id, pack_message(answer))
                    self.writer.flush_soon()
                error = conversation.error
            except ProtocolError:  # as in `_answer`
                raise
            except Exception as failure:  # noqa: BLE001 (the peer gets it)
                error = _status(call, failure)
        self._end(call.stream_id, error)
        if not conversation.heard_all:
            self._reset(call.stream_id, ErrorCodes.NO_ERROR)

    async def _respond(self, call: _Call, message: bytes) -> tuple[ShimError | None, bytes]:
        """The error, if it is one, and the body of the reply."""
        try:
            payload = await self._dispatcher.call(
                call.service, call.method, message, deadline=call.deadline
            )
            return None, pack_message(payload)
        except Exception as error:  # noqa: BLE001 (the peer gets it; Cancelled is no Exception)
            return _status(call, error), b""
        except BaseExceptionGroup as group:
            # A cancelled call may fail in other ways too: say so here, or the connection dies.
            errors, others = group.split(Exception)
            if errors is not None:
                _log_failure(call, errors)
            assert others is not None
            raise others from None

    async def _send(self, stream_id: int, payload: bytes) -> None:
        """Queue a message: at once if the peer's window is open and it reads, else as it does."""
        start = 0
        while start < len(payload):
            await self.writer.room()
            room = self._grpc.flow_control_window(stream_id)
            if room > 0:
                self._grpc.send_data(stream_id, payload[start : start + room])
                start += room
            else:
                self.writer.flush_soon()
                await self._window_moved.park()

    def _finish(self, call: _Call, error: ShimError | None, payload: bytes) -> None:
        self._end(call.stream_id, error)
        self._frames.earn(len(payload))

    def _end(self, stream_id: int, error: ShimError | None) -> None:
        self._grpc.h2_connection.send_headers(stream_id, trailers(error), end_stream=True)

    def _refuse(self, stream_id: int, error: ShimError) -> None:
        self._forget(stream_id)
        try:
            self._grpc.start_response(stream_id)
            self._end(stream_id, error)
        except ProtocolError as gone:  # h2 has read on: the peer has reset it already
            log.debug("gRPC: no reply to stream %d: %s", stream_id, gone)
            return
        self._reset(stream_id, ErrorCodes.NO_ERROR)  # answered: do not send the rest

    def _reset(self, stream_id: int, code: Any) -> None:
        with suppress(StreamClosedError):
            self._grpc.reset_stream(stream_id, code)


def _status(call: _Call, error: Exception) -> ShimError:
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if not isinstance(error, ShimError):
        _log_failure(call, error)
        error = StatusError(str(error) or type(error).__name__)
    return error


def _log_failure(call: _Call, error: BaseException) -> None:
    log.error("gRPC: %s/%s failed", call.service, call.method, exc_info=error)
