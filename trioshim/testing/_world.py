"""A whole shim in memory: `open_shim()` runs `serve()` on fakes and connects clients to it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio
import trio.testing

from ..client import TaskClient
from ..shim import serve
from ..task import TaskService
from ..ttrpc import open_client
from ._kernel import FakeKernel
from ._program import Program
from ._publisher import MemoryPublisher
from ._runtime import FakeRuntime

__all__ = ["MemoryListener", "World", "open_shim"]


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Where clients connect without a socket."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream](math.inf)

    def connect(self) -> trio.abc.Stream:
        """The client's end of a new connection.

        Raises:
            trio.BrokenResourceError: nobody listens any more.
        """
        ours, theirs = trio.testing.memory_stream_pair()
        self._send.send_nowait(theirs)
        return ours

    async def accept(self) -> trio.abc.Stream:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError from None

    async def aclose(self) -> None:
        self._receive.close()
        await trio.lowlevel.checkpoint()


@dataclass(slots=True)
class World:
    """A shim in memory, and everything around it.

    Attributes:
        serving: the scope of the shim; cancel it to kill the shim.
        stopped: set when the shim has ended.
        service: what answers the requests; its `shutdown_requested` is how SIGTERM ends a shim.
    """

    listener: MemoryListener
    kernel: FakeKernel
    runtime: FakeRuntime
    publisher: MemoryPublisher
    serving: trio.CancelScope
    stopped: trio.Event
    service: TaskService

    @asynccontextmanager
    async def client(self) -> AsyncIterator[TaskClient]:
        """A new connection to the shim."""
        async with open_client(self.listener.connect()) as caller:
            yield TaskClient(caller)

    def check_nothing_left(self) -> None:
        """Raise AssertionError if something of a container is still there."""
        left = {
            "processes": list(self.kernel.processes.values()),
            "mounts": self.kernel.mounts,
            "streams": self.kernel.stdios,
            "open cgroups": self.kernel.cgroups,
            "containers of the runtime": list(self.runtime.containers),
        }
        for what, things in left.items():
            if things:
                raise AssertionError(f"{what} left: {things}")


@asynccontextmanager
async def open_shim(
    *,
    program: Callable[[str, str], Program] = lambda _id, _exec: Program(),
    step: Callable[[str], Awaitable[None]] | None = None,
    publishing: Callable[[], Awaitable[None]] | None = None,
    shared_pid_namespace: bool = False,
    pid_max: int = 32768,
    runtime_class: type[FakeRuntime] = FakeRuntime,
    linger: float = math.inf,
) -> AsyncIterator[World]:
    """Run a shim in memory for the time of the block.

    Args:
        program: what a process does, by container id and exec id; see `Program`.
        step: awaited in each verb of the runtime.
        publishing: awaited before each event is delivered.
        shared_pid_namespace: the containers share the host's pid namespace.
        pid_max: the largest pid; see `FakeKernel`.
        runtime_class: a fake runtime with habits of its own.
        linger: see `trioshim.shim.serve`.
    """
    async with trio.open_nursery() as nursery, trio.open_nursery() as programs:
        kernel = FakeKernel(pid_max=pid_max)
        runtime = runtime_class(
            kernel,
            programs,
            program=program,
            step=step,
            shared_pid_namespace=shared_pid_namespace,
        )
        listener, publisher = MemoryListener(), MemoryPublisher(step=publishing)
        serving, stopped = trio.CancelScope(), trio.Event()
        shim = partial(
            serve,
            listener,
            runtime=runtime,
            kernel=kernel,
            publisher=publisher,
            linger=linger,
        )
        service = await nursery.start(_serve, shim, serving, stopped)
        world = World(listener, kernel, runtime, publisher, serving, stopped, service)
        yield world
        world.serving.cancel()
        programs.cancel_scope.cancel()


async def _serve(
    shim: Callable[..., Awaitable[None]],
    serving: trio.CancelScope,
    stopped: trio.Event,
    *,
    task_status: trio.TaskStatus[TaskService] = trio.TASK_STATUS_IGNORED,
) -> None:
    try:
        with serving:
            await shim(task_status=task_status)
    finally:
        stopped.set()
