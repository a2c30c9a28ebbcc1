"""What the tests of client and server have in common: either end, the other driven by hand."""

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
import trio.testing

from trioshim.errors import UnavailableError
from trioshim.ttrpc import (
    NEED_DATA,
    Client,
    Connection,
    Event,
    Request,
    Response,
    Role,
    open_client,
    serve_connection,
)

Dispatch = Callable[[Request], Awaitable[bytes]]
Streams = tuple[trio.abc.Stream, trio.abc.Stream]


class Peer:
    """The other end of a stream, driven by hand."""

    def __init__(self, stream: trio.abc.Stream, role: Role) -> None:
        self.stream = stream
        self.connection = Connection(role)

    async def send(self, *events: Event) -> None:
        await self.stream.send_all(b"".join(map(self.connection.send, events)))

    async def request(self, payload: bytes = b"", **other: Any) -> None:
        await self.send(Request(self.connection.next_stream_id, "s", "m", payload, **other))

    async def receive(self) -> Event:
        while (event := self.connection.next_event()) is NEED_DATA:
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                data = b""
            self.connection.receive_data(data)
        return event


async def response(peer: Peer) -> Response:
    """The next event, which has to be an answer."""
    event = await peer.receive()
    assert isinstance(event, Response)
    return event


@contextlib.asynccontextmanager
async def serving(
    dispatch: Dispatch, streams: Streams | None = None, **options: Any
) -> AsyncIterator[Peer]:
    """A server with `dispatch`, and its client driven by hand; ends with the connection."""
    ours, theirs = streams or trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_connection(ours, dispatch, **options))
        yield Peer(theirs, Role.CLIENT)
        await theirs.aclose()


@contextlib.asynccontextmanager
async def connected(dispatch: Dispatch, streams: Streams | None = None) -> AsyncIterator[Client]:
    """A client and a server with `dispatch`."""
    ours, theirs = streams or trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, ours, dispatch)
        async with open_client(theirs) as client:
            yield client


@contextlib.asynccontextmanager
async def calling(streams: Streams | None = None) -> AsyncIterator[tuple[Client, Peer]]:
    """A client, and its server driven by hand."""
    ours, theirs = streams or trio.testing.memory_stream_pair()
    async with open_client(ours) as client:
        yield client, Peer(theirs, Role.SERVER)


async def echo(request: Request) -> bytes:
    """A dispatch that gives back what it gets."""
    return request.payload


def payload_or_none(request: Request) -> bytes | None:
    """What answers at once, but for requests without a payload."""
    return request.payload or None


def sockets() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends of a real connection."""
    pair = trio.socket.socketpair()
    return trio.SocketStream(pair[0]), trio.SocketStream(pair[1])


def narrow(
    streams: tuple[trio.SocketStream, trio.SocketStream],
) -> tuple[trio.SocketStream, trio.SocketStream]:
    """The same, and the kernel takes little at a time."""
    for stream in streams:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return streams


@dataclass(eq=False)
class Spawned(trio.abc.Instrument):
    """The names of the tasks that have been started."""

    names: list[str] = field(default_factory=list)

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.names.append(task.name)


class Gates:
    """A dispatch that answers when it is told to, and remembers who was cancelled."""

    def __init__(self) -> None:
        self.opened: dict[bytes, trio.Event] = {}
        self.cancelled: list[bytes] = []

    async def dispatch(self, request: Request) -> bytes:
        gate = self.opened[request.payload] = trio.Event()
        try:
            await gate.wait()
        except trio.Cancelled:
            self.cancelled.append(request.payload)
            raise
        return request.payload


async def expect_closed(client: Client) -> None:
    """A call that learns that there is no connection any more."""
    with pytest.raises(UnavailableError, match="ttrpc: closed"):
        await client.call("s", "m", b"")
