"""The gRPC client on one end of a stream; on the other our server, or a server driven by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
import trio
import trio.testing
from h2.exceptions import StreamClosedError

from trioshim.errors import ShimError, UnavailableError
from trioshim.rpc import Dispatcher, GrpcClient, open_grpc_client
from trioshim.rpc._grpc import serve_grpc

from .grpc_world import TASK, Tasks, framed, task_service

SERVICE = TASK.full_name
HEAD = {":status": "200", "content-type": "application/grpc"}
OK = {"grpc-status": "0"}
Streams = tuple[trio.abc.Stream, trio.abc.Stream]


@dataclass
class Asked:
    """What has come of a request."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None


class Server:
    """An HTTP/2 server, one step at a time; it says what it is told to.

    Attributes:
        h2: to say things that the methods do not; follow it by `flush`.
        asked: by stream id, in the order of their coming.
        opens_window: what is received is acknowledged, so the client may send more.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.asked: dict[int, Asked] = {}
        self.opens_window = True
        self.goaway: int | None = None
        config = h2.config.H2Configuration(
            client_side=False, header_encoding="utf-8", validate_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        # h2 would end here for one that comes late; real servers do not.
        update = self.h2._frame_dispatch_table[h2.connection.WindowUpdateFrame]

        def window_update(frame: Any) -> Any:
            try:
                return update(frame)
            except StreamClosedError:
                return [], []

        self.h2._frame_dispatch_table[h2.connection.WindowUpdateFrame] = window_update

    async def flush(self) -> None:
        if data := self.h2.data_to_send():
            await self.stream.send_all(data)

    async def until(self, holds: Callable[[], object]) -> None:
        """Receive until enough has come."""
        await self.flush()
        while not holds():
            data = await self.stream.receive_some(65536)
            assert data, "the client has closed the connection"
            self.take(data)
            await self.flush()

    async def request(self) -> int:
        """Receive until the oldest request that was not answered is whole; its stream."""
        await self.until(lambda: [asked for asked in self.asked.values() if asked.ended])
        return next(number for number, asked in self.asked.items() if asked.ended)

    async def receive_rest(self) -> None:
        """Receive until the client has closed the connection."""
        while data := await self.stream.receive_some():
            self.take(data)

    async def say(
        self,
        stream_id: int,
        head: dict[str, str] | None = None,
        body: bytes | None = None,
        end: dict[str, str] | None = None,
    ) -> None:
        """Send what is not None; the last of it ends the stream."""
        parts = [part is not None for part in (head, body, end)]
        if head is not None:
            last = not any(parts[1:])
            self.h2.send_headers(stream_id, list(head.items()), end_stream=last)
        if body is not None:
            for start in range(0, len(body) or 1, 16384):
                piece = body[start : start + 16384]
                last = start + 16384 >= len(body) and end is None
                self.h2.send_data(stream_id, piece, end_stream=last)
        if end is not None:
            self.h2.send_headers(stream_id, list(end.items()), end_stream=True)
        self.asked.pop(stream_id, None)
        await self.flush()

    async def answer(self, stream_id: int, message: bytes = b"") -> None:
        await self.say(stream_id, HEAD, framed(message), OK)

    def take(self, data: bytes | bytearray) -> None:
        for event in self.h2.receive_data(bytes(data)):
            if isinstance(event, h2.events.ConnectionTerminated):
                self.goaway = int(event.error_code)
            elif isinstance(event, h2.events.RequestReceived):
                self.asked[event.stream_id] = Asked(dict(event.headers))
            elif getattr(event, "stream_id", None) in self.asked:
                self._note(self.asked[event.stream_id], event)

    def _note(self, asked: Asked, event: Any) -> None:
        if isinstance(event, h2.events.DataReceived):
            asked.body += event.data
            if self.opens_window:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            asked.ended = True
        elif isinstance(event, h2.events.StreamReset):
            asked.reset = int(event.error_code)


@asynccontextmanager
async def calling(
    pair: Callable[[], Streams] = trio.testing.memory_stream_pair, **options: Any
) -> AsyncIterator[tuple[GrpcClient, Server]]:
    """A client, and its server driven by hand."""
    ours, theirs = pair()
    with trio.fail_after(60):
        async with open_grpc_client(ours, **options) as client:
            server = Server(theirs)
            await server.flush()
            yield client, server


@asynccontextmanager
async def connected(
    tasks: Tasks, reading: trio.CancelScope | None = None
) -> AsyncIterator[GrpcClient]:
    """A client and our server, which stops when `reading` is cancelled."""
    ours, theirs = trio.testing.memory_stream_pair()
    with trio.fail_after(60):
        async with trio.open_nursery() as lasting:
            dispatcher = Dispatcher([task_service(tasks)], lasting)
            serve = partial(serve_grpc, ours, dispatcher, reading=reading or trio.CancelScope())
            lasting.start_soon(serve)
            async with open_grpc_client(theirs) as client:
                yield client


class Answers:
    """Calls in tasks of their own, and what came of each, by the name that it was given."""

    def __init__(self, client: GrpcClient, nursery: trio.Nursery) -> None:
        self.came: dict[str, bytes | ShimError] = {}
        self._client = client
        self._nursery = nursery

    async def start(
        self, name: str, payload: bytes = b"", timeout: float | None = None
    ) -> trio.CancelScope:
        """Begin a call and wait until all of it is out that can be; the scope is the caller's."""
        scope = trio.CancelScope()

        async def call() -> None:
            with scope:
                try:
                    answer = await self._client.call(SERVICE, "State", payload, timeout=timeout)
                except ShimError as error:
                    self.came[name] = error
                else:
                    self.came[name] = answer

        self._nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        return scope


@asynccontextmanager
async def answers(client: GrpcClient) -> AsyncIterator[Answers]:
    async with trio.open_nursery() as nursery:
        yield Answers(client, nursery)


async def expect_closed(client: GrpcClient) -> None:
    """A call that learns that there is no connection any more."""
    with pytest.raises(UnavailableError, match="gRPC: closed"):
        await client.call("s", "m", b"")
