"""A gRPC connection in memory: a small service on one end, an HTTP/2 peer on the other.

The peer is not a gRPC client: it says what it is told to, whether that makes sense or not.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
import trio
import trio.testing
from google.protobuf.empty_pb2 import Empty

from trioshim import errors
from trioshim.proto import task_v2_pb2 as api
from trioshim.rpc import Dispatcher, Service, instant
from trioshim.rpc._grpc import serve_grpc

TASK = api.DESCRIPTOR.services_by_name["Task"]
TASK_PATH = f"/{TASK.full_name}"
HEADERS = {
    ":method": "POST",
    ":scheme": "http",
    ":path": f"{TASK_PATH}/Connect",
    ":authority": "localhost",
    "te": "trailers",
    "content-type": "application/grpc",
}
ONE_OF_EACH: list[errors.ShimError] = [
    errors.InvalidArgumentError("no bundle"),
    errors.DeadlineExceededError(""),
    errors.NotFoundError("container x"),
    errors.AlreadyExistsError("x"),
    errors.ResourceExhaustedError("x"),
    errors.FailedPreconditionError("x"),
    errors.UnimplementedError("x"),
    errors.InternalError("x"),
    errors.UnavailableError("x"),
    errors.StatusError("who knows"),
]


def framed(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def raising(error: BaseException) -> Callable[[], api.StateResponse]:
    """For `Tasks.answer`."""

    def answer() -> api.StateResponse:
        raise error

    return answer


class Tasks:
    """Answers four methods: Connect on the spot, State and Wait as reads, Kill as a change.

    Attributes:
        answer: called by State; what it returns or raises is what State does.
        started, cancelled, finished: names of methods, as things happen to them.
        go_on: lets Wait and Kill end.
    """

    def __init__(self) -> None:
        self.answer: Callable[[], api.StateResponse] = api.StateResponse
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.finished: list[str] = []
        self.go_on = trio.Event()
        self._something = trio.lowlevel.ParkingLot()

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until what has happened to the methods is enough."""
        while not holds():
            await self._something.park()

    @instant
    def connect(self, request: api.ConnectRequest) -> api.ConnectResponse:
        return api.ConnectResponse(shim_pid=7, version=request.id)

    async def state(self, request: api.StateRequest) -> api.StateResponse:
        return self.answer()

    async def wait(self, request: api.WaitRequest) -> api.WaitResponse:
        await self._last_long("wait")
        return api.WaitResponse(exit_status=3)

    async def kill(self, request: api.KillRequest) -> Empty:
        await self._last_long("kill")
        return Empty()

    async def _last_long(self, name: str) -> None:
        self._note(self.started, name)
        try:
            await self.go_on.wait()
        except trio.Cancelled:
            self._note(self.cancelled, name)
            raise
        self._note(self.finished, name)

    def _note(self, where: list[str], name: str) -> None:
        where.append(name)
        self._something.unpark_all()


def task_service(tasks: Tasks) -> Service:
    return Service(TASK, tasks, reads={"Connect", "State", "Wait"})


