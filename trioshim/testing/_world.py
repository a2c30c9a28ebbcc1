"""A whole shim in memory: `open_shim()` runs `serve()` on fakes and connects clients to it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import trio
import trio.testing

from ..client import TaskClient, Wire, open_caller
from ..rpc._listener import JOIN, JOINED, _import_grpc
from ..shim import serve
from ..task import TaskService
from ._fault_plan import FaultPlan
from ._kernel import FakeKernel
from ._program import Program
from ._publisher import MemoryPublisher
from ._runtime import FakeRuntime

__all__ = ["MemoryListener", "World", "open_shim"]

_JOIN_AGAIN = 0.02  # as `start` does


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
        try:
            self._send.send_nowait(theirs)
        except trio.ClosedResourceError:
            raise trio.BrokenResourceError("nobody listens any more") from None
        return ours

    async def accept(self) -> trio.abc.Stream:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError from None

    async def aclose(self) -> None:
        self._send.close()
        with self._receive, suppress(trio.EndOfChannel, trio.ClosedResourceError):
            while True:  # who waited in the backlog is reset, as by Linux
                await trio.aclose_forcefully(self._receive.receive_nowait())
        await trio.lowlevel.checkpoint()


class MemoryDoor:
    """Where `World.join` finds the shim of a group; it stands for a path and its lock.

    Attributes:
        first: the container that the shim is for.
        open: the shim can still be found.
    """

    def __init__(self, first: str) -> None:
        self.first = first
        self.open = True
        self._lock = trio.Lock()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        async with self._lock:
            yield

    def shut(self) -> None:
        assert self._lock.locked(), "the door is shut by who does not hold it"
        self.open = False


@dataclass(slots=True)
class World:
    """A shim in memory, and everything around it.

    Attributes:
        serving: the scope of the shim; cancel it to kill the shim.
        stopped: set when the shim has ended.
        protocol: what clients speak that are not told otherwise.
        service: what answers the requests; its `shutdown_requested` is how SIGTERM ends a shim.
        door: where it is found, if it is for a group.
    """

    listener: MemoryListener
    kernel: FakeKernel
    runtime: FakeRuntime
    publisher: MemoryPublisher
    serving: trio.CancelScope
    stopped: trio.Event
    protocol: Wire = "ttrpc"
    door: MemoryDoor | None = None
    service: TaskService = field(init=False)
    _task: trio.lowlevel.Task = field(init=False)
    _idle: Counter[str] = field(init=False)

    @asynccontextmanager
    async def client(self, *, protocol: Wire | None = None) -> AsyncIterator[TaskClient]:
        """A new connection to the shim, over `protocol` or the one of `open_shim`."""
        protocol = protocol or self.protocol
        if protocol == "grpc":
            _import_grpc()  # the shim would do it in a thread, and virtual time waits for none
        async with open_caller(self.listener.connect(), protocol) as caller:
            yield TaskClient(caller)

    async def join(self, id_: str) -> bool:
        """Announce a container to the shim of a group, as `start` does.

        Returns:
            Whether its Create may be sent here; else `start` would make another shim.
        """
        assert self.door is not None, "open_shim was not told a group"
        async with self.door.held():
            while self.door.open:
                try:
                    stream = self.listener.connect()
                except trio.BrokenResourceError:
                    return False
                async with stream:
                    with suppress(trio.BrokenResourceError):
                        await stream.send_all(JOIN + id_.encode() + b"\n")
                        if (await stream.receive_some()).startswith(JOINED):
                            return True
                await trio.sleep(_JOIN_AGAIN)
        return False

    def check_nothing_left(self) -> None:
        """Raise AssertionError if something of a container is still there.

        A task of the shim that is neither there without containers nor serves a connection, too.
        """
        left = {
            "processes": list(self.kernel.processes.values()),
            "mounts": self.kernel.mounts,
            "streams": self.kernel.stdios,
            "open cgroups": self.kernel.cgroups,
            "containers of the runtime": list(self.runtime.containers),
            "tasks": list((self._tasks() - self._idle).elements()),
        }
        for what, things in left.items():
            if things:
                raise AssertionError(f"{what} left: {things}")

    async def _run(
        self,
        shim: Callable[..., Awaitable[None]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        self._task = trio.lowlevel.current_task()
        try:
            with self.serving:
                async with trio.open_nursery() as nursery:
                    self.service = await nursery.start(shim)
                    self._idle = self._tasks()
                    task_status.started()
        finally:
            self.stopped.set()

    def _tasks(self) -> Counter[str]:
        """Names of the shim's tasks, without those that serve a connection."""
        return Counter(task.name for task in _tasks_below(self._task))


def _tasks_below(parent: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    for nursery in parent.child_nurseries:
        for task in nursery.child_tasks:
            if not task.name.endswith("._run_handler"):  # trio.serve_listeners: a connection
                yield task
                yield from _tasks_below(task)


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
    faults: FaultPlan | None = None,
    protocol: Wire = "ttrpc",
    group: str = "",
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
        faults: stands between the shim and its ports; for this run only.
        protocol: what `World.client` speaks; the shim answers both.
        group: the id of the first container of a shim for several: then `World.join` works, and it
            ends only when nobody is expected; "": it is for one.
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
        door = MemoryDoor(group) if group else None
        world = World(listener, kernel, runtime, publisher, serving, stopped, protocol, door)
        shim = partial(
            serve,
            listener,
            runtime=faults.runtime(runtime) if faults else runtime,
            kernel=faults.kernel(kernel) if faults else kernel,
            publisher=faults.publisher(publisher) if faults else publisher,
            linger=linger,
            door=door,
        )
        await nursery.start(world._run, shim)  # noqa: SLF001 (same module)
        yield world
        world.serving.cancel()
        programs.cancel_scope.cancel()
