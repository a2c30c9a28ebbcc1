"""Our gRPC client on real sockets: servers of others, and our own."""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import purerpc
import purerpc.server
import pytest
import trio

from trioshim.client import TaskClient, connect, open_caller
from trioshim.errors import (
    DeadlineExceededError,
    NotFoundError,
    ResourceExhaustedError,
    StatusError,
    UnavailableError,
    UnimplementedError,
)
from trioshim.proto import task_v2_pb2 as api
from trioshim.rpc._grpc_wire import MAX_MESSAGE

from .both_wires import on_a_socket
from .grpc_client_world import SERVICE
from .grpc_world import Tasks

grpc = pytest.importorskip("grpc", reason="the gRPC server of `grpcio` is missing")

PATIENCE = 30  # seconds; whoever hangs, fails


# ---------------------------------------------------------------- grpcio


def grpcio_state(request: api.StateRequest, context: Any) -> api.StateResponse:
    """What the id asks for."""
    if request.id == "nobody":
        context.abort(grpc.StatusCode.NOT_FOUND, "nobody “é” 100 %: not found")
    if request.id == "slow":
        while context.is_active():
            time.sleep(0.01)
    return api.StateResponse(id=request.id)


@contextmanager
def grpcio_server(path: Path) -> Iterator[Any]:
    """A server of grpcio on a unix socket; its threads are gone at the end."""
    server = grpc.server(ThreadPoolExecutor(40))
    state = grpc.unary_unary_rpc_method_handler(
        grpcio_state,
        request_deserializer=api.StateRequest.FromString,
        response_serializer=api.StateResponse.SerializeToString,
    )
    handlers = grpc.method_handlers_generic_handler(SERVICE, {"State": state})
    server.add_generic_rpc_handlers((handlers,))
    server.add_insecure_port(f"unix:{path}")
    server.start()
    try:
        yield server
    finally:
        server.stop(0).wait()


async def test_grpcio_answers_us(tmp_path: Path) -> None:
    """Replies, statuses, a deadline, a method that it does not have: over one connection."""
    with trio.fail_after(PATIENCE), grpcio_server(tmp_path / "s"):
        async with connect(f"unix://{tmp_path}/s", protocol="grpc") as shim:
            assert (await shim.state(api.StateRequest(id="x"))).id == "x"
            with pytest.raises(NotFoundError, match=r"^nobody “é” 100 %: not found$"):
                await shim.state(api.StateRequest(id="nobody"))
            with pytest.raises(DeadlineExceededError):
                await shim.state(api.StateRequest(id="slow"), timeout=0.05)
            with pytest.raises(UnimplementedError):
                await shim.pids(api.PidsRequest())
            assert (await shim.state(api.StateRequest(id="y"))).id == "y"


async def test_grpcio_takes_large_requests_and_many_calls(tmp_path: Path) -> None:
    """Windows both ways, and many calls at a time."""
    answers: list[int] = []
    with trio.fail_after(PATIENCE), grpcio_server(tmp_path / "s"):
        async with connect(str(tmp_path / "s"), protocol="grpc") as shim:

            async def ask(size: int) -> None:
                answers.append(len((await shim.state(api.StateRequest(id="x" * size))).id))

            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(ask, 3_000_000 if number % 20 == 0 else number)
    assert sorted(answers)[-5:] == [3_000_000] * 5
    assert len(answers) == 100


async def test_a_call_that_we_cancel_ends_in_grpcio(tmp_path: Path) -> None:
    """Or its thread would never end."""
    with trio.fail_after(PATIENCE), grpcio_server(tmp_path / "s"):
        async with connect(str(tmp_path / "s"), protocol="grpc") as shim:
            for _ in range(50):  # more than it has threads
                with trio.move_on_after(0.02):
                    await shim.state(api.StateRequest(id="slow"))
            assert (await shim.state(api.StateRequest(id="x"))).id == "x"


