"""The ports of `trioshim.abc` with a `FaultPlan` between the caller and the real thing.

Rules: every call goes through, but the planned one; what a fault stops half-way is left as the
port's contract says: a process that was made is killed and let go of, so that the reaper gets it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TypeVar

import trio
from google.protobuf.message import Message

from ..abc import (
    Cgroup,
    CheckpointSpec,
    Child,
    ContainerSpec,
    ExecSpec,
    Exit,
    Kernel,
    Mount,
    Publisher,
    Runtime,
    Stdio,
    StdioSpec,
)
from ..errors import ShimError
from ._faults import Fault, FaultKind

if TYPE_CHECKING:
    from ..proto.types_pb2 import Envelope
    from ._fault_plan import FaultPlan

__all__ = ["FaultyKernel", "FaultyPublisher", "FaultyRuntime"]

Done = TypeVar("Done")


async def _around(
    plan: FaultPlan,
    fault: Fault | None,
    work: Callable[[], Awaitable[Done]],
    undo: Callable[[Done], None] = lambda _: None,
) -> Done:
    if fault is None or not fault.done:
        await plan.befall(fault)
        return await work()
    try:
        done = await work()
    except (OSError, ShimError):  # this answer is lost or late, too
        await plan.befall(fault)
        raise
    try:
        await plan.befall(fault)
    except BaseException:
        undo(done)
        raise
    return done


def _end(child: Child | None) -> None:
    with suppress(ProcessLookupError):  # it has ended by itself
        if child is not None:
            child.signal(9)


def _abandon(child: Child) -> None:
    _end(child)
    child.close()


def _ends(fault: Fault | None, *, done: bool) -> bool:
    return fault is not None and fault.kind is FaultKind.ENDS and fault.done is done


def _inner(child: Child) -> Child:
    return child.inner if isinstance(child, _FaultyChild) else child


class _FaultyChild(Child):
    """A `Child` whose end is learnt late, or comes before a signal."""

    def __init__(self, inner: Child, plan: FaultPlan) -> None:
        self.inner = inner
        self._plan = plan

    @property
    def pid(self) -> int:
        return self.inner.pid

    async def wait(self) -> Exit:
        fault = self._plan.arrive("child.wait", self.pid)
        end = await self.inner.wait()
        await self._plan.befall(fault)
        return end

    def signal(self, signum: int) -> None:
        if self._plan.arrive("child.signal", self.pid):
            _end(self.inner)
        self.inner.signal(signum)

    def close(self) -> None:
        self.inner.close()


class _FaultyCgroup(Cgroup):
    def __init__(self, inner: Cgroup, plan: FaultPlan, about: int) -> None:
        self._inner = inner
        self._plan = plan
        self._about = about

    def oom_kills(self) -> int:
        return self._inner.oom_kills()

    async def oom_changed(self) -> None:
        fault = self._plan.arrive("cgroup.oom_changed", self._about)
        await _around(self._plan, fault, self._inner.oom_changed)

    def stats(self) -> Message:
        self._plan.befall_at_once(self._plan.arrive("cgroup.stats", self._about))
        return self._inner.stats()

    def pids(self) -> list[int]:
        self._plan.befall_at_once(self._plan.arrive("cgroup.pids", self._about))
        return self._inner.pids()

    def close(self) -> None:
        self._inner.close()


class _FaultyStdio(Stdio):
    def __init__(self, inner: Stdio, plan: FaultPlan, about: str) -> None:
        self.inner = inner
        self._plan = plan
        self._about = about

    @property
    def fds(self) -> Mapping[int, int]:
        return self.inner.fds

    @property
    def console_socket(self) -> str:
        return self.inner.console_socket

    async def attach(self) -> None:
        fault = self._plan.arrive("stdio.attach", self._about)
        await _around(self._plan, fault, self.inner.attach)

    def take_input(self) -> None:
        self.inner.take_input()

    def resize(self, width: int, height: int) -> None:
        self.inner.resize(width, height)

    def close_stdin(self) -> None:
        self.inner.close_stdin()

    def process_ended(self) -> None:
        self.inner.process_ended()

    async def drain(self) -> None:
        fault = self._plan.arrive("stdio.drain", self._about)
        await _around(self._plan, fault, self.inner.drain)


class FaultyKernel(Kernel):
    """`Kernel` with faults."""

    def __init__(self, inner: Kernel, plan: FaultPlan) -> None:
        self._inner = inner
        self._plan = plan

    def now(self) -> int:
        return self._inner.now()

    def birth(self) -> AbstractContextManager[None]:
        return self._inner.birth()

    def spawn(
        self,
        argv: Sequence[str],
        *,
        fds: Mapping[int, int] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Child:
        self._plan.befall_at_once(self._plan.arrive("kernel.spawn", argv[0]))
        return self._inner.spawn(argv, fds=fds, env=env)

    def kill_group(self, child: Child) -> None:
        self._inner.kill_group(_inner(child))

    def adopt(self, pid: int) -> Child:
        return self._inner.adopt(pid)

    def cgroup(self, pid: int) -> Cgroup:
        self._plan.befall_at_once(self._plan.arrive("kernel.cgroup", pid))
        return _FaultyCgroup(self._inner.cgroup(pid), self._plan, pid)

    @asynccontextmanager
    async def open_stdio(self, spec: StdioSpec) -> AsyncIterator[Stdio]:
        await self._plan.befall(self._plan.arrive("kernel.open_stdio", spec.id))
        async with self._inner.open_stdio(spec) as stdio:
            yield _FaultyStdio(stdio, self._plan, spec.id)

    async def mount(self, mounts: Sequence[Mount], target: str) -> None:
        await self._plan.befall(self._plan.arrive("kernel.mount", target))
        await self._inner.mount(mounts, target)

    async def unmount(self, target: str) -> None:
        fault = self._plan.arrive("kernel.unmount", target)
        await _around(self._plan, fault, lambda: self._inner.unmount(target))

    def make_directory(self, path: str, mode: int) -> None:
        self._plan.befall_at_once(self._plan.arrive("kernel.make_directory", path))
        self._inner.make_directory(path, mode)

    def write_file(self, path: str, data: bytes) -> None:
        self._plan.befall_at_once(self._plan.arrive("kernel.write_file", path))
        self._inner.write_file(path, data)

    async def reap_strangers(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> NoReturn:
        await self._inner.reap_strangers(task_status=task_status)


class FaultyRuntime(Runtime):
    """`Runtime` with faults; the inits that it has made can be ended by one."""

    def __init__(self, inner: Runtime, plan: FaultPlan) -> None:
        self._inner = inner
        self._plan = plan
        self._inits: dict[str, Child] = {}

    async def _verb(self, name: str, id_: str, work: Callable[[], Awaitable[None]]) -> None:
        fault = self._plan.arrive(f"runtime.{name}", id_)
        if _ends(fault, done=False):
            _end(self._inits.get(id_))
        await _around(self._plan, fault, work)
        if _ends(fault, done=True):
            _end(self._inits.get(id_))

    async def _birth(
        self,
        name: str,
        spec: ContainerSpec,
        exec_id: str,
        stdio: Stdio,
        bring: Callable[[Stdio], Awaitable[Child]],
    ) -> Child:
        fault = self._plan.arrive(f"runtime.{name}", f"{spec.id} {exec_id}".strip())
        if fault is not None and fault.kind is FaultKind.REUSES:
            self._plan.reuse_pid()
        if _ends(fault, done=False):
            _end(self._inits.get(spec.id))
        streams = stdio.inner if isinstance(stdio, _FaultyStdio) else stdio
        child = await _around(self._plan, fault, lambda: bring(streams), _abandon)
        if _ends(fault, done=True):
            _end(child)
        if not exec_id:
            self._inits[spec.id] = child
        return _FaultyChild(child, self._plan)

    async def prepare(self, spec: ContainerSpec) -> None:
        await self._verb("prepare", spec.id, lambda: self._inner.prepare(spec))

    def io_owner(self, spec: ContainerSpec) -> tuple[int, int]:
        """See `Runtime.io_owner`."""
        return self._inner.io_owner(spec)

    async def create(self, spec: ContainerSpec, stdio: Stdio) -> Child:
        bring = partial(self._inner.create, spec)
        return await self._birth("create", spec, "", stdio, bring)

    async def restore(self, spec: ContainerSpec, stdio: Stdio) -> Child:
        """See `Runtime.restore`."""
        bring = partial(self._inner.restore, spec)
        return await self._birth("restore", spec, "", stdio, bring)

    async def exec(self, spec: ContainerSpec, process: ExecSpec, stdio: Stdio) -> Child:
        """See `Runtime.exec`."""
        bring = partial(self._inner.exec, spec, process)
        return await self._birth("exec", spec, process.id, stdio, bring)

    async def start(self, spec: ContainerSpec) -> None:
        await self._verb("start", spec.id, lambda: self._inner.start(spec))

    async def kill(self, spec: ContainerSpec, init: Child, signum: int, *, all: bool) -> None:  # noqa: A002
        child = _inner(init)
        await self._verb("kill", spec.id, lambda: self._inner.kill(spec, child, signum, all=all))

    async def kill_remaining(self, spec: ContainerSpec) -> None:
        """See `Runtime.kill_remaining`."""
        await self._verb("kill_remaining", spec.id, lambda: self._inner.kill_remaining(spec))

    async def delete(self, spec: ContainerSpec, *, force: bool = False) -> None:
        await self._verb("delete", spec.id, lambda: self._inner.delete(spec, force=force))

    async def pause(self, spec: ContainerSpec) -> None:
        """See `Runtime.pause`."""
        await self._verb("pause", spec.id, lambda: self._inner.pause(spec))

    async def resume(self, spec: ContainerSpec) -> None:
        """See `Runtime.resume`."""
        await self._verb("resume", spec.id, lambda: self._inner.resume(spec))

    async def update(self, spec: ContainerSpec, resources: bytes) -> None:
        """See `Runtime.update`."""
        await self._verb("update", spec.id, lambda: self._inner.update(spec, resources))

    async def checkpoint(self, spec: ContainerSpec, checkpoint: CheckpointSpec) -> None:
        """See `Runtime.checkpoint`."""
        await self._verb("checkpoint", spec.id, lambda: self._inner.checkpoint(spec, checkpoint))


class FaultyPublisher(Publisher):
    """`Publisher` with faults."""

    def __init__(self, inner: Publisher, plan: FaultPlan) -> None:
        self._inner = inner
        self._plan = plan

    async def publish(self, envelope: Envelope) -> None:
        fault = self._plan.arrive("publisher.publish", envelope.topic)
        self._plan.check_daemon()
        await _around(self._plan, fault, lambda: self._inner.publish(envelope))

    async def aclose(self) -> None:
        await self._inner.aclose()
