"""FakeKernel: processes, zombies, cgroups, mounts and files as data; no root, no clock of its own.

It keeps the promises of `trioshim.abc.Kernel` and Linux's habits that matter to a shim: an ended
child is a zombie until it is collected, a collected pid is given away again soon (`pid_max`
makes that as soon as you like), an orphan becomes ours.  `tests/contract` runs the same cases on
it and on Linux.  Time stamps count calls, so they are strictly rising and reproducible.
"""

from __future__ import annotations

import errno
import signal as signals
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import NoReturn

import trio

from ..abc import Cgroup, Child, Exit, Kernel, Mount, Stdio, StdioSpec
from ._process import FakeCgroup, FakeChild, FakeProcess, OpenCgroup
from ._stdio import FakeStdio

__all__ = ["KILLED", "FakeKernel"]

KILLED = 128 + signals.SIGKILL
_START = 1_700_000_000_000_000_000  # ns: the first stamp
# What a process that has no handler for them does not notice, or what only stops it.
_HARMLESS = frozenset(
    {0, signals.SIGCHLD, signals.SIGCONT, signals.SIGURG, signals.SIGWINCH}
    | {signals.SIGSTOP, signals.SIGTSTP, signals.SIGTTIN, signals.SIGTTOU}
)


class FakeKernel(Kernel):
    """`Kernel` in memory.

    Args:
        pid_max: pids are 2 to this; a small one makes every pid come again soon (P7).
        program: says what a spawned program does: called with the kernel and the new process,
            which it may `end` now or later.  None: it runs until it is killed.  If it raises
            an OSError, the program could not be started.

    Attributes:
        processes: those that exist, zombies too, by pid.
        mounts: targets, one entry for each layer.
        files: what `write_file` has written.
        directories: what `make_directory` has made.
        stdios: open ones.
        cgroups: open ones.
        faults: an exception for the next call of a method, by the method's name; "attach" is
            the one of `Stdio`.
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
        self.cgroups: list[OpenCgroup] = []
        self.faults: dict[str, Exception] = {}
        self._pid_max = pid_max
        self._program = program
        self._last_pid = 1
        self._freed = 0
        self._owned: set[FakeProcess] = set()
        self._births = 0
        self._stamps = 0
        self._wake = trio.Event()

    # ------------------------------------------------------------ the world's side

    def fork(
        self,
        *,
        ours: bool = True,
        cgroup: FakeCgroup | None = None,
        namespace: FakeProcess | None = None,
    ) -> FakeProcess:
        """A new process that nobody spawned: a container's, or an orphan to be.

        Args:
            ours: a child of the shim.
            cgroup: the cgroup that it is in.
            namespace: the init of the pid namespace that it is in.
        """
        process = FakeProcess(self._free_pid(), ours=ours, cgroup=cgroup, namespace=namespace)
        self.processes[process.pid] = process
        if cgroup is not None:
            cgroup.members.add(process)
        if namespace is not None:
            namespace.members.add(process)
        return process

    def end(self, process: FakeProcess, status: int) -> None:
        """It ends now, or when its namespace is empty; nothing to do if it has."""
        if process.status is not None:
            return
        process.status = status
        if process.on_end is not None:
            process.on_end()
        self._finish(process)

    def _finish(self, process: FakeProcess) -> None:
        # The init of a pid namespace ends when all others in it have been collected.
        if process.status is None or process.exit is not None or process.members:
            return
        process.exit = Exit(process.status, self.now())
        if process.cgroup is not None:
            process.cgroup.members.discard(process)
        if not process.ours:
            self._collect(process)  # by its own parent
        process.tell()
        self._wake.set()

    def orphan(self, process: FakeProcess) -> None:
        """Its parent has ended: it is ours now."""
        process.ours = True

    def signal(self, process: FakeProcess, signum: int) -> None:
        """A signal arrives.  A frozen process gets it when it thaws, but SIGKILL at once."""
        if signum == signals.SIGKILL:
            self.end(process, KILLED)
        elif process.cgroup is not None and process.cgroup.frozen:
            process.cgroup.pending.append((process, signum))
        elif signum in process.handles:
            self.end(process, process.handles[signum])
        elif not (process.is_init or signum in process.ignores or signum in _HARMLESS):
            self.end(process, 128 + signum)

    def break_reaper(self, error: Exception) -> None:
        """`reap_strangers` raises this now: a bug, for it has nothing to raise."""
        self.faults["reap_strangers"] = error
        self._wake.set()

    def thaw(self, cgroup: FakeCgroup) -> None:
        """Its processes go on; signals that have waited for that arrive."""
        cgroup.frozen = False
        cgroup.thawed.set()
        cgroup.thawed = trio.Event()
        pending, cgroup.pending = cgroup.pending, []
        for process, signum in pending:
            self.signal(process, signum)

    def reuse_pid(self) -> None:
        """The next process gets the pid that was given back last, if there was one."""
        if self._freed:
            self._last_pid = self._freed - 1

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
            try:
                self._program(self, process)
            except OSError:
                child.close()
                del self.processes[process.pid]
                raise
        return child

    def kill_group(self, child: Child) -> None:
        # Once it is collected, its pid may be another's.
        if isinstance(child, FakeChild) and child.owned:
            self.end(child.process, KILLED)

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

    def _collect(self, process: FakeProcess) -> Exit:
        assert process.exit is not None
        del self.processes[process.pid]
        self._freed = process.pid
        if process.namespace is not None:
            process.namespace.members.discard(process)
            self._finish(process.namespace)
        return Exit(process.exit.status, self.now())

    def _disown(self, process: FakeProcess) -> None:
        self._owned.discard(process)
        self._wake.set()

    def cgroup(self, pid: int) -> Cgroup:
        self._fail("cgroup")
        process = self.processes.get(pid)
        if process is None or process.cgroup is None:
            raise OSError(errno.ESRCH, f"process {pid} is in no cgroup")
        return OpenCgroup(process.cgroup, self.cgroups)

    def open_stdio(self, spec: StdioSpec) -> AbstractAsyncContextManager[Stdio]:
        return FakeStdio(spec, self.stdios, self._fail)

    async def mount(self, mounts: Sequence[Mount], target: str) -> None:
        await trio.lowlevel.checkpoint()
        self._fail("mount")
        self.mounts += [target] * len(mounts)

    async def unmount(self, target: str) -> None:
        await trio.lowlevel.checkpoint()
        self._fail("unmount")
        self.mounts[:] = [
            mount for mount in self.mounts if mount != target and not mount.startswith(f"{target}/")
        ]

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
            self._fail("reap_strangers")
            if not self._births:
                for process in list(self.processes.values()):
                    if process.ours and process.exit is not None and process not in self._owned:
                        self._collect(process)
            await self._wake.wait()
