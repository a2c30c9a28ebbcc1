"""FakeRuntime: a scripted runc on a `FakeKernel`.

What a process does is a `Program`; how long the runtime takes for a verb, and whether it fails,
is up to the test.  The states and the error texts are runc's, as far as a shim can see them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio

from ..abc import CheckpointSpec, Child, ContainerSpec, ExecSpec, Runtime, Stdio
from ..errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    NotFoundError,
    RuntimeFailedError,
)
from ._kernel import KILLED, FakeKernel
from ._process import FakeCgroup, FakeProcess
from ._program import FakeContainer, Program
from ._stdio import FakeStdio

__all__ = ["FakeRuntime"]

_PATIENCE = 10.0  # virtual seconds that `delete` waits for init to end


class FakeRuntime(Runtime):
    """`Runtime` in memory.

    Args:
        kernel: where the processes are.
        world: nursery in which running programs end.
        program: the program of a process, by container id and exec id ("" for init).
        step: awaited inside each verb, with its name: takes time, or fails.  Awaited again
            with "<verb> returns", when a create, start, exec, pause or resume has done its work.
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
        self.shared_pid_namespace = shared_pid_namespace
        self._world = world
        self._program = program
        self._step = step

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

    def _get(self, id_: str, failure: str) -> FakeContainer:
        try:
            return self.containers[id_]
        except KeyError:
            raise RuntimeFailedError(f"{failure}: container does not exist") from None

    # ------------------------------------------------------------ verbs

    async def create(self, spec: ContainerSpec, stdio: Stdio) -> Child:
        with self.kernel.birth():
            await self._begin("create", spec.id)
            container = self._new(spec.id, "OCI runtime create failed")
            with self._dies_if_this_fails(container.init):
                _send_console(stdio)
                if container.program.dies == "create":
                    self._end(container.init, container)
                await self._return("create")
                return self.kernel.adopt(container.init.pid)

    async def restore(self, spec: ContainerSpec, stdio: Stdio) -> Child:
        with self.kernel.birth():
            await self._begin("restore", spec.id)
            container = self._new(spec.id, "OCI runtime restore failed")
            with self._dies_if_this_fails(container.init):
                _send_console(stdio)
                container.started = True
                self._run(container.init, container, container.program)
                await self._return("restore")
                return self.kernel.adopt(container.init.pid)

    async def start(self, spec: ContainerSpec) -> None:
        await self._begin("start", spec.id)
        failure = "OCI runtime start failed"
        container = self._get(spec.id, failure)
        if container.stopped:
            raise RuntimeFailedError(f"{failure}: cannot start a container that has stopped")
        if container.paused:
            raise RuntimeFailedError(f"{failure}: cannot start a container in the paused state")
        if container.started:
            raise FailedPreconditionError(f"{failure}: cannot start an already running container")
        container.started = True
        self._run(container.init, container, container.program)
        await self._return("start")

    async def exec(self, spec: ContainerSpec, process: ExecSpec, stdio: Stdio) -> Child:
        with self.kernel.birth():
            await self._begin("exec", spec.id)
            container = self._ready_for_exec(spec.id)
            program = self._program(spec.id, process.id)
            if program.missing:
                raise RuntimeFailedError("OCI runtime exec failed: executable file not found")
            init = container.init if container.own_pid_namespace else None
            child = self.kernel.fork(cgroup=container.cgroup, namespace=init)
            container.processes.append((child, program))
            with self._dies_if_this_fails(child):
                _send_console(stdio)
                self._run(child, container, program)
                await self._return("exec")
                return self.kernel.adopt(child.pid)

    async def kill(self, spec: ContainerSpec, init: Child, signum: int, *, all: bool) -> None:  # noqa: A002, ARG002
        await self._begin("kill", spec.id)
        container = self.containers.get(spec.id)
        if container is None:
            raise NotFoundError("no such container")
        if container.stopped and not all:
            raise NotFoundError("process already finished")
        self.kernel.signal(container.init, signum)
        for process, program in container.processes if all else []:
            if signum == KILLED - 128:
                self._kill(process, program)
            else:
                self.kernel.signal(process, signum)

    async def kill_remaining(self, spec: ContainerSpec) -> None:
        await self._begin("kill_remaining", spec.id)
        container = self.containers.get(spec.id)
        if container is not None and not container.own_pid_namespace:
            self._kill_all(container)

    async def delete(self, spec: ContainerSpec, *, force: bool = False) -> None:
        await self._begin("delete", spec.id)
        container = self.containers.get(spec.id)
        if container is None:
            return
        if not (force or container.stopped) and (container.started or container.paused):
            state = "paused" if container.paused else "running"
            raise RuntimeFailedError(
                f"failed to delete task: cannot delete container that is not stopped: {state}"
            )
        self.kernel.end(container.init, KILLED)
        self._kill_all(container)
        await self._wait_for_end(container.init)
        container.cgroup.remove()
        if self.containers.get(spec.id) is container:  # another delete was quicker
            del self.containers[spec.id]

    async def pause(self, spec: ContainerSpec) -> None:
        await self._begin("pause", spec.id)
        failure = "OCI runtime pause failed"
        container = self._get(spec.id, failure)
        if container.stopped or container.paused:
            raise RuntimeFailedError(f"{failure}: container not running")
        container.cgroup.frozen = True
        await self._return("pause")

    async def resume(self, spec: ContainerSpec) -> None:
        await self._begin("resume", spec.id)
        failure = "OCI runtime resume failed"
        container = self._get(spec.id, failure)
        if not container.paused:
            raise FailedPreconditionError(f"{failure}: container not paused")
        self.kernel.thaw(container.cgroup)
        await self._return("resume")

    async def update(self, spec: ContainerSpec, resources: bytes) -> None:  # noqa: ARG002
        await self._begin("update", spec.id)
        failure = "runc did not terminate successfully: exit status 1"
        if self._get(spec.id, failure).stopped:
            raise RuntimeFailedError(f"{failure}: container not running")

    async def checkpoint(self, spec: ContainerSpec, checkpoint: CheckpointSpec) -> None:  # noqa: ARG002
        await self._begin("checkpoint", spec.id)
        self._get(spec.id, "OCI runtime checkpoint failed")

    # ------------------------------------------------------------ containers

    def _new(self, id_: str, failure: str) -> FakeContainer:
        if id_ in self.containers:
            raise AlreadyExistsError(f"{failure}: container with given ID already exists")
        program = self._program(id_, "")
        if program.missing:
            raise RuntimeFailedError(f"{failure}: executable file not found in $PATH")
        cgroup = FakeCgroup()
        own = not self.shared_pid_namespace
        init = self.kernel.fork(cgroup=cgroup)
        init.is_init = own
        container = FakeContainer(init, cgroup, program, own_pid_namespace=own)
        init.on_end = lambda: self._init_ends(container)
        self.containers[id_] = container
        return container

    def _ready_for_exec(self, id_: str) -> FakeContainer:
        failure = "OCI runtime exec failed"
        container = self._get(id_, failure)
        if container.stopped:
            raise RuntimeFailedError(f"{failure}: cannot exec in a stopped container")
        if container.paused:
            raise RuntimeFailedError(f"{failure}: cannot exec in a paused container")
        return container

    def _init_ends(self, container: FakeContainer) -> None:
        if container.own_pid_namespace:
            self._kill_all(container)

    async def _wait_for_end(self, init: FakeProcess) -> None:
        with trio.move_on_after(_PATIENCE):
            while init.exit is None:
                await init.news.wait()
            return
        raise RuntimeFailedError("failed to delete task: container init still running")

    @contextmanager
    def _dies_if_this_fails(self, process: FakeProcess) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.kernel.end(process, KILLED)
            raise

    # ------------------------------------------------------------ processes

    def _run(self, process: FakeProcess, container: FakeContainer, program: Program) -> None:
        process.ignores = program.ignores
        process.handles = program.handles
        if program.dies:
            self._end(process, container, program)
        elif program.after is not None:
            self._world.start_soon(self._end_later, process, container, program)

    async def _end_later(
        self, process: FakeProcess, container: FakeContainer, program: Program
    ) -> None:
        assert program.after is not None
        await trio.sleep(program.after)
        while container.cgroup.frozen and process.status is None:
            await container.cgroup.thawed.wait()
        self._end(process, container, program)

    def _end(
        self, process: FakeProcess, container: FakeContainer, program: Program | None = None
    ) -> None:
        program = program or container.program
        if program.out_of_memory and process.status is None:
            container.cgroup.kill_for_memory()
            self.kernel.end(process, KILLED)
        else:
            self.kernel.end(process, program.status)

    def _kill_all(self, container: FakeContainer) -> None:
        for process, program in container.processes:
            self._kill(process, program)

    def _kill(self, process: FakeProcess, program: Program) -> None:
        if program.lingers:
            self._world.start_soon(self._die_slowly, process, program.lingers)
        else:
            self.kernel.end(process, KILLED)

    async def _die_slowly(self, process: FakeProcess, seconds: float) -> None:
        await trio.sleep(seconds)
        self.kernel.end(process, KILLED)


def _send_console(stdio: Stdio) -> None:
    if isinstance(stdio, FakeStdio):
        stdio.console_sent = True
