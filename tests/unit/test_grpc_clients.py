"""Both wires on one unix socket, with the clients of others: grpcio, and our own ttrpc client."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from trioshim.errors import Code
from trioshim.proto import task_v2_pb2 as api
from trioshim.rpc._grpc_wire import MAX_MESSAGE
from trioshim.ttrpc import open_client

from .both_wires import on_a_socket
from .grpc_world import Tasks

grpc = pytest.importorskip("grpc", reason="the gRPC client `grpcio` is missing")

SERVICE = "containerd.task.v2.Task"
PATIENCE = 30  # seconds; whoever hangs, fails


def method(channel: Any, name: str, answer: Any = api.ConnectResponse) -> Any:
    return channel.unary_unary(
        f"/{SERVICE}/{name}",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=answer.FromString,
    )


async def in_thread(path: Path, use: Callable[[Any], Any]) -> Any:
    """Run `use(channel)`, which blocks, beside the server."""

    def work() -> Any:
        with grpc.insecure_channel(f"unix:{path}") as channel:
            return use(channel)

    return await trio.to_thread.run_sync(work)


def code_of(call: Callable[[], Any]) -> int:
    """The status that a call fails with."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return int(caught.value.code().value[0])


async def test_grpcio_calls_us(tmp_path: Path) -> None:
    """A message there, a message back."""
    async with on_a_socket(tmp_path / "s", Tasks()):

        def use(channel: Any) -> Any:
            return method(channel, "Connect")(api.ConnectRequest(id="x"), timeout=PATIENCE)

        answer = await in_thread(tmp_path / "s", use)
        assert (answer.shim_pid, answer.version) == (7, "x")


async def test_grpcio_reads_our_statuses(tmp_path: Path) -> None:
    """Unknown method, deadline, too large a request: three statuses, one connection."""
    tasks = Tasks()
    async with on_a_socket(tmp_path / "s", tasks):

        def use(channel: Any) -> list[int]:
            large = api.StateRequest(id="x" * (MAX_MESSAGE + 1))
            return [
                code_of(lambda: method(channel, "Dance")(api.StateRequest(), timeout=PATIENCE)),
                code_of(lambda: method(channel, "Wait")(api.WaitRequest(), timeout=0.05)),
                code_of(lambda: method(channel, "State")(large, timeout=PATIENCE)),
                method(channel, "Connect")(api.ConnectRequest(), timeout=PATIENCE).shim_pid,
            ]

        codes = await in_thread(tmp_path / "s", use)
        assert codes == [
            Code.UNIMPLEMENTED,
            Code.DEADLINE_EXCEEDED,
            Code.RESOURCE_EXHAUSTED,
            7,
        ]


async def test_a_gzip_client_is_told_what_is_wrong(tmp_path: Path) -> None:
    """UNIMPLEMENTED with words, and not a dead connection."""
    async with on_a_socket(tmp_path / "s", Tasks()):

        def use(channel: Any) -> tuple[int, int]:
            request = api.ConnectRequest(id="x" * 10_000)
            connect = method(channel, "Connect")
            gzip = grpc.Compression.Gzip
            refused = code_of(lambda: connect(request, timeout=PATIENCE, compression=gzip))
            return refused, connect(request, timeout=PATIENCE).shim_pid

        assert await in_thread(tmp_path / "s", use) == (Code.UNIMPLEMENTED, 7)


async def test_grpcio_gets_large_replies(tmp_path: Path) -> None:
    """Larger than its first window, many at a time."""
    tasks = Tasks()
    tasks.answer = lambda: api.StateResponse(id="x" * 3_000_000)
    async with on_a_socket(tmp_path / "s", tasks):

        def use(channel: Any) -> set[int]:
            state = method(channel, "State", api.StateResponse)
            calls = [state.future(api.StateRequest(), timeout=PATIENCE) for _ in range(20)]
            return {len(call.result().id) for call in calls}

        assert await in_thread(tmp_path / "s", use) == {3_000_000}


