"""The daemon's ear: a ttrpc server that takes the events of shims and hands them on.

Rules of this file:

* a shim is answered at once, whether anybody listens or not: what a subscriber has not read yet
  waits in memory, so a slow one neither loses an event nor makes a shim send it again;
* everybody who subscribed hears everything from then on, in the order of its coming;
* the socket is for its owner alone: 0600, and it cannot be connected to before it is.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from google.protobuf.message import DecodeError, Message

from ..errors import InvalidArgumentError, UnimplementedError
from ..proto import events_pb2
from ..proto.events_service_pb2 import ForwardRequest
from ..ttrpc import Request, serve_connection
from ..ttrpc._shelter import open_shelter, undisturbed

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any

    from ..proto.types_pb2 import Envelope

__all__ = ["Event", "EventSink", "open_event_sink"]

_log = logging.getLogger("trioshim.client")

_SERVICE = "containerd.services.events.ttrpc.v1.Events"
_PATH_LIMIT = 107  # sockaddr_un holds 108 bytes with the final NUL


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a shim has told.

    Attributes:
        topic: such as `/tasks/exit`.
        namespace: containerd's namespace.
        timestamp: when it happened, by the shim's clock: nanoseconds since 1970.
        message: a message of `containerd.events`, such as `TaskExit`; what is not one of those
            is the `google.protobuf.Any` as it came.
    """

    topic: str
    namespace: str
    timestamp: int
    message: Message


class EventSink:
    """Takes the events of any number of shims.  Made by `open_event_sink`.

    A shim that loses its connection between an event and our answer sends that event again, so
    it may come twice.

    Attributes:
        address: the path of the socket; what goes into a shim's TTRPC_ADDRESS.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._subscribers: set[trio.MemorySendChannel[Event]] = set()
        self._closed = False

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[trio.MemoryReceiveChannel[Event]]:
        """Hear of what comes from now on; nothing is left out, however slowly it is read.

        The iteration ends when the sink does.
        """
        send, receive = trio.open_memory_channel[Event](math.inf)
        if self._closed:
            send.close()
        else:
            self._subscribers.add(send)
        try:
            with send, receive:
                yield receive
        finally:
            self._subscribers.discard(send)

    async def dispatch(self, request: Request) -> bytes:
        """Answer one call of a shim; for `trioshim.ttrpc.serve_connection`.

        Raises:
            UnimplementedError: it is not `Forward`.
            InvalidArgumentError: there is no event in it.
        """
        await trio.lowlevel.checkpoint()
        if request.service != _SERVICE:
            raise UnimplementedError(f"service {request.service}")
        if request.method != "Forward":
            raise UnimplementedError(f"method {request.method}")
        event = _read(request.payload)
        _log.debug("event %s of %s", event.topic, event.namespace)
        for subscriber in list(self._subscribers):
            subscriber.send_nowait(event)
        return b""

    def close(self) -> None:
        """End every subscription; those who read get what has come, then the end."""
        self._closed = True
        for subscriber in list(self._subscribers):
            subscriber.close()
        self._subscribers.clear()


@asynccontextmanager
async def open_event_sink(path: str | os.PathLike[str] | None = None) -> AsyncIterator[EventSink]:
    """Listen for the events of shims until the end of the block.

    A cancellation from outside does not close the sink before the block has ended: what shims
    say while they are being stopped is heard too.

    Args:
        path: of the socket, which must not be there yet; without it, one in a new directory that
            only we can enter.  Socket and directory are removed at the end.

    Raises:
        ValueError: the path is too long for a unix socket.
        OSError: the socket cannot be made (EADDRINUSE: the path is taken).
    """
    with _place(path) as place, _listening(place) as listener:
        sink = EventSink(place)
        async with open_shelter() as helpers:

            @undisturbed
            async def serve(stream: trio.SocketStream) -> None:
                await serve_connection(stream, sink.dispatch)

            await helpers.start(trio.serve_listeners, serve, [listener])
            try:
                yield sink
            finally:
                sink.close()


@contextmanager
def _place(path: str | os.PathLike[str] | None) -> Iterator[str]:
    """Where the socket goes; a directory of our own goes again at the end."""
    if path is not None:
        yield _checked(os.path.abspath(path))
        return
    with tempfile.TemporaryDirectory(prefix="trioshim-") as directory:  # 0700
        yield _checked(os.path.join(directory, "events.ttrpc"))


def _checked(path: str) -> str:
    if (size := len(os.fsencode(path))) > _PATH_LIMIT:
        raise ValueError(
            f"socket path {path} has {size} bytes, at most {_PATH_LIMIT} are possible:"
            " use a shorter path, or a shorter TMPDIR"
        )
    return path


@contextmanager
def _listening(path: str) -> Iterator[trio.SocketListener]:
    """A socket for us alone; at the end it is closed, and its path is free again."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(path)
        try:
            os.chmod(path, 0o600)  # nobody can connect before `listen`
            sock.listen()
            yield trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        finally:
            os.unlink(path)
    finally:
        sock.close()


def _read(payload: bytes) -> Event:
    try:
        request = ForwardRequest.FromString(payload)
    except DecodeError as error:
        raise InvalidArgumentError(f"cannot read the event: {error}") from None
    if not request.HasField("envelope"):
        raise InvalidArgumentError("Forward without an envelope")
    return _event(request.envelope)


def _event(envelope: Envelope) -> Event:
    stamp = envelope.timestamp.seconds * 1_000_000_000 + envelope.timestamp.nanos
    return Event(envelope.topic, envelope.namespace, stamp, _message(envelope.event))


def _message(packed: Any) -> Message:
    package, _, name = packed.type_url.rpartition("/")[2].rpartition(".")
    known = events_pb2.DESCRIPTOR
    if package != known.package or name not in known.message_types_by_name:
        return packed
    cls: type[Message] = getattr(events_pb2, name)
    try:
        return cls.FromString(packed.value)
    except DecodeError:
        _log.warning("an event of type %s cannot be read", packed.type_url)
        return packed
