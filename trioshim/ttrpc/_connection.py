"""The protocol without the I/O: bytes in, events out; events in, bytes out.

One class for both roles, in the manner of h11.  Rules of this file:

* a fault that concerns one stream is a `BadFrame`; only what ends the framing itself is a
  `RemoteProtocolError`;
* an event that may not be sent raises and changes nothing;
* what is kept per stream is one entry, gone with the end of the stream (containerd/ttrpc#241).
"""

from __future__ import annotations

from enum import Enum

from ..errors import Code
from ._envelope import (
    RequestDecoder,
    decode_data,
    decode_response,
    encode_data,
    encode_request,
    encode_response,
    invalid,
)
from ._events import (
    NEED_DATA,
    BadFrame,
    ConnectionClosed,
    Data,
    Event,
    LocalProtocolError,
    NeedData,
    RemoteProtocolError,
    Request,
    Response,
    Role,
)
from ._frames import (
    MAX_STREAM_ID,
    Frame,
    FrameDecoder,
    FrameType,
    OversizeFrame,
    oversize_text,
)

__all__ = ["Connection"]


class _Stream(Enum):
    """What may still come from the client on a stream that the server has not ended."""

    UNARY = "nothing, and the server may send no data"
    OPEN = "data"
    HALF_CLOSED = "nothing"


# In the order of Mode's numbers: to index is quicker than to hash an enum.
_FIRST_STATE = (_Stream.UNARY, _Stream.HALF_CLOSED, _Stream.OPEN)
_REQUEST = FrameType.REQUEST  # to look it up takes longer than to compare it
_NOT_ACTIVE = "StreamID is no longer active"