async def test_two_hundred_calls_of_grpcio_run_at_the_same_time(tmp_path: Path) -> None:
    """All have started before one of them ends."""
    tasks = Tasks()

    async with on_a_socket(tmp_path / "s", tasks), trio.open_nursery() as nursery:

        async def let_go() -> None:
            await tasks.until(lambda: len(tasks.started) == 200)
            tasks.go_on.set()

        nursery.start_soon(let_go)

        def use(channel: Any) -> list[int]:
            wait = method(channel, "Wait", api.WaitResponse)
            calls = [wait.future(api.WaitRequest(), timeout=PATIENCE) for _ in range(200)]
            return [call.result().exit_status for call in calls]

        assert await in_thread(tmp_path / "s", use) == [3] * 200


@pytest.mark.parametrize(("name", "cancelled"), [("Wait", ["wait"]), ("Kill", [])])
async def test_a_cancelled_call_of_grpcio(tmp_path: Path, name: str, cancelled: list[str]) -> None:
    """A read is cancelled; a change goes on (law 8)."""
    tasks = Tasks()
    async with on_a_socket(tmp_path / "s", tasks):

        def use(channel: Any) -> bool:
            call = method(channel, name).future(api.WaitRequest())
            trio.from_thread.run(tasks.until, lambda: tasks.started)
            call.cancel()
            method(channel, "Connect")(api.ConnectRequest(), timeout=PATIENCE)
            return bool(call.cancelled())

        assert await in_thread(tmp_path / "s", use)
        if cancelled:
            await tasks.until(lambda: tasks.cancelled)
        assert tasks.cancelled == cancelled
        tasks.go_on.set()
        if not cancelled:
            await tasks.until(lambda: tasks.finished)


async def test_a_stopped_server_answers_what_runs(tmp_path: Path) -> None:
    """grpcio understands our GOAWAY: its call gets a reply, the next one finds nobody."""
    tasks = Tasks()
    async with on_a_socket(tmp_path / "s", tasks) as server:

        def stop() -> None:
            server.stop(grace=PATIENCE)
            tasks.go_on.set()

        def use(channel: Any) -> tuple[int, int]:
            call = method(channel, "Wait", api.WaitResponse).future(api.WaitRequest())
            trio.from_thread.run(tasks.until, lambda: tasks.started)
            trio.from_thread.run_sync(stop)
            answer = call.result(PATIENCE).exit_status
            connect = method(channel, "Connect")
            return answer, code_of(lambda: connect(api.ConnectRequest(), timeout=PATIENCE))

        assert await in_thread(tmp_path / "s", use) == (3, Code.UNAVAILABLE)


async def test_both_wires_share_a_socket(tmp_path: Path) -> None:
    """The same method over ttrpc and over gRPC, at the same time; noise disturbs neither."""
    tasks = Tasks()
    async with on_a_socket(tmp_path / "s", tasks):
        noise = await trio.open_unix_socket(tmp_path / "s")
        async with open_client(await trio.open_unix_socket(tmp_path / "s")) as client:
            await noise.send_all(b"GET / HTTP/1.1\r\n\r\n")
            assert await noise.receive_some() == b""

            def use(channel: Any) -> Any:
                return method(channel, "Connect")(api.ConnectRequest(id="x"), timeout=PATIENCE)

            over_grpc = await in_thread(tmp_path / "s", use)
            request = api.ConnectRequest(id="x").SerializeToString()
            over_ttrpc = await client.call(SERVICE, "Connect", request)
            assert api.ConnectResponse.FromString(over_ttrpc) == over_grpc
        await noise.aclose()


async def test_a_preface_may_come_byte_by_byte(tmp_path: Path) -> None:
    """The first byte decides; the others are not lost."""
    settings = struct.pack(">HBBBI", 0, 0, 4, 0, 0)
    accepted = struct.pack(">HBBBI", 0, 0, 4, 1, 0)
    async with on_a_socket(tmp_path / "s", Tasks()):
        stream = await trio.open_unix_socket(tmp_path / "s")
        for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings:
            await stream.send_all(bytes([byte]))
        data = b""
        while accepted not in data:
            more = await stream.receive_some()
            assert more
            data += more
        await stream.aclose()
