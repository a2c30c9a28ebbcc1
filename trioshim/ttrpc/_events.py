"""What two peers say to each other, as values, and the two ways to say it wrong.

What one side sends is what the other side receives: the same classes serve both roles and both
directions.  They are values, nobody changes them; but what every call makes is not frozen, for
that takes nine times as long to make.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

__all__ = [
    "NEED_DATA",
    "BadFrame",
    "ConnectionClosed",
    "Data",
    "Event",
    "LocalProtocolError",
    "Mode",
    "NeedData",
    "ProtocolError",
    "RemoteProtocolError",
    "Request",
    "Response",
    "Role",
]


class ProtocolError(Exception):
    """The rules of ttrpc were broken; the subclass says by whom."""


class LocalProtocolError(ProtocolError):
    """By us: the call that raises it has changed nothing and given no bytes."""


class RemoteProtocolError(ProtocolError):
    """By the peer, beyond repair: close the connection."""


class Role(Enum):
    """Which end of the connection this is; only clients make calls."""

    CLIENT = "client"
    SERVER = "server"


class Mode(IntEnum):
    """How a call goes on after its request; the numbers are the flags of the request frame."""

    UNARY = 0
    """One request, one response."""
    REMOTE_CLOSED = 1
    """A stream; the client has nothing more to say."""
    REMOTE_OPEN = 2
    """A stream; the client goes on with `Data`."""


class NeedData(Enum):
    """The type of `NEED_DATA`."""

    NEED_DATA = "NEED_DATA"


NEED_DATA: Final = NeedData.NEED_DATA
"""There is no event before more bytes are received."""


@dataclass(slots=True, unsafe_hash=True)
class Request:
    """A call begins.  Sent by clients.

    Attributes:
        stream_id: odd, and above every id of this connection so far.
        service: full name, such as `containerd.task.v2.Task`.
        method: bare name, such as `Create`.
        payload: the serialized message; empty is a message with only defaults.
        timeout_nano: the time left for the call when it was made, in nanoseconds; 0: no limit;
            negative: over already.
        metadata: keys and values; a key may come again.
    """

    stream_id: int
    service: str
    method: str
    payload: bytes = b""
    timeout_nano: int = 0
    metadata: tuple[tuple[str, str], ...] = ()
    mode: Mode = Mode.UNARY


@dataclass(slots=True, unsafe_hash=True)
class Response:
    """The end of a call.  Sent by servers.

    Attributes:
        code: a gRPC status code; 0 is success, and no status at all is 0 too.
        message: the text that goes with a status.
        details: type URL and value of what else goes with a status.
    """

    stream_id: int
    payload: bytes = b""
    code: int = 0
    message: str = ""
    details: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Data:
    """One message of a stream.

    Attributes:
        payload: the serialized message; None: no message, only the end.
        last: the sender has nothing more to say; from a server this ends the call.
    """

    stream_id: int
    payload: bytes | None
    last: bool = False


@dataclass(frozen=True, slots=True)
class BadFrame:
    """The peer sent a frame that cannot be used; the connection is as good as before.

    A server answers with `connection.send(bad_frame)`: the peer receives a `Response`.  A client
    fails the call with that id, if somebody still waits for it, and says nothing.
    """

    stream_id: int
    code: int
    message: str


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """The peer sends nothing more, and stopped between two frames."""


Event = Request | Response | Data | BadFrame | ConnectionClosed