class Connection:
    """One end of a ttrpc connection.

    Give it every byte that comes, in order, with `receive_data`; then ask `next_event` until it
    says `NEED_DATA`.  What `send` returns has to be written whole and in the order of the calls.

    Args:
        role: which end this is.
    """

    def __init__(self, role: Role) -> None:
        self._role = role
        self._serves = role is Role.SERVER
        self._decoder = FrameDecoder()
        self._requests = RequestDecoder()
        self._streams: dict[int, _Stream] = {}
        self._last_id = -1
        self._eof = False
        self._postponed: BadFrame | None = None

    @property
    def role(self) -> Role:
        """Which end this is."""
        return self._role

    @property
    def next_stream_id(self) -> int:
        """The id for a client's next request.  Above 4294967295: no call can be made any more."""
        return self._last_id + 2

    @property
    def open_streams(self) -> int:
        """How many calls have begun and not ended."""
        return len(self._streams)

    # ------------------------------------------------------------ receiving

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take what was received; `b""` says that nothing more will come.

        Raises:
            LocalProtocolError: there was an end already.
        """
        if self._eof and data:
            raise LocalProtocolError("data after the end of the connection")
        if not data:
            self._eof = True
        self._decoder.feed(data)

    def next_event(self) -> Event | NeedData:
        """What the peer said next, or `NEED_DATA`; after the end always `ConnectionClosed`.

        Raises:
            RemoteProtocolError: the peer ended in the middle of a frame.
        """
        if self._postponed is not None:
            bad, self._postponed = self._postponed, None
            return bad
        while (frame := self._decoder.next_frame()) is not None:
            event = self._received(frame)
            if event is not None:
                return event
        if not self._eof:
            return NEED_DATA
        if self._decoder.mid_frame:
            raise RemoteProtocolError("the peer ended in the middle of a frame")
        return ConnectionClosed()

    def _received(self, frame: Frame | OversizeFrame) -> Event | None:
        if isinstance(frame, OversizeFrame):
            if self._role is Role.CLIENT:
                self._streams.pop(frame.stream_id, None)
            text = oversize_text(frame.length)
            return BadFrame(frame.stream_id, Code.RESOURCE_EXHAUSTED, text)
        return self._from_client(frame) if self._serves else self._from_server(frame)

    def _from_client(self, frame: Frame) -> Event | None:
        if frame.stream_id % 2 == 0:
            return invalid(frame, "StreamID must be odd for client initiated streams")
        if frame.type == _REQUEST:
            return self._request_from_client(frame)
        if frame.type == FrameType.DATA:
            return self._data_from_client(frame)
        return None

    def _request_from_client(self, frame: Frame) -> Request | BadFrame:
        if frame.stream_id <= self._last_id:
            return invalid(frame, "StreamID cannot be re-used and must increment")
        self._last_id = frame.stream_id
        request = self._requests.decode(frame)
        if isinstance(request, Request):
            self._streams[frame.stream_id] = _FIRST_STATE[request.mode]
        return request

    def _data_from_client(self, frame: Frame) -> Data | BadFrame | None:
        state = self._streams.get(frame.stream_id)
        if state is None:
            return invalid(frame, _NOT_ACTIVE)
        if state is _Stream.UNARY:
            # The Go server crashes here: it has no stream to give the data to.
            return invalid(frame, "data for a call that is not a stream")
        if state is _Stream.HALF_CLOSED:
            return invalid(frame, "data after the client closed the stream")
        data = decode_data(frame)
        if data is not None and data.last:
            self._streams[frame.stream_id] = _Stream.HALF_CLOSED
            if data.payload:
                self._postponed = invalid(frame, "data close message cannot include data")
        return data

    def _from_server(self, frame: Frame) -> Event | None:
        if frame.type not in (FrameType.RESPONSE, FrameType.DATA):
            return None
        state = self._streams.get(frame.stream_id)
        if state is None:
            return invalid(frame, _NOT_ACTIVE)
        if frame.type == FrameType.RESPONSE:
            del self._streams[frame.stream_id]
            return decode_response(frame)
        if state is _Stream.UNARY:
            del self._streams[frame.stream_id]
            text = "the server sent data for a call that is not a stream"
            return BadFrame(frame.stream_id, Code.INTERNAL, text)
        data = decode_data(frame)
        if data is not None and data.last:
            del self._streams[frame.stream_id]
        return data

    # ------------------------------------------------------------ sending

    def send(self, event: Event) -> bytes:
        """The bytes that tell `event` to the peer: one frame.

        Args:
            event: a `Request` or `Data` of a client; a `Response`, `Data` or an answered
                `BadFrame` of a server.

        Raises:
            LocalProtocolError: it may not be sent, by this role or in this state.
            ResourceExhaustedError: it does not fit into a frame.
        """
        if self._serves:
            if isinstance(event, Response):
                return self._send_response(event)
            if isinstance(event, BadFrame):
                # The stream's own state stays: a request that came with the same id goes on.
                status = Response(event.stream_id, code=event.code, message=event.message)
                return encode_response(status)
        elif isinstance(event, Request):
            return self._send_request(event)
        if isinstance(event, Data):
            return self._send_data(event)
        raise LocalProtocolError(f"a {self._role.value} cannot send {type(event).__name__}")

    def abandon(self, stream_id: int) -> None:
        """Forget a call of ours: what still comes for it will be a `BadFrame`.

        Nothing is sent, there is no frame that cancels a call.
        """
        self._streams.pop(stream_id, None)

    def _send_request(self, event: Request) -> bytes:
        if event.stream_id % 2 == 0 or not self._last_id < event.stream_id <= MAX_STREAM_ID:
            raise LocalProtocolError(f"stream id {event.stream_id} is even, used up or too large")
        frame = encode_request(event)
        self._last_id = event.stream_id
        self._streams[event.stream_id] = _FIRST_STATE[event.mode]
        return frame

    def _send_response(self, event: Response) -> bytes:
        if event.stream_id not in self._streams:
            raise LocalProtocolError(f"stream {event.stream_id} waits for no response")
        frame = encode_response(event)
        del self._streams[event.stream_id]
        return frame

    def _send_data(self, event: Data) -> bytes:
        state = self._streams.get(event.stream_id)
        if state is None or state is _Stream.UNARY:
            raise LocalProtocolError(f"stream {event.stream_id} takes no data")
        if event.payload is None and not event.last:
            raise LocalProtocolError("data that says nothing")
        if self._role is Role.CLIENT:
            if state is _Stream.HALF_CLOSED:
                raise LocalProtocolError(f"stream {event.stream_id} is closed by this side")
            if event.last and event.payload:
                raise LocalProtocolError("a client's last data cannot hold a message")
        frame = encode_data(event)
        if event.last and self._role is Role.CLIENT:
            self._streams[event.stream_id] = _Stream.HALF_CLOSED
        elif event.last:
            del self._streams[event.stream_id]
        return frame
