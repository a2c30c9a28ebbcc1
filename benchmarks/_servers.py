"""Servers that give one constant answer, each in a process of its own.

    python -m benchmarks._servers KIND SOCKET ANSWER [PROFILE]

ANSWER is the serialized answer in hexadecimal, PROFILE a file for what `_recorders` notes of our
own server.  The server says `ready` when it listens, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import trio

from trioshim.proto import task_v2_pb2 as api
from trioshim.rpc import Service, instant, serve_rpc
from trioshim.ttrpc import serve_connection

from ._recorders import recorder

__all__ = ["Kind", "open_server"]

_TASK = api.DESCRIPTOR.services_by_name["Task"]
_CHUNK = 64 * 1024
_ROOT = Path(__file__).parents[1]


class Kind(Enum):
    """What serves."""

    ECHO = "echo"  # no protocol at all: what a turn of trio's loop costs
    EVENTS = "events"  # the daemon's, which takes them and says nothing
    TRIOSHIM = "trioshim"  # both wires of the shim, without its Task service
    PURERPC = "purerpc"
    GRPC_AIO = "grpc.aio"


@contextmanager
def open_server(
    kind: Kind, path: Path, answer: bytes, profile: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that listens at `path` during the block.

    Args:
        kind: which one.
        path: of its socket.
        answer: the serialized answer to State.
        profile: a file for what `_recorders` notes, written at the end.

    Raises:
        RuntimeError: it does not start.
    """
    words = [kind.value, str(path), answer.hex(), *([str(profile)] if profile else [])]
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks._servers", *words],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout is not None
        if server.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the server {kind.value} does not start; it has said why")
        yield server  # leaving the block closes its standard input, and waits for its end


# ---------------------------------------------------------------- in the other process


def _ready() -> None:
    print("ready", flush=True)


@asynccontextmanager
async def _until_parent_leaves(
    path: str, profile: str = ""
) -> AsyncIterator[tuple[trio.Nursery, trio.SocketListener]]:
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(path)
    sock.listen()
    async with trio.open_nursery() as nursery:
        yield nursery, trio.SocketListener(sock)
        with recorder(profile):
            _ready()
            await trio.lowlevel.wait_readable(sys.stdin.fileno())
        nursery.cancel_scope.cancel()


async def _serve_echo(path: str, answer: bytes) -> None:  # noqa: ARG001 (an echo has none)
    async def echo(stream: trio.SocketStream) -> None:
        async with stream:
            while data := await stream.receive_some(_CHUNK):
                await stream.send_all(data)

    async with _until_parent_leaves(path) as (nursery, listener):
        nursery.start_soon(trio.serve_listeners, echo, [listener])


async def _serve_events(path: str, answer: bytes) -> None:
    async def forward(_request: object) -> bytes:
        return answer

    async with _until_parent_leaves(path) as (nursery, listener):
        serve = partial(serve_connection, dispatch=forward)
        nursery.start_soon(trio.serve_listeners, serve, [listener])


class _Tasks:
    """The Task service of which State is all that is asked."""

    def __init__(self, answer: bytes) -> None:
        self._answer = api.StateResponse.FromString(answer)

    @instant
    def state(self, request: api.StateRequest) -> api.StateResponse:  # noqa: ARG002
        return self._answer


async def _serve_trioshim(path: str, answer: bytes, profile: str = "") -> None:
    async with _until_parent_leaves(path, profile) as (nursery, listener):
        nursery.start_soon(serve_rpc, listener, [Service(_TASK, _Tasks(answer), reads={"State"})])


class _NoTcp:
    """A unix socket for purerpc, which sets options of TCP on whatever it gets."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.send, self._stream = stream.send_all, stream

    async def receive(self, max_bytes: int) -> bytes | bytearray:
        from anyio import EndOfStream

        data = await self._stream.receive_some(max_bytes)
        if not data:
            raise EndOfStream
        return data

    def extra(self, _attribute: object) -> _NoTcp:
        return self

    def setsockopt(self, *_option: object) -> None:
        """What a unix socket has no use for."""


async def _serve_purerpc(path: str, answer: bytes) -> None:
    from purerpc import Cardinality, RPCSignature, Server
    from purerpc import Service as Methods
    from purerpc.server import ConnectionHandler

    logging.getLogger("purerpc.server").setLevel(logging.ERROR)  # its end is no reason to warn
    methods = Methods(_TASK.full_name)
    signature = RPCSignature(Cardinality.UNARY_UNARY, api.StateRequest, api.StateResponse)
    methods.add_method("State", _Tasks(answer).state, signature)
    handler = ConnectionHandler({methods.name: methods}, Server(0))

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await handler(_NoTcp(stream))

    async with _until_parent_leaves(path) as (nursery, listener):
        nursery.start_soon(trio.serve_listeners, serve, [listener])


async def _serve_grpc_aio(path: str, answer: bytes) -> None:
    grpc: Any = importlib.import_module("grpc")
    aio: Any = importlib.import_module("grpc.aio")
    tasks = _Tasks(answer)

    async def state(request: api.StateRequest, _context: object) -> api.StateResponse:
        return await tasks.state(request)

    handler = grpc.unary_unary_rpc_method_handler(
        state, api.StateRequest.FromString, api.StateResponse.SerializeToString
    )
    server = aio.server()
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(_TASK.full_name, {"State": handler})]
    )
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    left = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), left.set)
    _ready()
    await left.wait()
    await server.stop(None)


_ON_TRIO: dict[Kind, Callable[[str, bytes], Awaitable[None]]] = {
    Kind.ECHO: _serve_echo,
    Kind.EVENTS: _serve_events,
    Kind.TRIOSHIM: _serve_trioshim,
    Kind.PURERPC: _serve_purerpc,
}


def main(kind: str, path: str, answer: str, profile: str = "") -> None:
    """Serve until the parent leaves."""
    if Kind(kind) is Kind.GRPC_AIO:
        asyncio.run(_serve_grpc_aio(path, bytes.fromhex(answer)))
    elif profile:
        trio.run(_serve_trioshim, path, bytes.fromhex(answer), profile)
    else:
        trio.run(_ON_TRIO[Kind(kind)], path, bytes.fromhex(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
