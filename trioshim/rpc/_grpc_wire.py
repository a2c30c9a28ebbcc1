"""The seam to purerpc and h2: what gRPC is in bytes and headers, and nothing that waits.

Rules of this file:

* whatever a peer's headers and bytes are, they come out as values or as a `ShimError`;
* the messages are taken apart here, not by purerpc: one a call, none larger than `MAX_MESSAGE`,
  none compressed (purerpc takes zlib's format for gzip, and unpacks without a limit);
* purerpc and h2 have no type hints: what is theirs is `Any`, nothing else.

Importing purerpc patches h2 for the whole process and takes its time, so the listener imports
this when the first gRPC client comes and not before.
"""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import h2.connection
import h2.settings
import hpack.hpack
import hpack.table
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes
from purerpc.grpclib.config import GRPCConfiguration
from purerpc.grpclib.connection import GRPCConnection
from purerpc.grpclib.events import RequestReceived
from purerpc.grpclib.exceptions import ProtocolError
from purerpc.grpclib.headers import HeaderDict

from ..errors import (
    InvalidArgumentError,
    ResourceExhaustedError,
    ShimError,
    UnimplementedError,
    to_status,
)
from ..proto.ttrpc_pb2 import Status
from ._grpc_frames import MAX_FRAME
from ._grpc_hpack import Decoder, Encoder

__all__ = [
    "MAX_MESSAGE",
    "MAX_STREAMS",
    "Requests",
    "announce_goaway",
    "open_connection",
    "pack_message",
    "read_message",
    "take_messages",
    "trailers",
]

MAX_MESSAGE = 4 * 1024 * 1024  # as in ttrpc
MAX_STREAMS = 4096
_MAX_HEADERS = 64 * 1024  # what h2's decoder enforces
_TABLE = 4096  # bytes of replies' headers that HPACK remembers, whatever the peer allows
_WINDOW = 16 * 1024 * 1024
_MAX_TEXT = 2048  # clients refuse trailers of more than 8 KiB, and a byte can take three
_MAX_TRAILERS = 7500  # with the details; the rest is for names
_MANY, _SHORT = 64, 1024  # requests that are remembered; bytes of their headers
_PREFIX = struct.Struct(">BI")  # compressed flag, length of the message


# ---------------------------------------------------------------- connections


def open_connection() -> Any:
    """A server's `GRPCConnection`; its first bytes are ready to be sent."""
    grpc = GRPCConnection(
        GRPCConfiguration(
            client_side=False,
            message_accept_encoding=["identity"],
            max_message_length=MAX_MESSAGE,
        )
    )
    connection = grpc.h2_connection
    _quicken(connection)
    # h2 ends the connection for a header that it does not like; `read_headers` refuses the stream.
    connection.config.validate_inbound_headers = False
    connection.local_settings = _settings(MAX_STREAMS)
    connection.max_inbound_frame_size = connection.local_settings.max_frame_size
    connection.initiate_connection()
    connection.increment_flow_control_window(_WINDOW)
    # One stream too many ends the connection in h2.  The peer may not know our limit yet: h2 is
    # given another one, and the server refuses that stream alone.
    connection.local_settings = _settings(2**31 - 1)
    _mend(connection)
    return grpc


def _quicken(connection: Any) -> None:
    """Leave out what is a third of the time of a call and does nothing for us.

    The headers that we send are our own and in order.  Those that come are read once, as long as
    they stay the same (`Requests`): h2 hands on the bytes.
    """
    config, limits = connection.config, connection.decoder
    config.validate_outbound_headers = config.normalize_outbound_headers = False
    config.normalize_inbound_headers = False
    config.header_encoding = None
    connection.encoder, connection.decoder = Encoder(), Decoder()
    connection.decoder.max_header_list_size = limits.max_header_list_size
    connection.decoder.max_allowed_table_size = limits.max_allowed_table_size
    for module in (hpack.hpack, hpack.table):  # they tell of each header several times
        module.log.disabled = True


def announce_goaway(grpc: Any) -> None:
    """Queue a GOAWAY that leaves the open streams alone."""
    connection = grpc.h2_connection
    state = connection.state_machine.state
    connection.close_connection()
    connection.state_machine.state = state  # for h2 that was the end, for HTTP/2 it is not


def _settings(max_streams: int) -> Any:
    return h2.settings.Settings(
        client=False,
        initial_values={
            SettingCodes.MAX_CONCURRENT_STREAMS: max_streams,
            SettingCodes.INITIAL_WINDOW_SIZE: MAX_MESSAGE,
            SettingCodes.MAX_FRAME_SIZE: MAX_FRAME,
            SettingCodes.MAX_HEADER_LIST_SIZE: _MAX_HEADERS,
        },
    )


def _mend(connection: Any) -> None:
    """Keep three frames from doing what h2 3 (purerpc pins it) lets them do.

    WINDOW_UPDATE may come late, for a stream that is closed and forgotten: grpc-go sends it when
    the application reads.  GOAWAY of a client says that it opens no more streams; it still wants
    its replies.  Neither is the end of the connection.  SETTINGS may not fill our memory: with
    settings that nobody knows, or with a table of gigabytes for the headers of replies.
    """
    table = connection._frame_dispatch_table  # noqa: SLF001 (h2 has no other door)
    update = table[h2.connection.WindowUpdateFrame]
    settings = table[h2.connection.SettingsFrame]

    def window_update(frame: Any) -> Any:
        try:
            return update(frame)
        except StreamClosedError:
            return [], []

    def new_settings(frame: Any) -> Any:
        done = settings(frame)
        for code in frame.settings.keys() - set(SettingCodes):
            del connection.remote_settings[code]
        _keep_small(connection.encoder)
        return done

    table[h2.connection.WindowUpdateFrame] = window_update
    table[h2.connection.SettingsFrame] = new_settings
    table[h2.connection.GoAwayFrame] = lambda _frame: ([], [])


