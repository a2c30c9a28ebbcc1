"""The publisher in memory and the one over ttrpc, with a daemon on a unix socket: one contract."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from trioshim.errors import ShimError
from trioshim.proto.events_service_pb2 import ForwardRequest
from trioshim.proto.types_pb2 import Envelope
from trioshim.publisher import TtrpcPublisher, open_publisher
from trioshim.testing import MemoryPublisher
from trioshim.ttrpc import Request, serve_connection

from . import publisher_cases


@dataclass
class Daemon:
    """What both daemons have in common: how they take an event."""

    refusals: list[ShimError] = field(default_factory=list)
    go: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self.go.set()

    def refuse(self, error: ShimError) -> None:
        self.refusals.append(error)

    def stall(self) -> trio.Event:
        self.go = trio.Event()
        return self.go

    async def take(self) -> None:
        await self.go.wait()
        if self.refusals:
            raise self.refusals.pop()


@dataclass
class MemoryDaemon(Daemon):
    """The list of a `MemoryPublisher`."""

    publisher: MemoryPublisher = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.publisher = MemoryPublisher(step=self.take)

    @property
    def received(self) -> list[Envelope]:
        return self.publisher.envelopes

    async def leave(self) -> None:
        self.publisher.away = True

    async def come_back(self) -> None:
        self.publisher.away = False


@dataclass
class SocketDaemon(Daemon):
    """A ttrpc server on a unix socket."""

    path: Path = Path()
    nursery: trio.Nursery | None = None
    received: list[Envelope] = field(default_factory=list)
    serving: trio.CancelScope | None = None
    left: trio.Event = field(default_factory=trio.Event)

    async def come_back(self) -> None:
        self.serving, self.left = trio.CancelScope(), trio.Event()
        socket = trio.socket.socket(trio.socket.AF_UNIX)
        await socket.bind(os.fspath(self.path))
        socket.listen()
        self.nursery.start_soon(self._serve, trio.SocketListener(socket))

    async def leave(self) -> None:
        self.serving.cancel()
        await self.left.wait()
        # A client learns of it by reading, which takes it a moment.
        await trio.testing.wait_all_tasks_blocked()

    async def _serve(self, listener: trio.SocketListener) -> None:
        with self.serving:
            await trio.serve_listeners(
                lambda stream: serve_connection(stream, self.answer), [listener]
            )
        self.path.unlink()
        self.left.set()

    async def answer(self, request: Request) -> bytes:
        await self.take()
        self.received.append(ForwardRequest.FromString(request.payload).envelope)
        return b""


Pair = tuple[TtrpcPublisher, SocketDaemon]


@pytest.fixture
async def over_ttrpc(tmp_path: Path) -> AsyncIterator[Pair]:
    async with trio.open_nursery() as nursery:
        daemon = SocketDaemon(path=tmp_path / "d.ttrpc", nursery=nursery)
        await daemon.come_back()
        async with open_publisher(f"unix://{daemon.path}") as publisher:
            yield publisher, daemon
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("case", publisher_cases.CASES, ids=lambda case: case.__name__)
async def test_the_publisher_over_ttrpc_keeps_the_promises(case, over_ttrpc: Pair) -> None:
    """Each case on a real socket."""
    with trio.fail_after(60):
        await case(*over_ttrpc)


@pytest.mark.parametrize("case", publisher_cases.CASES, ids=lambda case: case.__name__)
async def test_the_publisher_in_memory_keeps_the_same_promises(case) -> None:
    """So what a simulation shows of lost daemons is true."""
    daemon = MemoryDaemon()
    await case(daemon.publisher, daemon)
