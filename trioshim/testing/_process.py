"""Processes and cgroups as data: what a `FakeKernel` moves about.

A process runs until `exit` is set and is a zombie until somebody collects it.  The init of a pid
namespace has two habits of Linux that shims run into: it shrugs off every signal that it has no
handler for (but SIGKILL), and it cannot end before all others in its namespace are collected.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio
from google.protobuf.message import Message

from ..abc import Cgroup, Child, Exit
from ..proto import cgroups_v1_pb2

__all__ = ["FakeCgroup", "FakeChild", "FakeProcess", "OpenCgroup"]


@dataclass(slots=True, eq=False)
class FakeProcess:
    """One process.

    Attributes:
        ours: a child of the shim; others become ours when their parent ends (`orphan`).
        ignores: signals that do nothing; SIGKILL cannot be ignored.
        handles: signals that end it in a way of its own: the number to the exit status.
        is_init: the first of a pid namespace.
        members: the others of that namespace that nobody has collected yet.
        namespace: the init of the namespace that it is in.
        on_end: called when it begins to end; how a container takes its processes with it.
        status: how it will have ended; set when it begins to end.
        exit: how it has ended.
        news: set and replaced when it has ended, and when its owner lets go of it.
    """

    pid: int
    argv: tuple[str, ...] = ()
    ours: bool = True
    cgroup: FakeCgroup | None = None
    ignores: frozenset[int] = frozenset()
    handles: Mapping[int, int] = field(default_factory=dict)
    is_init: bool = False
    members: set[FakeProcess] = field(default_factory=set)
    namespace: FakeProcess | None = None
    on_end: Callable[[], None] | None = None
    status: int | None = None
    exit: Exit | None = None
    news: trio.Event = field(default_factory=trio.Event)

    def tell(self) -> None:
        """Wake who waits for news."""
        self.news.set()
        self.news = trio.Event()


class FakeCgroup:
    """A cgroup: some processes, a counter of kills, and a freezer.

    Attributes:
        members: its processes, without zombies.
        kills: how many were killed for memory.
        frozen: its processes stand still: signals wait, but SIGKILL does not.
        pending: signals that wait for the thaw.
    """

    def __init__(self) -> None:
        self.members: set[FakeProcess] = set()
        self.kills = 0
        self.frozen = False
        self.pending: list[tuple[FakeProcess, int]] = []
        self.removed = False
        self.changed = trio.Event()
        self.thawed = trio.Event()

    def kill_for_memory(self) -> None:
        """What the kernel notes when it has killed a process here; end the process yourself."""
        self.kills += 1
        self.wake()

    def remove(self) -> None:
        """It is gone; who has it open knows what was seen last, and no more."""
        self.removed = True
        self.wake()

    def wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


class OpenCgroup(Cgroup):
    """A `FakeCgroup` as its reader holds it."""

    def __init__(self, cgroup: FakeCgroup, opened: list[OpenCgroup]) -> None:
        self._cgroup: FakeCgroup | None = cgroup
        self._seen = 0
        self._opened = opened
        opened.append(self)

    def _there(self) -> FakeCgroup | None:
        return None if self._cgroup is None or self._cgroup.removed else self._cgroup

    def oom_kills(self) -> int:
        cgroup = self._there()
        if cgroup is not None:
            self._seen = cgroup.kills
        return self._seen

    async def oom_changed(self) -> None:
        await trio.lowlevel.checkpoint()
        before = self._seen
        while self.oom_kills() == before:
            cgroup = self._there()
            if cgroup is None:
                raise OSError(errno.ENODEV, "the cgroup is gone or closed")
            await cgroup.changed.wait()

    def stats(self) -> Message:
        metrics = cgroups_v1_pb2.Metrics()
        cgroup = self._there()
        if cgroup is not None:
            metrics.pids.current = len(cgroup.members)
            metrics.memory_oom_control.oom_kill = cgroup.kills
        return metrics

    def pids(self) -> list[int]:
        cgroup = self._there()
        return [] if cgroup is None else sorted(process.pid for process in cgroup.members)

    def close(self) -> None:
        if self._cgroup is not None:
            cgroup, self._cgroup = self._cgroup, None
            self._opened.remove(self)
            cgroup.wake()


class FakeChild(Child):
    """The name that a `FakeKernel` gives to one of its processes."""

    def __init__(
        self,
        process: FakeProcess,
        *,
        collect: Callable[[FakeProcess], Exit],
        disown: Callable[[FakeProcess], None],
        signal: Callable[[FakeProcess, int], None],
    ) -> None:
        self.process = process
        self._collect = collect
        self._disown = disown
        self._signal = signal
        self._owned = True
        self._waiting = False
        self._exit: Exit | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def owned(self) -> bool:
        """Nobody else may collect it: true until it is collected or let go of."""
        return self._owned

    async def wait(self) -> Exit:
        """See `Child.wait`.

        Raises:
            trio.ClosedResourceError: it was let go of with `close`.
            trio.BusyResourceError: another task waits.
        """
        if self._exit is None:
            await self._wait_for_end()
        else:
            await trio.lowlevel.checkpoint()
        assert self._exit is not None
        return self._exit

    async def _wait_for_end(self) -> None:
        if self._waiting:
            raise trio.BusyResourceError("another task waits for this child")
        self._waiting = True
        try:
            await trio.lowlevel.checkpoint()
            while self._owned and self.process.exit is None:
                await self.process.news.wait()
        finally:
            self._waiting = False
        if not self._owned:
            raise trio.ClosedResourceError("this child was let go of")
        # Nothing can be cancelled between collecting and storing: an exit is never lost.
        self._exit = self._collect(self.process)
        self.close()

    def signal(self, signum: int) -> None:
        if not self._owned:
            raise ProcessLookupError(f"process {self.pid} has ended")
        self._signal(self.process, signum)

    def close(self) -> None:
        if self._owned:
            self._owned = False
            self.process.tell()
            self._disown(self.process)
