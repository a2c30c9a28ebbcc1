"""Events to frames and back: what is inside of the bodies, without any state.

Encoding raises `LocalProtocolError` for values that the wire cannot hold and
`ResourceExhaustedError` for bodies that are too long; decoding makes a `BadFrame` of what cannot
be read.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError, EncodeError

from ..errors import Code
from ..proto import ttrpc_pb2
from ._events import BadFrame, Data, LocalProtocolError, Mode, Request, Response
from ._frames import Flag, Frame, FrameType

__all__ = [
    "decode_data",
    "decode_request",
    "decode_response",
    "encode_data",
    "encode_request",
    "encode_response",
    "invalid",
]

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


def decode_request(frame: Frame) -> Request | BadFrame:
    try:
        message = ttrpc_pb2.Request.FromString(frame.body)
    except DecodeError as error:
        return invalid(frame, f"unmarshal request error: {error}")
    return Request(
        frame.stream_id,
        message.service,
        message.method,
        message.payload,
        message.timeout_nano,
        _metadata(message) if message.metadata else (),
        _mode(frame.flags),
    )


def _metadata(message: ttrpc_pb2.Request) -> tuple[tuple[str, str], ...]:
    return tuple((pair.key, pair.value) for pair in message.metadata)


def _mode(flags: int) -> Mode:
    if not flags:  # all that containerd ever sends; arithmetic with enums is slow
        return Mode.UNARY
    if flags & Flag.REMOTE_CLOSED:
        return Mode.REMOTE_CLOSED
    return Mode.REMOTE_OPEN if flags & Flag.REMOTE_OPEN else Mode.UNARY


def encode_response(event: Response) -> bytes:
    try:
        message = ttrpc_pb2.Response(payload=event.payload)
        # Success has no status at all: the answer Empty is a frame of length 0, as Go's is.
        if event.code or event.message or event.details:
            message.status.code = event.code
            message.status.message = event.message
            for type_url, value in event.details:
                message.status.details.add(type_url=type_url, value=value)
        body = message.SerializeToString()
    except _UNFIT as error:
        raise LocalProtocolError(f"response cannot be encoded: {error}") from error
    return Frame(event.stream_id, FrameType.RESPONSE, 0, body).encode()


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
