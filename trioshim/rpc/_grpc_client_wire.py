"""The client's role of one gRPC connection without I/O: calls to bytes, bytes to replies.

Rules of this file:

* a call has a ticket from `begin` on; its stream is opened when its bytes are asked for, so one
  that leaves before costs the server nothing, and ids go out in increasing order;
* no stream is opened before the server has said how many it allows: grpcio answers one too many
  with an error that means another thing;
* no more is turned into frames than the next write takes; each call in turn gives one frame;
* a reply that makes no sense fails its own call; bytes that are no HTTP/2 end the connection;
* purerpc and h2 have no type hints: what is theirs is `Any`, nothing else.

Importing purerpc patches h2 for the whole process and takes its time: import this when a client
is opened and not before.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import h2.connection
import h2.settings
from h2 import events
from h2.errors import ErrorCodes
from h2.exceptions import NoAvailableStreamIDError, ProtocolError, StreamClosedError
from h2.settings import SettingCodes
from h2.stream import H2Stream, StreamClosedBy, StreamState
from purerpc.grpclib.config import GRPCConfiguration
from purerpc.grpclib.connection import GRPCConnection

from ..errors import (
    InternalError,
    InvalidArgumentError,
    ResourceExhaustedError,
    ShimError,
    UnavailableError,
)
from ..ttrpc import RemoteProtocolError
from ._grpc_replies import Headers, oversize, refusal, reply_of, reset_error
from ._grpc_wire import MAX_MESSAGE, _mend

__all__ = ["ClientConnection"]

_MAX_NAMES = 4096  # bytes of service and method
_MAX_HEADERS = 64 * 1024  # what h2's decoder enforces
_WINDOW = 16 * 1024 * 1024
_ENOUGH = 64 * 1024  # frames ready to be written: no further ones are made
_WRITE = 256 * 1024
_FRAME = 16 * 1024
_MAX_SECONDS = 99_999_999  # grpc-timeout has eight digits
_PREFIX = struct.Struct(">BI")  # compressed flag, length of the message


@dataclass(slots=True, eq=False)
class _Exchange:
    """A request that goes out, and what has come of its reply."""

    ticket: int
    service: str
    method: str
    timeout: timedelta | None
    unsent: memoryview
    head: Headers = field(default_factory=dict)
    end: Headers | None = None
    body: bytearray = field(default_factory=bytearray)


class ClientConnection:
    """Calls over one connection.

    Attributes:
        closed: no further call can be begun; those that run may still be answered.
    """

    def __init__(self) -> None:
        self.closed = False
        self._grpc = _open_connection()
        self._h2 = self._grpc.h2_connection
        self._received = _note_events(self._h2)
        self._tickets = 0
        self._waiting: dict[int, _Exchange] = {}  # by ticket: they have no stream yet
        self._streams: dict[int, _Exchange] = {}
        self._ids: dict[int, int] = {}  # ticket to stream
        self._sending: dict[int, None] = {}  # streams whose request is not out, in turn
        self._answers: list[tuple[int, bytes | ShimError]] = []
        self._out = bytearray()
        self._greeted = False  # the server has said what it allows
        self._broken = False

    @property
    def open_calls(self) -> int:
        """Calls that were neither answered nor abandoned."""
        return len(self._waiting) + len(self._streams)

    @property
    def pending(self) -> int:
        """Bytes that wait to be written."""
        self._out += self._grpc.data_to_send()
        return len(self._out)

    # ------------------------------------------------------------ calls

    def begin(self, service: str, method: str, payload: bytes, timeout: float | None) -> int:
        """Queue a call; `data_to_send` has to follow.  Returns its ticket.

        Args:
            service, method: names as in `/service/method`.
            payload: the serialized request.
            timeout: seconds, more than 0; None: without limit.

        Raises:
            ResourceExhaustedError: the request is too long; nothing is sent.
            InvalidArgumentError: the names cannot be sent; nothing is sent.
        """
        if len(payload) > MAX_MESSAGE:
            raise ResourceExhaustedError(
                f"request of {len(payload)} bytes, the limit is {MAX_MESSAGE}"
            )
        _check_names(service, method)
        self._tickets += 1
        self._waiting[self._tickets] = _Exchange(
            self._tickets,
            service,
            method,
            None if timeout is None else _rounded(timeout),
            memoryview(_PREFIX.pack(0, len(payload)) + payload),
        )
        return self._tickets

    def abandon(self, ticket: int) -> None:
        """Forget a call; if the server may know of it, it is told.  Answered: nothing to do."""
        self._waiting.pop(ticket, None)
        if ticket in self._ids:
            self._drop(self._ids[ticket], ErrorCodes.CANCEL)

    def answers(self) -> list[tuple[int, bytes | ShimError]]:
        """Tickets and replies that have come since the last time."""
        answers, self._answers = self._answers, []
        return answers

    def _answer(self, stream_id: int, reply: bytes | ShimError, code: Any) -> None:
        ticket = self._streams[stream_id].ticket
        self._drop(stream_id, code)
        self._answers.append((ticket, reply))

    def _drop(self, stream_id: int, code: Any) -> None:
        exchange = self._streams.pop(stream_id)
        del self._ids[exchange.ticket]
        self._sending.pop(stream_id, None)
        stream = self._h2.streams.get(stream_id)
        if stream is not None and not stream.closed and not self._broken:
            self._grpc.reset_stream(stream_id, code)

    # ------------------------------------------------------------ sending

    def data_to_send(self) -> bytes:
        """What to write next; empty: nothing for now."""
        if not self._broken:
            while self.pending < _ENOUGH and (self._open_next() or self._send_next()):
                pass
        self._out += self._grpc.data_to_send()
        data = bytes(self._out[:_WRITE])
        del self._out[:_WRITE]
        return data

    def _open_next(self) -> bool:
        """Open the stream of the call that has waited longest, if the server allows one more."""
        if not self._waiting or not self._greeted:
            return False
        if len(self._streams) >= self._h2.remote_settings.max_concurrent_streams:
            return False
        try:
            stream_id = self._h2.get_next_available_stream_id()
        except NoAvailableStreamIDError:
            self._refuse_waiting("gRPC: closed")  # 2**30 calls were made
            return False
        exchange = self._waiting.pop(next(iter(self._waiting)))
        self._grpc.start_request(
            stream_id,
            "http",
            exchange.service,
            exchange.method,
            authority="localhost",
            timeout=exchange.timeout,
        )
        self._h2.streams[stream_id].__class__ = _Stream
        self._streams[stream_id] = exchange
        self._ids[exchange.ticket] = stream_id
        self._sending[stream_id] = None
        self._send(stream_id)
        return True

    def _send_next(self) -> bool:
        """One frame of the first stream whose window is open; then it is the others' turn."""
        return any(self._send(stream_id) for stream_id in self._sending)

    def _send(self, stream_id: int) -> bool:
        room = min(self._grpc.flow_control_window(stream_id), _FRAME)
        if room <= 0:
            return False
        exchange = self._streams[stream_id]
        piece, exchange.unsent = exchange.unsent[:room], exchange.unsent[room:]
        del self._sending[stream_id]
        if exchange.unsent:
            self._sending[stream_id] = None
        self._grpc.send_data(stream_id, bytes(piece), end_stream=not exchange.unsent)
        return True

    # ------------------------------------------------------------ receiving

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take bytes of the server; `answers` tells what came of them.

        Raises:
            RemoteProtocolError: they are no HTTP/2; send what there is to send, and close.
        """
        try:
            self._h2.receive_data(bytes(data))
            self._look_ahead()
        except Exception as error:  # any bytes may come; h2 has no one error
            self.closed = self._broken = True
            raise RemoteProtocolError(f"gRPC: {error!r}") from error
        finally:  # what came before those bytes is good
            for event in self._received:
                self._take(event)
            self._received.clear()

    def _look_ahead(self) -> None:
        """A frame is refused by its header; h2 would first gather all of its up to 16 MiB."""
        head = self._h2.incoming_buffer.data[:9]
        length = int.from_bytes(head[:3], "big")
        if len(head) == 9 and length > self._h2.max_inbound_frame_size:
            self._h2.close_connection(ErrorCodes.FRAME_SIZE_ERROR)
            raise RemoteProtocolError(f"frame of {length} bytes")

    def _take(self, event: Any) -> None:
        if isinstance(event, events.RemoteSettingsChanged):
            self._greeted = True
        elif isinstance(event, events.ConnectionTerminated):
            self._go_away(event.last_stream_id)
        elif isinstance(event, events.DataReceived) and not self._broken:
            self._grpc.acknowledge_received_data(event.stream_id, event.flow_controlled_length)
        exchange = self._streams.get(getattr(event, "stream_id", 0))
        if exchange is not None:  # else: answered or abandoned
            self._take_for(exchange, event)

    def _take_for(self, exchange: _Exchange, event: Any) -> None:
        match event:
            case events.ResponseReceived():
                exchange.head = dict(event.headers)
                self._refuse(event.stream_id, refusal(exchange.head))
            case events.DataReceived():
                exchange.body += event.data
                error = oversize(exchange.body, MAX_MESSAGE)
                if not exchange.head:
                    error = InternalError("gRPC: data before the headers")
                self._refuse(event.stream_id, error)
            case events.TrailersReceived():
                exchange.end = dict(event.headers)
            case events.StreamEnded():
                end = exchange.head if exchange.end is None else exchange.end
                # The rest of the request is not wanted.
                self._answer(event.stream_id, reply_of(end, exchange.body), ErrorCodes.NO_ERROR)
            case _Malformed():
                error = InternalError(f"gRPC: malformed reply: {event.why}")
                self._answer(event.stream_id, error, ErrorCodes.PROTOCOL_ERROR)
            case events.StreamReset():
                self._answer(event.stream_id, reset_error(int(event.error_code)), ErrorCodes.CANCEL)

    def _refuse(self, stream_id: int, error: ShimError | None) -> None:
        if error is not None:
            self._answer(stream_id, error, ErrorCodes.CANCEL)

    def _go_away(self, last_stream_id: int) -> None:
        """No call is begun any more; those up to this one go on."""
        self._refuse_waiting("gRPC: the server is going away")
        for stream_id in [number for number in self._streams if number > last_stream_id]:
            error = UnavailableError("gRPC: the server is going away")
            self._answer(stream_id, error, ErrorCodes.CANCEL)

    def _refuse_waiting(self, why: str) -> None:
        self.closed = True
        for ticket in self._waiting:
            self._answers.append((ticket, UnavailableError(why)))
        self._waiting.clear()


# ---------------------------------------------------------------- h2


@dataclass(frozen=True, slots=True)
class _Malformed:
    """An event: what came on a stream makes no sense to h2."""

    stream_id: int
    why: str


class _Stream(H2Stream):  # type: ignore[misc]  # h2 has no type hints
    """What h2 does not like on a stream is the end of the stream, and not of everything."""

    def receive_headers(self, *args: Any) -> Any:
        return self._contained(super().receive_headers, args)

    def receive_data(self, *args: Any) -> Any:
        return self._contained(super().receive_data, args)

    def _contained(self, receive: Any, args: tuple[Any, ...]) -> Any:
        try:
            return receive(*args)
        except StreamClosedError:
            raise  # it comes late, and h2 knows what to do
        except ProtocolError as error:
            # As if we had reset it before: h2 tells the server so, and goes on.
            self.state_machine.state = StreamState.CLOSED
            self.state_machine.stream_closed_by = StreamClosedBy.SEND_RST_STREAM
            closed = StreamClosedError(self.stream_id)
            closed._events = [_Malformed(self.stream_id, str(error))]  # noqa: SLF001 (h2's hook)
            raise closed from None


def _open_connection() -> Any:
    """A client's `GRPCConnection`; its first bytes are ready to be sent."""
    grpc = GRPCConnection(
        GRPCConfiguration(
            client_side=True,
            user_agent="trioshim",
            message_accept_encoding=["identity"],
            max_message_length=MAX_MESSAGE,
        )
    )
    connection = grpc.h2_connection
    connection.config.header_encoding = "latin-1"
    connection.config.validate_inbound_headers = False  # they are read here, call by call
    connection.local_settings = h2.settings.Settings(
        client=True,
        initial_values={
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.INITIAL_WINDOW_SIZE: MAX_MESSAGE,
            SettingCodes.MAX_HEADER_LIST_SIZE: _MAX_HEADERS,
        },
    )
    connection.max_inbound_frame_size = connection.local_settings.max_frame_size
    connection.initiate_connection()
    connection.increment_flow_control_window(_WINDOW)
    _mend(connection)
    _heed_goaway(connection)
    return grpc


