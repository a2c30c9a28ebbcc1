"""What a server's headers, trailers and bytes say: a payload, or the error that they stand for.

Rules of this file:

* whatever a server sends, it comes out as bytes or as a `ShimError`; nothing here waits or raises;
* the numbers for HTTP's statuses and for RST_STREAM are those of the gRPC specification;
* the text of a status is taken as it is; what was wrong with a reply begins with "gRPC:".
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from google.protobuf.message import DecodeError

from ..errors import (
    Code,
    InternalError,
    ResourceExhaustedError,
    ShimError,
    StatusError,
    UnavailableError,
    from_status,
)
from ..proto.ttrpc_pb2 import Status

__all__ = ["Headers", "oversize", "refusal", "reply_of", "reset_error"]

Headers = Mapping[str, str]  # latin-1: a header may be any bytes

_PREFIX = struct.Struct(">BI")  # compressed flag, length of the message
_CONTENT_TYPE = re.compile(r"application/grpc($|[+;])")
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_HTTP = {
    "400": Code.INTERNAL,
    "401": Code.UNAUTHENTICATED,
    "403": Code.PERMISSION_DENIED,
    "404": Code.UNIMPLEMENTED,
    "429": Code.UNAVAILABLE,
    "502": Code.UNAVAILABLE,
    "503": Code.UNAVAILABLE,
    "504": Code.UNAVAILABLE,
}
_REFUSED_STREAM, _CANCEL, _ENHANCE_YOUR_CALM, _INADEQUATE_SECURITY = 7, 8, 11, 12
_RESETS = {
    _CANCEL: Code.CANCELLED,
    _ENHANCE_YOUR_CALM: Code.RESOURCE_EXHAUSTED,
    _INADEQUATE_SECURITY: Code.PERMISSION_DENIED,
}


def refusal(head: Headers) -> ShimError | None:
    """Why a reply that begins with such headers is none of gRPC; None: it is one."""
    if "grpc-status" in head:
        return None
    status = head.get(":status", "")
    if status != "200":
        code = _HTTP.get(status, Code.UNKNOWN)
        return from_status(code, f"gRPC: the server answered with HTTP status {status[:20]!r}")
    content_type = head.get("content-type", "")
    if not _CONTENT_TYPE.match(content_type):
        return StatusError(f"gRPC: the server answered with content-type {content_type[:80]!r}")
    return None


def oversize(body: bytes | bytearray, limit: int) -> ShimError | None:
    """Why no more of a body is wanted; None: go on."""
    if len(body) < _PREFIX.size:
        return None
    _, length = _PREFIX.unpack_from(body)
    if length > limit:
        return ResourceExhaustedError(f"gRPC: reply of {length} bytes, the limit is {limit}")
    if len(body) > _PREFIX.size + length:
        return InternalError("gRPC: more than one message in the reply of a unary call")
    return None


def reply_of(end: Headers, body: bytes | bytearray) -> bytes | ShimError:
    """What a whole reply is: its payload, or its status.

    Args:
        end: the trailers; of a reply that is nothing but headers, these.
        body: all the data that came before.
    """
    status = end.get("grpc-status")
    if status is None:
        return InternalError("gRPC: the reply ended without a status")
    if not _NUMBER.fullmatch(status):
        return InternalError(f"gRPC: malformed status {status[:20]!r}")
    code = int(status)
    if code == Code.OK:
        return _payload(body)
    told = _details(code, end)
    text = told.message or _unquote(end.get("grpc-message", ""))
    return from_status(code, text, tuple((one.type_url, one.value) for one in told.details))


def reset_error(code: int) -> ShimError:
    """What the server's RST_STREAM stands for."""
    if code == _REFUSED_STREAM:
        return UnavailableError("gRPC: the server did not begin the call")
    return from_status(_RESETS.get(code, Code.INTERNAL), f"gRPC: the call was reset, error {code}")


def _payload(body: bytes | bytearray) -> bytes | ShimError:
    size = _PREFIX.size
    if len(body) < size:
        return InternalError(f"gRPC: status 0 after {len(body)} bytes: there is no message")
    compressed, length = _PREFIX.unpack_from(body)
    if compressed:
        return InternalError("gRPC: compressed reply; only identity was offered")
    if len(body) != size + length:
        return InternalError(f"gRPC: the reply ended after {len(body)} of {size + length} bytes")
    return bytes(body[size:])


def _details(code: int, end: Headers) -> Status:
    """The status with all of its details, if they came; no header limit shortens its text."""
    encoded = end.get("grpc-status-details-bin", "")
    try:
        status = Status.FromString(base64.b64decode(encoded + "==", validate=False))
    except (binascii.Error, DecodeError, ValueError):
        return Status()  # the plain text is left
    return status if status.code == code else Status()


def _unquote(text: str) -> str:
    return unquote_to_bytes(text.encode("latin-1")).decode(errors="replace")
