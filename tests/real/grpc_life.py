"""Anybody's client as the caller of a real shim, and a record of what it was told.

Each opener here connects to a shim's socket and gives what `trioshim.client.TaskClient` stands
on: a call by name.  grpcio and purerpc get messages, not bytes, and serialize them themselves.

A record is the same for every client if the shim's answers are: what differs from run to run
(pids, times, the directory) is written as what it is, numbers by the order of their coming.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import purerpc
import pytest
import trio
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.text_format import MessageToString
from purerpc.client import _Channel
from purerpc.grpc_proto import GRPCProtoSocket
from purerpc.grpclib.config import GRPCConfiguration
from purerpc.grpclib.exceptions import RpcFailedError

from trioshim.client import Caller, TaskClient, open_caller
from trioshim.errors import Code, DeadlineExceededError, ShimError, from_status
from trioshim.proto import cgroups_v1_pb2, cgroups_v2_pb2, task_v3_pb2
from trioshim.testing import check_event_order, unpack

from .shim_parts import until
from .shim_world import BOX, Shim, open_shim_world

grpc = pytest.importorskip("grpc", reason="the gRPC client `grpcio` is missing")

Life = Callable[[Shim], Awaitable[None]]
Opener = Callable[[str], AbstractAsyncContextManager[Caller]]

# Over gRPC containerd asks for the third name, over ttrpc for the second.
TASK_V2, TASK_V3 = "containerd.task.v2.Task", "containerd.task.v3.Task"
METRICS: dict[str, Any] = {
    "io.containerd.cgroups.v1.Metrics": cgroups_v1_pb2.Metrics,
    "io.containerd.cgroups.v2.Metrics": cgroups_v2_pb2.Metrics,
}
_LONG = 2000


def _types() -> dict[str, tuple[type[Message], type[Message]]]:
    methods = task_v3_pb2.DESCRIPTOR.services_by_name["Task"].methods
    return {
        m.name: (GetMessageClass(m.input_type), GetMessageClass(m.output_type)) for m in methods
    }


TYPES = _types()


def types_of(method: str) -> tuple[type[Message], type[Message]]:
    """Request and reply; a method that the shim does not have takes and gives nothing."""
    return TYPES.get(method, (Empty, Empty))


# ---------------------------------------------------------------- clients


@asynccontextmanager
async def open_ttrpc(path: str) -> AsyncIterator[Caller]:
    """Ours, over the other wire."""
    async with open_caller(await trio.open_unix_socket(path), "ttrpc") as client:
        yield client


@asynccontextmanager
async def open_trioshim(path: str) -> AsyncIterator[Caller]:
    """Ours, over gRPC."""
    async with open_caller(await trio.open_unix_socket(path), "grpc") as client:
        yield client


class _Grpcio:
    """grpcio's channel.  Its futures end in threads of its own."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    async def call(
        self, service: str, method: str, payload: bytes, *, timeout: float | None = None
    ) -> bytes:
        asked, answered = types_of(method)
        stub = self._channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answered.FromString,
        )
        call = stub.future(asked.FromString(payload), timeout=timeout)
        await _ended(call)
        try:
            return bytes(call.result().SerializeToString())
        except grpc.RpcError as error:
            code, text = error.code(), error.details()
            raise from_status(code.value[0], text) from None


async def _ended(call: Any) -> None:
    """Whoever is cancelled meanwhile cancels the call."""
    token, ended = trio.lowlevel.current_trio_token(), trio.Event()

    def tell(_: Any) -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(ended.set)

    call.add_done_callback(tell)
    try:
        await ended.wait()
    finally:
        call.cancel()  # nothing, to one that has ended


@asynccontextmanager
async def open_grpcio(path: str) -> AsyncIterator[Caller]:
    """grpcio's client, which has an event loop in C."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        yield _Grpcio(channel)


class _NoTcp:
    """A unix socket for purerpc, which sets options of TCP on whatever it gets."""

    def __init__(self, stream: Any) -> None:
        self.send, self.receive = stream.send, stream.receive

    def extra(self, _attribute: Any) -> _NoTcp:
        return self

    def setsockopt(self, *_option: Any) -> None:
        """What a unix socket has no use for."""


class _TidySocket(GRPCProtoSocket):  # type: ignore[misc] # untyped
    """purerpc's, which forgets to close the streams of events in it."""

    def _allocate_stream(self, stream_id: int) -> Any:
        stream = super()._allocate_stream(stream_id)
        for end in stream._incoming_events:
            self.callback(end.close)
        return stream