def _note_events(connection: Any) -> list[Any]:
    """A list that fills with events frame by frame; h2 forgets them all if one frame is bad."""
    noted: list[Any] = []
    receive = connection._receive_frame  # noqa: SLF001 (no other door)

    def receive_frame(frame: Any) -> Any:
        received = receive(frame)
        noted.extend(received)
        return received

    connection._receive_frame = receive_frame  # noqa: SLF001 (no other door)
    return noted


def _heed_goaway(connection: Any) -> None:
    """GOAWAY becomes an event; for h2 it is the end, but calls that have begun are answered."""

    def goaway(frame: Any) -> Any:
        event = events.ConnectionTerminated()
        event.last_stream_id = frame.last_stream_id
        return [], [event]

    connection._frame_dispatch_table[h2.connection.GoAwayFrame] = goaway  # noqa: SLF001 (no other door)


# ---------------------------------------------------------------- requests


def _check_names(service: str, method: str) -> None:
    path = f"/{service}/{method}"
    if not (path.isascii() and path.isprintable()) or " " in path:
        raise InvalidArgumentError(f"gRPC cannot call {path[:200]!r}: use plain ASCII names")
    if len(path) > _MAX_NAMES:
        raise InvalidArgumentError(f"gRPC: names of {len(path)} bytes, the limit is {_MAX_NAMES}")


def _rounded(timeout: float) -> timedelta:
    """A time limit as eight digits can say it: microseconds below 99 seconds, seconds above."""
    if timeout < 99:
        return timedelta(microseconds=max(1, round(timeout * 1e6)))
    return timedelta(seconds=int(min(timeout + 1, _MAX_SECONDS)))
