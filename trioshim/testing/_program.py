"""What a `FakeRuntime` runs, and what it keeps of a container: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ._process import FakeCgroup, FakeProcess

__all__ = ["FakeContainer", "Program"]


@dataclass(frozen=True, slots=True)
class Program:
    """What a process does once it runs.

    Attributes:
        status: its exit status.
        after: virtual seconds until it ends; None: it runs until it is killed.
        ignores: signals that do nothing; SIGKILL cannot be ignored.
        handles: signals that end it in a way of its own: the number to the exit status.  The
            init of a pid namespace of its own ignores what it does not handle, as on Linux.
        missing: there is no such program: create and exec fail.
        dies: ends before the runtime's verb (`create`, `start`, `exec`) has returned.
        out_of_memory: the kernel kills it, and says so in the cgroup.
        lingers: virtual seconds that it takes to die when its container is killed (D-state).
    """

    status: int = 0
    after: float | None = None
    ignores: frozenset[int] = frozenset()
    handles: Mapping[int, int] = field(default_factory=dict)
    missing: bool = False
    dies: str = ""
    out_of_memory: bool = False
    lingers: float = 0.0


@dataclass(slots=True, eq=False)
class FakeContainer:
    """What the runtime keeps of a container.

    Attributes:
        own_pid_namespace: init's end takes the execs with it.
        started: init runs its program.
        processes: its execs.
    """

    init: FakeProcess
    cgroup: FakeCgroup
    program: Program
    own_pid_namespace: bool = True
    started: bool = False
    processes: list[tuple[FakeProcess, Program]] = field(default_factory=list)

    @property
    def stopped(self) -> bool:
        return self.init.status is not None

    @property
    def paused(self) -> bool:
        return self.cgroup.frozen and not self.stopped