def _keep_small(encoder: Any) -> None:
    """Our own limit for HPACK's table, and told to the peer as RFC 7541 4.2 has it."""
    encoder.header_table_size = min(encoder.header_table_size, _TABLE)
    changes = encoder.table_size_changes
    if changes:  # of all, the smallest and the last: else the list grows with each SETTINGS
        encoder.table_size_changes = sorted({min(changes), changes[-1]})
    # hpack forgets that there is something to tell when the last change was none.
    encoder.header_table.resized = bool(changes)


# ---------------------------------------------------------------- requests


class Requests:
    """The headers of the requests of one connection, most of which say the same."""

    def __init__(self) -> None:
        self._known: dict[Any, tuple[str, str, float]] = {}

    def read(self, headers: list[tuple[bytes, bytes]]) -> tuple[str, str, float]:
        """As `read_headers`, of bytes."""
        key = tuple(headers)
        found = self._known.get(key)
        if found is None:
            # A header may be any bytes.
            found = read_headers([(n.decode("latin-1"), v.decode("latin-1")) for n, v in headers])
            if found[2] == float("inf") and sum(len(n) + len(v) for n, v in headers) < _SHORT:
                if len(self._known) >= _MANY:
                    self._known.clear()
                self._known[key] = found
        return found


def read_headers(headers: list[tuple[str, str]]) -> tuple[str, str, float]:
    """Service, method and time limit (seconds, inf without one) of a request.

    Raises:
        ShimError: the status to answer.
    """
    path = dict(headers).get(":path", "")
    if path.count("/") != 2 or not path.startswith("/"):
        raise UnimplementedError(f"malformed path {path!r}: it should be /service/method")
    try:
        request: Any = RequestReceived.parse_from_stream_id_and_headers_destructive(
            0, HeaderDict(headers)
        )
    except ProtocolError as error:
        raise InvalidArgumentError(f"not a gRPC request: {error}") from None
    except Exception as error:  # noqa: BLE001 (purerpc raises whatever its parsing runs into)
        raise InvalidArgumentError(f"bad or missing header: {error!r}") from None
    encoding = request.message_encoding or "identity"
    if encoding != "identity":
        raise UnimplementedError(f"grpc-encoding {encoding}: send messages uncompressed (identity)")
    timeout = float("inf") if request.timeout is None else request.timeout.total_seconds()
    return request.service_name, request.method_name, timeout


def read_message(body: bytearray, *, ended: bool) -> bytes | None:
    """The one message of a unary call; None: it has not come whole yet.

    Raises:
        ShimError: the status to answer.
    """
    size = _size_of_first(body, MAX_MESSAGE)
    if len(body) > size:
        raise InvalidArgumentError("more than one message: only unary calls are served")
    if not ended:
        return None
    if len(body) < size:
        raise InvalidArgumentError(f"the request ended after {len(body)} of {size} bytes")
    return bytes(body[_PREFIX.size :])


def take_messages(body: bytearray, *, ended: bool, limit: int) -> Iterator[bytes]:
    """The messages of a stream that are whole; what they were is taken out of `body`.

    Raises:
        ShimError: the status to answer.
    """
    while len(body) >= (size := _size_of_first(body, limit)):
        message = bytes(body[_PREFIX.size : size])
        del body[:size]
        yield message
    if ended and body:
        raise InvalidArgumentError(f"the request ended after {len(body)} of {size} bytes")


def _size_of_first(body: bytearray, limit: int) -> int:
    """How many bytes the first message takes, with its prefix, as far as that is known."""
    size = _PREFIX.size
    if len(body) >= size:
        compressed, length = _PREFIX.unpack_from(body)
        if compressed:
            raise UnimplementedError("compressed message: send it uncompressed (identity)")
        if length > limit:
            raise ResourceExhaustedError(f"message of {length} bytes, the limit is {limit}")
        size += length
    return size


# ---------------------------------------------------------------- replies


def pack_message(payload: bytes) -> bytes:
    """A message as it stands in the body of a reply.

    Raises:
        ResourceExhaustedError: no client would take it.
    """
    if len(payload) > MAX_MESSAGE:
        raise ResourceExhaustedError(f"reply of {len(payload)} bytes, the limit is {MAX_MESSAGE}")
    return _PREFIX.pack(0, len(payload)) + payload


def trailers(error: ShimError | None) -> list[tuple[str, str]]:
    """The headers after a reply, which say how the call ended; None: well.

    Its details go along unless they are too long for a client.
    """
    if error is None:
        return [("grpc-status", "0")]
    code, text = to_status(error)
    # File names that are not UTF-8 come as lone surrogates.
    raw = text.encode(errors="backslashreplace")
    if len(raw) > _MAX_TEXT:  # what was done is told at the beginning, what failed at the end
        raw = raw[: _MAX_TEXT // 2] + b" ... " + raw[-_MAX_TEXT // 2 :]
    text = raw.decode(errors="ignore")
    said = [("grpc-status", str(code)), ("grpc-message", quote(text, safe=""))]
    if error.details:
        status = Status(code=code, message=text)
        for type_url, value in error.details:
            status.details.add(type_url=type_url, value=value)
        encoded = b64encode(status.SerializeToString()).rstrip(b"=").decode()
        if len(said[1][1]) + len(encoded) <= _MAX_TRAILERS:
            said.append(("grpc-status-details-bin", encoded))
    return [(name, value) for name, value in said if value]