async def test_grpcio_goes_away(tmp_path: Path) -> None:
    """Its GOAWAY: what runs is answered or told, what comes is refused."""
    with trio.fail_after(PATIENCE), grpcio_server(tmp_path / "s") as server:
        stream = await trio.open_unix_socket(tmp_path / "s")
        async with open_caller(stream, "grpc") as caller:
            assert await caller.call(SERVICE, "State", b"") == b""
            await trio.to_thread.run_sync(server.stop(None).wait)
            with pytest.raises(UnavailableError):
                await caller.call(SERVICE, "State", b"")


# ---------------------------------------------------------------- purerpc


class Stock(purerpc.Servicer):  # type: ignore[misc]  # purerpc has no type hints
    """A service as purerpc would generate it."""

    async def state(self, request: api.StateRequest) -> api.StateResponse:
        if request.id == "nobody":
            raise purerpc.NotFoundError("nobody")
        return api.StateResponse(id=request.id)

    @property
    def service(self) -> Any:
        service = purerpc.Service(SERVICE)
        one = purerpc.Cardinality.UNARY_UNARY
        signature = purerpc.RPCSignature(one, api.StateRequest, api.StateResponse)
        service.add_method("State", self.state, signature)
        return service


@asynccontextmanager
async def stock_server() -> AsyncIterator[int]:
    """purerpc's own server; it can do TCP only.  Gives the port."""
    handler = purerpc.server.ConnectionHandler({SERVICE: Stock().service}, purerpc.Server(0))
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(listener.serve, handler)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        nursery.cancel_scope.cancel()
    gc.collect()  # to which it leaves its streams


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # by its server
async def test_purerpc_answers_us() -> None:
    """Its own server, which we do not use: replies, a status, and windows."""
    with trio.fail_after(PATIENCE):
        async with stock_server() as port:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with open_caller(stream, "grpc") as caller:
                shim = TaskClient(caller)
                assert (await shim.state(api.StateRequest(id="x"))).id == "x"
                with pytest.raises(NotFoundError, match="nobody"):
                    await shim.state(api.StateRequest(id="nobody"))
                for _ in range(6):
                    large = api.StateRequest(id="x" * 4_000_000)
                    assert len((await shim.state(large)).id) == 4_000_000


# ---------------------------------------------------------------- ours


@pytest.mark.parametrize("protocol", ["ttrpc", "grpc"])
async def test_ours_answers_us(tmp_path: Path, protocol: Any) -> None:
    """Over a real socket, with both protocols: the same."""
    tasks = Tasks()
    tasks.answer = lambda: api.StateResponse(id="x" * (MAX_MESSAGE - 100))
    address = f"unix://{tmp_path}/s"
    async with (
        on_a_socket(tmp_path / "s", tasks),
        connect(address, protocol=protocol) as shim,
    ):
        assert (await shim.connect(api.ConnectRequest(id="abc"))).version == "abc"
        assert len((await shim.state(api.StateRequest())).id) == MAX_MESSAGE - 100
        with pytest.raises(DeadlineExceededError):
            await shim.wait(api.WaitRequest(), timeout=0.05)
        with pytest.raises(UnimplementedError, match="Pids"):
            await shim.pids(api.PidsRequest())
        tasks.answer = lambda: api.StateResponse(id="x" * MAX_MESSAGE)
        with pytest.raises(ResourceExhaustedError):
            await shim.state(api.StateRequest())
        with pytest.raises(ResourceExhaustedError):
            await shim.state(api.StateRequest(id="x" * MAX_MESSAGE))
        tasks.answer = lambda: 1 // 0  # type: ignore[assignment,return-value]
        with pytest.raises(StatusError, match="division"):
            await shim.state(api.StateRequest())


async def test_no_such_protocol(tmp_path: Path) -> None:
    """Said before anybody is asked."""
    with pytest.raises(ValueError, match="'http': it should be one of ttrpc, grpc"):
        async with connect(str(tmp_path / "s"), protocol="http"):  # type: ignore[arg-type]
            pass
