"""A client of the Task service, on any connection that makes calls by name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal, Protocol, TypeVar, get_args

import trio
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from ..proto import task_v2_pb2 as api
from ..rpc import open_grpc_client
from ..ttrpc import open_client

__all__ = ["Caller", "TaskClient", "Wire", "connect", "open_caller"]

Wire = Literal["ttrpc", "grpc"]

Reply = TypeVar("Reply", bound=Message)


class Caller(Protocol):
    """What a wire's client offers: `trioshim.ttrpc.Client`, `trioshim.rpc.GrpcClient`."""

    async def call(
        self, service: str, method: str, payload: bytes, *, timeout: float | None = None
    ) -> bytes: ...


class TaskClient:
    """The 17 methods of a shim, with typed requests and replies.

    Args:
        caller: the connection.
        service: the name that the shim serves it under; v2 and v3 are the same bytes.

    Every method takes the request and an optional `timeout` in seconds, and raises the
    `trioshim.errors.ShimError` that stands for the status which the shim answered.
    """

    def __init__(self, caller: Caller, service: str = "containerd.task.v2.Task") -> None:
        self._caller = caller
        self._service = service

    async def _call(
        self, method: str, request: Message, reply: type[Reply], timeout: float | None
    ) -> Reply:
        payload = request.SerializeToString()
        answer = await self._caller.call(self._service, method, payload, timeout=timeout)
        return reply.FromString(answer)

    async def state(
        self, request: api.StateRequest, *, timeout: float | None = None
    ) -> api.StateResponse:
        return await self._call("State", request, api.StateResponse, timeout)

    async def create(
        self, request: api.CreateTaskRequest, *, timeout: float | None = None
    ) -> api.CreateTaskResponse:
        return await self._call("Create", request, api.CreateTaskResponse, timeout)

    async def start(
        self, request: api.StartRequest, *, timeout: float | None = None
    ) -> api.StartResponse:
        return await self._call("Start", request, api.StartResponse, timeout)

    async def delete(
        self, request: api.DeleteRequest, *, timeout: float | None = None
    ) -> api.DeleteResponse:
        return await self._call("Delete", request, api.DeleteResponse, timeout)

    async def pids(
        self, request: api.PidsRequest, *, timeout: float | None = None
    ) -> api.PidsResponse:
        return await self._call("Pids", request, api.PidsResponse, timeout)

    async def pause(self, request: api.PauseRequest, *, timeout: float | None = None) -> Empty:
        return await self._call("Pause", request, Empty, timeout)

    async def resume(self, request: api.ResumeRequest, *, timeout: float | None = None) -> Empty:
        return await self._call("Resume", request, Empty, timeout)

    async def checkpoint(
        self, request: api.CheckpointTaskRequest, *, timeout: float | None = None
    ) -> Empty:
        return await self._call("Checkpoint", request, Empty, timeout)

    async def kill(self, request: api.KillRequest, *, timeout: float | None = None) -> Empty:
        return await self._call("Kill", request, Empty, timeout)

    async def exec(self, request: api.ExecProcessRequest, *, timeout: float | None = None) -> Empty:
        return await self._call("Exec", request, Empty, timeout)

    async def resize_pty(
        self, request: api.ResizePtyRequest, *, timeout: float | None = None
    ) -> Empty:
        return await self._call("ResizePty", request, Empty, timeout)

    async def close_io(self, request: api.CloseIORequest, *, timeout: float | None = None) -> Empty:
        return await self._call("CloseIO", request, Empty, timeout)

    async def update(
        self, request: api.UpdateTaskRequest, *, timeout: float | None = None
    ) -> Empty:
        return await self._call("Update", request, Empty, timeout)

    async def wait(
        self, request: api.WaitRequest, *, timeout: float | None = None
    ) -> api.WaitResponse:
        return await self._call("Wait", request, api.WaitResponse, timeout)

    async def stats(
        self, request: api.StatsRequest, *, timeout: float | None = None
    ) -> api.StatsResponse:
        return await self._call("Stats", request, api.StatsResponse, timeout)

    async def connect(
        self, request: api.ConnectRequest, *, timeout: float | None = None
    ) -> api.ConnectResponse:
        return await self._call("Connect", request, api.ConnectResponse, timeout)

    async def shutdown(
        self, request: api.ShutdownRequest, *, timeout: float | None = None
    ) -> Empty:
        return await self._call("Shutdown", request, Empty, timeout)


def open_caller(
    stream: trio.abc.Stream, protocol: Wire = "ttrpc"
) -> AbstractAsyncContextManager[Caller]:
    """Make calls over a stream; it is closed at the end of the block.

    Args:
        stream: a connected stream; nobody else may use it.
        protocol: "ttrpc", or "grpc", whose libraries take a tenth of a second to import.

    Raises:
        ValueError: there is no such protocol; the stream is left as it is.
    """
    _check(protocol)
    return open_client(stream) if protocol == "ttrpc" else open_grpc_client(stream)


@asynccontextmanager
async def connect(address: str, *, protocol: Wire = "ttrpc") -> AsyncIterator[TaskClient]:
    """A client of the shim that listens on `address`: a path, or `unix://` and a path.

    Args:
        address: where; the same socket answers both protocols.
        protocol: see `open_caller`.  Other shims speak only the one that they announce.

    Raises:
        OSError: nobody listens there.
        ValueError: there is no such protocol.
    """
    _check(protocol)
    stream = await trio.open_unix_socket(address.removeprefix("unix://"))
    async with open_caller(stream, protocol) as caller:
        yield TaskClient(caller)


def _check(protocol: str) -> None:
    if protocol not in get_args(Wire):
        raise ValueError(f"protocol {protocol!r}: it should be one of {', '.join(get_args(Wire))}")
