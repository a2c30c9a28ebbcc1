"""FakeRuntime: a scripted runc on a `FakeKernel`.

What a process does is a `Program`; how long the runtime takes for a verb, and whether it fails,
is up to the test.  The states and the error texts are runc's, as far as a shim can see them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from ..abc import CheckpointSpec, Child, ContainerSpec, ExecSpec, Runtime, Stdio
from ..errors import NotFoundError, RuntimeFailedError, StatusError
from ._kernel import FakeCgroup, FakeKernel, FakeProcess

__all__ = ["FakeContainer", "FakeRuntime", "Program"]


@dataclass(frozen=True, slots=True)
class Program:
    """What a process does once it runs.

    Attributes:
        status: its exit status.
        after: virtual seconds until it ends; None: it runs until it is killed.
        ignores: signals that do nothing.
        dies: ends before the runtime's verb (`create`, `start`, `exec`) has returned.
        out_of_memory: the kernel kills it, and says so in the cgroup.
        lingers: virtual seconds that it takes to die when its container is killed (D-state).
    """

    status: int = 0
    after: float | None = None
    ignores: frozenset[int] = frozenset()
    dies: str = ""
    out_of_memory: bool = False
    lingers: float = 0.0


@dataclass(slots=True, eq=False)
class FakeContainer:
    """What the runtime keeps of a container."""

    init: FakeProcess
    cgroup: FakeCgroup
    program: Program
    state: str = "created"
    processes: list[tuple[FakeProcess, Program]] = field(default_factory=list)


class FakeRuntime(Runtime):
    """`Runtime` in memory.

    Args:
        kernel: where the processes are.
        world: nursery in which running programs end.
        program: the program of a process, by container id and exec id ("" for init).
        step: awaited inside each verb, with its name: takes time, or fails.  Awaited again
            with "<verb> returns", when a start, an exec or a create has done its work.
        shared_pid_namespace: init's end does not take the execs with it.

    Attributes:
        containers: those that the runtime knows, by id.
        calls: verbs and ids, in order.
    """

    def __init__(
        self,
        kernel: FakeKernel,
        world: trio.Nursery,
        *,
        program: Callable[[str, str], Program] = lambda _id, _exec: Program(),
        step: Callable[[str], Awaitable[None]] | None = None,
        shared_pid_namespace: bool = False,
    ) -> None:
        self.kernel = kernel
        self.containers: dict[str, FakeContainer] = {}
        self.calls: list[tuple[str, str]] = []
        self._world = world
        self._program = program
        self._step = step
        self._shared = shared_pid_namespace

    async def _begin(self, verb: str, id_: str) -> None:
        self.calls.append((verb, id_))
        await trio.lowlevel.checkpoint()
        if self._step is not None:
            await self._step(verb)

    async def _return(self, verb: str) -> None:
        # What it has started may have ended long before it returns.
        await trio.lowlevel.checkpoint()
        if self._step is not None:
            await self._step(f"{verb} returns")

    def _get(self, id_: str) -> FakeContainer:
        try:
            return self.containers[id_]
        except KeyError:
            raise NotFoundError("no such container") from None

    # ------------------------------------------------------------ verbs

    async def create(self, spec: ContainerSpec, stdio: Stdio) -> Child:  # noqa: ARG002
        with self.kernel.birth():
            await self._begin("create", spec.id)
            if spec.id in self.containers:
                raise RuntimeFailedError("OCI runtime create failed: container exists")
            container = self._new(spec.id)
            if container.program.dies == "create":
                self._end(container.init, container)
            await self._return("create")
            return self.kernel.adopt(container.init.pid)

    async def restore(self, spec: ContainerSpec, stdio: Stdio) -> Child:  # noqa: ARG002
        with self.kernel.birth():
            await self._begin("restore", spec.id)
            container = self._new(spec.id)
            container.state = "running"
            self._run(container.init, container, container.program)
            await self._return("restore")
            return self.kernel.adopt(container.init.pid)

    async def start(self, spec: ContainerSpec) -> None:
        await self._begin("start", spec.id)
        container = self._get(spec.id)
        if container.init.exit is not None:
            raise RuntimeFailedError("OCI runtime start failed: cannot start a stopped container")
        container.state = "running"
        self._run(container.init, container, container.program)
        await self._return("start")

    async def exec(self, spec: ContainerSpec, process: ExecSpec, stdio: Stdio) -> Child:  # noqa: ARG002
        with self.kernel.birth():
            await self._begin("exec", spec.id)
            container = self._get(spec.id)
            if container.init.exit is not None:
                raise RuntimeFailedError("OCI runtime exec failed: container is stopped")
            child = self.kernel.fork(cgroup=container.cgroup)
            program = self._program(spec.id, process.id)
            container.processes.append((child, program))
            self._run(child, container, program)
            await self._return("exec")
            return self.kernel.adopt(child.pid)

    async def kill(self, spec: ContainerSpec, init: Child, signum: int, *, all: bool) -> None:  # noqa: A002, ARG002
        await self._begin("kill", spec.id)
        container = self._get(spec.id)
        if container.init.exit is not None:
            raise NotFoundError("process already finished")
        self.kernel.signal(container.init, signum)
        for process, _ in container.processes if all else []:
            self.kernel.signal(process, signum)

    async def kill_remaining(self, spec: ContainerSpec) -> None:
        await self._begin("kill_remaining", spec.id)
        self._kill_all(self._get(spec.id))

    async def delete(self, spec: ContainerSpec, *, force: bool = False) -> None:
        await self._begin("delete", spec.id)
        container = self.containers.get(spec.id)
        if container is None:
            return
        if container.state == "running" and container.init.exit is None and not force:
            raise RuntimeFailedError("failed to delete task: container is running")
        self.kernel.end(container.init, 128 + 9)
        self._kill_all(container)
        container.cgroup.remove()
        del self.containers[spec.id]

    async def pause(self, spec: ContainerSpec) -> None:
        await self._begin("pause", spec.id)
        if self._get(spec.id).init.exit is not None:
            raise StatusError("OCI runtime pause failed: container not running")

    async def resume(self, spec: ContainerSpec) -> None:
        await self._begin("resume", spec.id)
        self._get(spec.id)

    async def update(self, spec: ContainerSpec, resources: bytes) -> None:  # noqa: ARG002
        await self._begin("update", spec.id)
        self._get(spec.id)

    async def checkpoint(self, spec: ContainerSpec, checkpoint: CheckpointSpec) -> None:  # noqa: ARG002
        await self._begin("checkpoint", spec.id)
        self._get(spec.id)

    # ------------------------------------------------------------ processes

    def _new(self, id_: str) -> FakeContainer:
        cgroup = FakeCgroup()
        container = FakeContainer(self.kernel.fork(cgroup=cgroup), cgroup, self._program(id_, ""))
        if not self._shared:
            container.init.on_end = lambda: self._kill_all(container)
        self.containers[id_] = container
        return container

    def _run(self, process: FakeProcess, container: FakeContainer, program: Program) -> None:
        process.ignores = program.ignores
        if program.dies:
            self._end(process, container, program)
        elif program.after is not None:
            self._world.start_soon(self._end_later, process, container, program)

    async def _end_later(
        self, process: FakeProcess, container: FakeContainer, program: Program
    ) -> None:
        assert program.after is not None
        await trio.sleep(program.after)
        self._end(process, container, program)

    def _end(
        self, process: FakeProcess, container: FakeContainer, program: Program | None = None
    ) -> None:
        program = program or container.program
        if program.out_of_memory and process.exit is None:
            container.cgroup.kill_for_memory()
            self.kernel.end(process, 128 + 9)
        else:
            self.kernel.end(process, program.status)

    def _kill_all(self, container: FakeContainer) -> None:
        for process, program in container.processes:
            if program.lingers:
                self._world.start_soon(self._die_slowly, process, program.lingers)
            else:
                self.kernel.end(process, 128 + 9)

    async def _die_slowly(self, process: FakeProcess, seconds: float) -> None:
        await trio.sleep(seconds)
        self.kernel.end(process, 128 + 9)