class _UnixChannel(_Channel):  # type: ignore[misc] # untyped
    """purerpc's channel, but to a path."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", 0)
        self._path = path

    async def __aenter__(self) -> _UnixChannel:
        await AsyncExitStack.__aenter__(self)
        stream = await self.enter_async_context(await anyio.connect_unix(self._path))
        grpc_socket = _TidySocket(GRPCConfiguration(client_side=True), _NoTcp(stream))
        self._grpc_socket = await self.enter_async_context(grpc_socket)
        return self


class _Purerpc:
    """purerpc's client and its stubs; it knows no timeout, so ours ends the wait."""

    def __init__(self, channel: _UnixChannel) -> None:
        self._channel = channel

    async def call(
        self, service: str, method: str, payload: bytes, *, timeout: float | None = None
    ) -> bytes:
        asked, answered = types_of(method)
        signature = purerpc.RPCSignature(purerpc.Cardinality.UNARY_UNARY, asked, answered)
        stub = purerpc.Client(service, self._channel).get_method_stub(method, signature)
        try:
            with trio.fail_after(float("inf") if timeout is None else timeout):
                return bytes((await stub(asked.FromString(payload))).SerializeToString())
        except RpcFailedError as error:
            raise from_status(error.status.int_value, error.status.status_message) from None
        except trio.TooSlowError:
            raise DeadlineExceededError from None


@asynccontextmanager
async def open_purerpc(path: str) -> AsyncIterator[Caller]:
    """purerpc's client, on anyio."""
    async with _UnixChannel(path) as channel:
        yield _Purerpc(channel)


# ---------------------------------------------------------------- records


class Recorder:
    """Passes calls on and notes what was asked and what was answered.

    Attributes:
        lines: one for each call, in the order in which they began.
    """

    def __init__(self, caller: Caller, base: Path) -> None:
        self.lines: list[str] = []
        self._caller = caller
        self._base = base
        self._numbers: dict[str, str] = {}

    async def call(
        self, service: str, method: str, payload: bytes, *, timeout: float | None = None
    ) -> bytes:
        asked, answered = types_of(method)
        line = f"{method} {self.text(asked.FromString(payload))}"
        place = len(self.lines)
        self.lines.append(f"{line}: nobody waited for the answer")
        try:
            reply = await self._caller.call(service, method, payload, timeout=timeout)
        except DeadlineExceededError:  # whose clock it was decides about the words
            self.lines[place] = f"{line}: too late"
            raise
        except ShimError as error:
            said = str(error).replace(service, "SERVICE")
            self.lines[place] = f"{line}: {Code(error.code).name}: {self._plain(said)}"
            raise
        self.lines[place] = f"{line}: {self.text(answered.FromString(reply))}"
        return reply

    def text(self, message: Message) -> str:
        """All its fields, as far as they are the same in every run."""
        if isinstance(message, task_v3_pb2.StatsResponse):
            metrics = METRICS[message.stats.type_url].FromString(message.stats.value)
            return f"{message.stats.type_url} {[field.name for field, _ in metrics.ListFields()]}"
        return f"{{{self._plain(MessageToString(message, as_one_line=True))}}}"

    def _plain(self, text: str) -> str:
        text = text.replace(self._base.name, "BASE")
        text = re.sub(r"\b(seconds|nanos): \d+", r"\1: T", text)
        text = re.sub(r"\b((?:shim_)?pid): (\d+)", self._number, text)
        if len(text) > _LONG:
            return f"{len(text)} characters, {hashlib.sha256(text.encode()).hexdigest()}"
        return text

    def _number(self, match: re.Match[str]) -> str:
        number = self._numbers.setdefault(match[2], f"#{len(self._numbers) + 1}")
        return f"{match[1]}: {number}"


async def record(life: Life, opener: Opener, service: str, rootfs: Path) -> list[str]:
    """Live that life in a new shim; what was asked, answered and told to the daemon.

    The whole order of the events is checked by the laws, and that nothing is left behind.
    """
    async with open_shim_world(rootfs) as world:
        shim = await world.start(BOX)
        path = shim.address.removeprefix("unix://")
        recorder = Recorder(await world.nursery.start(_hold, opener, path), world.base)
        shim.client = TaskClient(recorder, service)
        await life(shim)
        for container in reversed(list(shim.containers)):
            await shim.remove(container)
        topics = world.daemon.topics
        await until(lambda: topics().count("delete") == topics().count("create"), "the events")
        events = [unpack(envelope) for envelope in world.daemon.envelopes]
        check_event_order(events)
        told = [f"{type(event).__name__} {recorder.text(event)}" for event in events]
        return recorder.lines + told


async def _hold(opener: Opener, path: str, *, task_status: trio.TaskStatus[Caller]) -> None:
    async with opener(path) as caller:
        task_status.started(caller)
        await trio.sleep_forever()
