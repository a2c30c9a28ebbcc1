"""A program of somebody who still has trio-typing: it must type-check against our public API."""

from __future__ import annotations

import trio
from trio_typing import TaskStatus

import trioshim
from trioshim.client import connect
from trioshim.errors import NotFoundError
from trioshim.proto import task_v2_pb2 as api
from trioshim.rpc import Service, serve_rpc
from trioshim.testing import FakeKernel, FakeRuntime, MemoryListener, MemoryPublisher


async def serve_in_memory(
    *, task_status: TaskStatus[MemoryListener] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run a shim inside of a nursery."""
    listener = MemoryListener()
    kernel = FakeKernel()
    async with trio.open_nursery() as nursery:
        task_status.started(listener)
        await trioshim.serve(
            listener,
            runtime=FakeRuntime(kernel, nursery),
            kernel=kernel,
            publisher=MemoryPublisher(),
        )


async def ask(address: str) -> int:
    """Ask a shim for its pid."""
    async with connect(address) as shim:
        try:
            await shim.state(api.StateRequest(id="c1"), timeout=2.0)
        except NotFoundError:
            return 0
        return (await shim.connect(api.ConnectRequest(id="c1"))).shim_pid


async def serve_something(listener: MemoryListener, implementation: object) -> None:
    """Bind any object to a service."""
    descriptor = api.DESCRIPTOR.services_by_name["Task"]
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_rpc, listener, [Service(descriptor, implementation)])
        server.stop(grace=1.0)
