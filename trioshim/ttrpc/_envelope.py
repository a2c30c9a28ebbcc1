"""Events to frames and back: what is inside of the bodies.

Nothing here knows what came before; `RequestDecoder` remembers requests, but only to be quicker.
Encoding raises `LocalProtocolError` for values that the wire cannot hold and
`ResourceExhaustedError` for bodies that are too long; decoding makes a `BadFrame` of what cannot
be read.
"""

from __future__ import annotations

from struct import Struct

from google.protobuf.message import DecodeError, EncodeError

from ..errors import Code
from ..proto import ttrpc_pb2
from ._events import BadFrame, Data, LocalProtocolError, Mode, Request, Response
from ._frames import Flag, Frame, FrameType

__all__ = [
    "RequestDecoder",
    "decode_data",
    "decode_response",
    "encode_data",
    "encode_request",
    "encode_response",
    "invalid",
]

# To look a member up in its enum takes longer than to call a function.
_UNARY, _RESPONSE = Mode.UNARY, FrameType.RESPONSE

# A frame's header, then the tag and the length (one byte or two) of a success's only field.
_SHORT, _LONGER = Struct(">IIBBBB"), Struct(">IIBBBBB")
_PAYLOAD = 0x12

_KEPT = 64  # requests that a connection remembers
_SMALL = 512  # bytes: a daemon's State, with two of the longest ids and a trace, has 301

# What a body says: the fields of `Request` from `service` to `metadata`.
_Said = tuple[str, str, bytes, int, tuple[tuple[str, str], ...]]

# What protobuf raises for a value of the wrong type, a number out of range, a lone surrogate.
_UNFIT = (TypeError, ValueError, EncodeError)


def invalid(frame: Frame, message: str) -> BadFrame:
    """The answer to a frame that the rules forbid."""
    return BadFrame(frame.stream_id, Code.INVALID_ARGUMENT, message)


def encode_request(event: Request) -> bytes:
    try:
        body = ttrpc_pb2.Request(
            service=event.service,
            method=event.method,
            payload=event.payload,
            timeout_nano=event.timeout_nano,
            metadata=[ttrpc_pb2.KeyValue(key=key, value=value) for key, value in event.metadata],
        ).SerializeToString()
    except _UNFIT as error:
        raise LocalProtocolError(f"request cannot be encoded: {error}") from error
    return Frame(event.stream_id, FrameType.REQUEST, event.mode, body).encode()


class RequestDecoder:
    """Decodes requests; one that comes again to the byte, as from who polls, is decoded once.

    That is right because a body alone decides what is made of it; the id and the mode are the
    frame's.  Nothing is remembered of a body that cannot be read, is large, or has a time limit:
    what is left of a time hardly comes again.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, _Said] = {}

    @property
    def remembered(self) -> int:
        """How many."""
        return len(self._known)

    def decode(self, frame: Frame) -> Request | BadFrame:
        body = frame.body
        small = len(body) <= _SMALL  # else to hash it would take as long as to decode it
        said = self._known.get(body) if small else None
        if said is None:
            try:
                message = ttrpc_pb2.Request.FromString(body)
            except DecodeError as error:
                return invalid(frame, f"unmarshal request error: {error}")
            said = _said(message)
            if small and not message.timeout_nano:
                self._remember(body, said)
        return Request(frame.stream_id, *said, _mode(frame.flags))

    def _remember(self, body: bytes, said: _Said) -> None:
        if len(self._known) == _KEPT:
            self._known.clear()
        self._known[body] = said


def _said(message: ttrpc_pb2.Request) -> _Said:
    metadata = _metadata(message) if message.metadata else ()
    return message.service, message.method, message.payload, message.timeout_nano, metadata


def _metadata(message: ttrpc_pb2.Request) -> tuple[tuple[str, str], ...]:
    return tuple((pair.key, pair.value) for pair in message.metadata)


def _mode(flags: int) -> Mode:
    if not flags:  # all that containerd ever sends; arithmetic with enums is slow
        return _UNARY
    if flags & Flag.REMOTE_CLOSED:
        return Mode.REMOTE_CLOSED
    return Mode.REMOTE_OPEN if flags & Flag.REMOTE_OPEN else Mode.UNARY


def encode_response(event: Response) -> bytes:
    failed = event.code or event.message or event.details
    try:
        if not failed and 0 < len(event.payload) < 0x4000:
            return _success(event.stream_id, event.payload)
        message = ttrpc_pb2.Response(payload=event.payload)
        # Success has no status at all: the answer Empty is a frame of length 0, as Go's is.
        if failed:
            message.status.code = event.code
            message.status.message = event.message
            for type_url, value in event.details:
                message.status.details.add(type_url=type_url, value=value)
        body = message.SerializeToString()
    except _UNFIT as error:
        raise LocalProtocolError(f"response cannot be encoded: {error}") from error
    return Frame(event.stream_id, FrameType.RESPONSE, 0, body).encode()


def _success(stream_id: int, payload: bytes) -> bytes:
    """The same bytes without a message, which would take longer than all the rest of a reply."""
    length = len(payload)
    if length < 0x80:
        return _SHORT.pack(2 + length, stream_id, _RESPONSE, 0, _PAYLOAD, length) + payload
    low, high = length & 0x7F | 0x80, length >> 7
    return _LONGER.pack(3 + length, stream_id, _RESPONSE, 0, _PAYLOAD, low, high) + payload


def decode_response(frame: Frame) -> Response | BadFrame:
    try:
        message = ttrpc_pb2.Response.FromString(frame.body)
    except DecodeError as error:
        text = f"unmarshal response error: {error}"
        return BadFrame(frame.stream_id, Code.INTERNAL, text)
    if not message.HasField("status"):
        return Response(frame.stream_id, message.payload)
    status = message.status
    details = tuple((detail.type_url, detail.value) for detail in status.details)
    return Response(frame.stream_id, message.payload, status.code, status.message, details)


def encode_data(event: Data) -> bytes:
    flags = Flag.REMOTE_CLOSED if event.last else 0
    if event.payload is None:
        return Frame(event.stream_id, FrameType.DATA, flags | Flag.NO_DATA).encode()
    return Frame(event.stream_id, FrameType.DATA, flags, event.payload).encode()


def decode_data(frame: Frame) -> Data | None:
    """None: a frame that says nothing."""
    last = bool(frame.flags & Flag.REMOTE_CLOSED)
    if frame.flags & Flag.NO_DATA:
        return Data(frame.stream_id, None, last) if last else None
    return Data(frame.stream_id, frame.body, last)