@dataclass
class Reply:
    """What the peer has received on a stream."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def code(self) -> int:
        return int(self.headers["grpc-status"])

    @property
    def text(self) -> str:
        return unquote(self.headers.get("grpc-message", ""))

    @property
    def message(self) -> bytes:
        flag, length = struct.unpack_from(">BI", self.body)
        assert (flag, length) == (0, len(self.body) - 5)
        return self.body[5:]


class Peer:
    """An HTTP/2 client, one step at a time.

    Attributes:
        h2: to say things that `call` does not; follow it by `flush`.
        goaway: the error code of the server's GOAWAY.
        holds: `flush` keeps back what there is to say, so that it goes out in one piece later.
        opens_window: what is received is acknowledged, so the server may send more.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.holds = False
        self.opens_window = True
        self.replies: dict[int, Reply] = {}
        self.goaway: int | None = None
        self.settings: dict[int, int] = {}
        config = h2.config.H2Configuration(
            client_side=True, header_encoding="utf-8", validate_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(config)
        # h2's own client would end here; real ones go on with the streams that are open.
        self.h2._frame_dispatch_table[h2.connection.GoAwayFrame] = self._note_goaway

    async def flush(self) -> None:
        if not self.holds:
            await self.stream.send_all(self.h2.data_to_send())

    async def call(
        self,
        path: str = HEADERS[":path"],
        message: bytes = b"",
        *,
        body: bytes | None = None,
        end: bool = True,
        **headers: str | bytes,
    ) -> int:
        """Send a request; `body` replaces the framed message, a header set to "" is left out."""
        all_headers = {**HEADERS, ":path": path, **headers}
        stream_id: int = self.h2.get_next_available_stream_id()
        self.replies[stream_id] = Reply()
        self.h2.send_headers(stream_id, [(k, v) for k, v in all_headers.items() if v])
        rest = framed(message) if body is None else body
        while len(rest) > 16384:
            self.h2.send_data(stream_id, rest[:16384])
            rest = rest[16384:]
        self.h2.send_data(stream_id, rest, end_stream=end)
        await self.flush()
        return stream_id

    async def reply(self, stream_id: int) -> Reply:
        """Receive until a stream has ended."""
        await self.receive_until(lambda: self.replies[stream_id].ended)
        return self.replies[stream_id]

    async def called(self, *args: Any, **kwargs: Any) -> Reply:
        """`call`, and its reply."""
        return await self.reply(await self.call(*args, **kwargs))

    async def still_served(self) -> bool:
        return (await self.called()).code == 0

    async def receive_until(self, enough: Callable[[], bool]) -> None:
        while not enough():
            data = await self.stream.receive_some()
            assert data, "the server has closed the connection"
            self.take(data)
            await self.flush()

    def take(self, data: bytes | bytearray) -> None:
        for event in self.h2.receive_data(bytes(data)):
            if isinstance(event, h2.events.RemoteSettingsChanged):
                self.settings = {k: v.new_value for k, v in event.changed_settings.items()}
            elif hasattr(event, "stream_id") and event.stream_id in self.replies:
                self._note(self.replies[event.stream_id], event)

    async def receive_rest(self) -> None:
        """Receive until the server has closed the connection."""
        while data := await self.stream.receive_some():
            self.take(data)

    def _note_goaway(self, frame: Any) -> tuple[list[Any], list[Any]]:
        self.goaway = frame.error_code
        return [], []

    def _note(self, reply: Reply, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            reply.headers.update(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            reply.body += event.data
            if self.opens_window:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            reply.ended = True
        elif isinstance(event, h2.events.StreamReset):
            reply.ended = True
            reply.reset = int(event.error_code)


@dataclass
class World:
    """A connection being served.

    Attributes:
        reading: what the owner cancels to stop the server.
        ended: set when `serve_grpc` has returned.
    """

    tasks: Tasks
    peer: Peer
    reading: trio.CancelScope
    ended: trio.Event


@asynccontextmanager
async def open_world(
    pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]] = trio.testing.memory_stream_pair,
    *,
    tasks: Tasks | None = None,
    send_timeout: float = 30.0,
) -> AsyncIterator[World]:
    """Serve one connection; at the end the peer leaves and the server has to return."""
    tasks = tasks or Tasks()
    ours, theirs = pair()
    world = World(tasks, Peer(theirs), trio.CancelScope(), trio.Event())

    async def serve() -> None:
        dispatcher = Dispatcher([task_service(tasks)], lasting)
        await serve_grpc(ours, dispatcher, reading=world.reading, send_timeout=send_timeout)
        world.ended.set()

    with trio.fail_after(60):  # nothing here takes time: whoever hangs, fails
        async with trio.open_nursery() as lasting:
            lasting.start_soon(serve)
            world.peer.h2.initiate_connection()
            yield world
            await theirs.aclose()
            await world.ended.wait()
            lasting.cancel_scope.cancel()
