"""FakeKernel: processes, zombies, cgroups, mounts and files as data; no root, no clock of its own.

It keeps the promises of `trioshim.abc.Kernel` and Linux's habits that matter to a shim: an ended
child is a zombie until it is collected, a collected pid is given away again soon (`pid_max`
makes that as soon as you like), an orphan becomes ours.  `tests/contract` runs the same cases on
it and on Linux.  Time stamps count calls, so they are strictly rising and reproducible.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

import trio
from google.protobuf.message import Message

from ..abc import Cgroup, Child, Exit, Kernel, Mount, Stdio, StdioSpec
from ..proto import cgroups_v1_pb2
from ._stdio import FakeStdio

__all__ = ["FakeCgroup", "FakeChild", "FakeKernel", "FakeProcess"]

_START = 1_700_000_000_000_000_000  # ns: the first stamp


@dataclass(slots=True, eq=False)
class FakeProcess:
    """One process: runs until `exit` is set, is a zombie until it is collected.

    Attributes:
        ours: a child of the shim; others become ours when their parent ends (`orphan`).
        ignores: signals that do nothing.
        on_end: called when it ends; how a container takes its processes with it.
    """

    pid: int
    argv: tuple[str, ...] = ()
    ours: bool = True
    cgroup: FakeCgroup | None = None
    ignores: frozenset[int] = frozenset()
    exit: Exit | None = None
    ended: trio.Event = field(default_factory=trio.Event)
    on_end: Callable[[], None] | None = None


class FakeCgroup(Cgroup):
    """A cgroup: some processes and a counter of kills."""

    def __init__(self) -> None:
        self.members: set[FakeProcess] = set()
        self.kills = 0
        self.opened = 0
        self._changed = trio.Event()
        self._removed = False

    def kill_for_memory(self) -> None:
        """What the kernel notes when it has killed a process here; end the process yourself."""
        self.kills += 1
        self._wake()

    def remove(self) -> None:
        self._removed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def oom_kills(self) -> int:
        return self.kills

    async def oom_changed(self) -> None:
        if self._removed:
            raise OSError(errno.ENODEV, "the cgroup was removed")
        await self._changed.wait()

    def stats(self) -> Message:
        metrics = cgroups_v1_pb2.Metrics()
        metrics.pids.current = len(self.members)
        metrics.memory_oom_control.oom_kill = self.kills
        return metrics

    def pids(self) -> list[int]:
        return sorted(process.pid for process in self.members)

    def close(self) -> None:
        self.opened -= 1


class FakeChild(Child):
    """The name that a `FakeKernel` gives to one of its processes."""

    def __init__(
        self,
        process: FakeProcess,
        *,
        collect: Callable[[FakeProcess], None],
        disown: Callable[[FakeProcess], None],
        signal: Callable[[FakeProcess, int], None],
    ) -> None:
        self.process = process
        self._collect = collect
        self._disown = disown
        self._signal = signal
        self._owned = True

    @property
    def pid(self) -> int:
        return self.process.pid

    async def wait(self) -> Exit:
        if not self._owned and self.process.exit is None:
            raise trio.ClosedResourceError("this child was let go of")
        await self.process.ended.wait()
        assert self.process.exit is not None
        if self._owned:
            self._collect(self.process)
            self.close()
        return self.process.exit

    def signal(self, signum: int) -> None:
        if not self._owned:
            raise ProcessLookupError(f"process {self.pid} has ended")
        self._signal(self.process, signum)

    def close(self) -> None:
        if self._owned:
            self._owned = False
            self._disown(self.process)


class FakeKernel(Kernel):
    """`Kernel` in memory.

    Args:
        pid_max: pids are 2 to this; a small one makes every pid come again soon (P7).
        program: says what a spawned program does: called with the kernel and the new process,
            which it may `end` now or later.  None: it runs until it is killed.

    Attributes:
        processes: those that exist, zombies too, by pid.
        mounts: targets, one entry for each layer.
        files: what `write_file` has written.
        directories: what `make_directory` has made.
        stdios: open ones.
        faults: an exception for the next call of a method, by the method's name.
    """

    def __init__(
        self,
        *,
        pid_max: int = 32768,
        program: Callable[[FakeKernel, FakeProcess], None] | None = None,
    ) -> None:
        self.processes: dict[int, FakeProcess] = {}
        self.mounts: list[str] = []
        self.files: dict[str, bytes] = {}
        self.directories: set[str] = set()
        self.stdios: list[FakeStdio] = []
        self.faults: dict[str, Exception] = {}
        self._pid_max = pid_max
        self._program = program
        self._last_pid = 1
        self._owned: set[FakeProcess] = set()
        self._births = 0
        self._stamps = 0
        self._wake = trio.Event()

    # ------------------------------------------------------------ the world's side

    def fork(self, *, ours: bool = True, cgroup: FakeCgroup | None = None) -> FakeProcess:
        """A new process that nobody spawned: a container's, or an orphan to be."""
        process = FakeProcess(self._free_pid(), ours=ours, cgroup=cgroup)
        self.processes[process.pid] = process
        if cgroup is not None:
            cgroup.members.add(process)
        return process

    def end(self, process: FakeProcess, status: int) -> None:
        """It ends now; nothing to do if it has."""
        if process.exit is not None:
            return
        process.exit = Exit(status, self.now())
        if process.cgroup is not None:
            process.cgroup.members.discard(process)
        if not process.ours:
            del self.processes[process.pid]  # its own parent has collected it
        process.ended.set()
        self._wake.set()
        if process.on_end is not None:
            process.on_end()

    def orphan(self, process: FakeProcess) -> None:
        """Its parent has ended: it is ours now."""
        process.ours = True

    def signal(self, process: FakeProcess, signum: int) -> None:
        """A signal arrives."""
        if signum and signum not in process.ignores:
            self.end(process, 128 + signum)

    def _free_pid(self) -> int:
        for _ in range(self._pid_max):
            self._last_pid = 2 + (self._last_pid - 1) % (self._pid_max - 1)
            if self._last_pid not in self.processes:
                return self._last_pid
        raise BlockingIOError(errno.EAGAIN, "no free pid")

    # ------------------------------------------------------------ the port

    def now(self) -> int:
        self._stamps += 1
        return _START + self._stamps

    @contextmanager
    def birth(self) -> Iterator[None]:
        self._births += 1
        try:
            yield
        finally:
            self._births -= 1
            self._wake.set()

    def spawn(
        self,
        argv: Sequence[str],
        *,
        fds: Mapping[int, int] | None = None,  # noqa: ARG002 (a fake program has no fds)
        env: Mapping[str, str] | None = None,  # noqa: ARG002 (nor an environment)
    ) -> Child:
        self._fail("spawn")
        process = self.fork()
        process.argv = tuple(argv)
        child = self._own(process)
        if self._program is not None:
            self._program(self, process)
        return child

    def kill_group(self, child: Child) -> None:
        process = self.processes.get(child.pid)
        if process in self._owned and process is not None:
            self.end(process, 128 + 9)

    def adopt(self, pid: int) -> Child:
        if not self._births:
            raise RuntimeError("adopt() outside of birth(): the pid may be another process by now")
        process = self.processes.get(pid)
        if process is None or not process.ours:
            raise ProcessLookupError(errno.ESRCH, f"process {pid} is not a child of ours")
        if process in self._owned:
            raise RuntimeError(f"process {pid} has an owner already")
        return self._own(process)

    def _own(self, process: FakeProcess) -> FakeChild:
        self._owned.add(process)
        return FakeChild(process, collect=self._collect, disown=self._disown, signal=self.signal)

    def _collect(self, process: FakeProcess) -> None:
        del self.processes[process.pid]

    def _disown(self, process: FakeProcess) -> None:
        self._owned.discard(process)
        self._wake.set()

    def cgroup(self, pid: int) -> Cgroup:
        self._fail("cgroup")
        process = self.processes.get(pid)
        if process is None or process.cgroup is None:
            raise OSError(errno.ESRCH, f"process {pid} is in no cgroup")
        process.cgroup.opened += 1
        return process.cgroup

    def open_stdio(self, spec: StdioSpec) -> AbstractAsyncContextManager[Stdio]:
        self._fail("open_stdio")
        return FakeStdio(spec, self.stdios)

    async def mount(self, mounts: Sequence[Mount], target: str) -> None:
        await trio.lowlevel.checkpoint()
        self._fail("mount")
        self.mounts += [target] * len(mounts)

    async def unmount(self, target: str) -> None:
        await trio.lowlevel.checkpoint()
        self._fail("unmount")
        self.mounts[:] = [mount for mount in self.mounts if mount != target]

    def make_directory(self, path: str, mode: int) -> None:  # noqa: ARG002 (no modes here)
        self._fail("make_directory")
        self.directories.add(path)

    def write_file(self, path: str, data: bytes) -> None:
        self._fail("write_file")
        self.files[path] = data

    def _fail(self, call: str) -> None:
        fault = self.faults.pop(call, None)
        if fault is not None:
            raise fault

    async def reap_strangers(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> NoReturn:
        task_status.started()
        while True:
            self._wake = trio.Event()
            if not self._births:
                for process in list(self.processes.values()):
                    if process.ours and process.exit is not None and process not in self._owned:
                        self._collect(process)
            await self._wake.wait()
