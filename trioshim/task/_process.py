"""A process as the service sees it: born, started, ended, deleted.

Plain data and one rule: every change is made between two checkpoints, together with the event
that tells it, so nobody can see one without the other.  Reads need no lock (law 7).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from ..abc import Child, ExecSpec, Exit, Stdio, StdioSpec
from ._states import State, Table, Verb, after

__all__ = ["Ended", "Process"]


@dataclass(frozen=True, slots=True)
class Ended:
    """What Delete and Wait answer: pid, and the exit if there was one."""

    pid: int
    exit: Exit | None


@dataclass(slots=True, eq=False)
class Process:
    """The init of a container, or one exec.

    Attributes:
        id: the container's id, or the exec's.
        io: the streams as the client named them.
        table: which verb is for which state.
        spec: what to run; for an exec only.
        child: the living process, once there is one.
        stdio: its streams, once they are open.
        exit: how it ended.
        exited: set when `exit` is, or when there will be none (a failed Start, a Delete).
        deleted: set when nobody needs its streams any more.
        changing: held while a request changes its state.
        patience: how long the container waits for it after init has ended.
        size: the last size asked for a terminal that is not there yet (P38).
    """

    id: str
    io: StdioSpec
    table: Table
    spec: ExecSpec | None = None
    state: State = State.CREATED
    child: Child | None = None
    stdio: Stdio | None = None
    exit: Exit | None = None
    exited: trio.Event = field(default_factory=trio.Event)
    deleted: trio.Event = field(default_factory=trio.Event)
    changing: trio.Lock = field(default_factory=trio.Lock)
    patience: trio.CancelScope = field(default_factory=trio.CancelScope)
    size: tuple[int, int] | None = None
    stdin_closed: bool = False

    @property
    def pid(self) -> int:
        return self.child.pid if self.child is not None else 0

    @property
    def ended(self) -> Ended:
        return Ended(self.pid, self.exit)

    def check(self, verb: Verb) -> None:
        """Raise the refusal if this verb is not for this state."""
        after(self.table, self.state, verb)

    def did(self, verb: Verb) -> None:
        """The verb has taken effect."""
        self.state = after(self.table, self.state, verb)

    def has_streams(self, stdio: Stdio) -> None:
        """The streams are open: tell them what was asked before they were."""
        self.stdio = stdio
        if self.size is not None:
            stdio.resize(*self.size)
        if self.stdin_closed:
            stdio.close_stdin()

    def resize(self, width: int, height: int) -> None:
        self.check(Verb.RESIZE)
        self.size = (width, height)
        if self.stdio is not None:
            self.stdio.resize(width, height)

    def close_stdin(self) -> None:
        self.stdin_closed = True
        if self.stdio is not None:
            self.stdio.close_stdin()

    def release_waiters(self) -> None:
        """There is no exit to wait for; a later Start may bring one."""
        self.exited.set()
        self.exited = trio.Event()
