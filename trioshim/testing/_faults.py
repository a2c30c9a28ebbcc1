"""What can go wrong at a call of a port: faults as data, all of them, or some drawn from a seed.

The table in here is `trioshim.abc` read as a pessimist: a call fails, takes its time or hangs
only as its contract allows, and what never raises is not in the table.  A hang of a call with a
time limit of its own (runc is killed after a minute) is the limit and then the error that tells it.
"""

from __future__ import annotations

import errno as errors
import os
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

__all__ = ["Fault", "FaultKind", "PortCall", "draw_faults", "every_fault"]

ERRORS = (errors.ENOSPC, errors.EMFILE, errors.ENOMEM, errors.EIO)
AWAY = 600.0  # virtual seconds
MOST = 4  # faults drawn for one run


class FaultKind(Enum):
    """What happens at a call.

    FAILS: an OSError.
    DIES: the runtime's command is killed in the middle.
    HANGS: no answer within the time limit; for `publish`: never.
    SLOW: the answer takes nearly as long as it may.
    AWAY: the daemon is away, for this call and all others of the next ten minutes.
    ENDS: the process that the call is about ends meanwhile.
    REUSES: the new process gets the pid that was given back last.
    """

    FAILS = "fails"
    DIES = "dies"
    HANGS = "hangs"
    SLOW = "is slow"
    AWAY = "is away"
    ENDS = "finds the process ended"
    REUSES = "reuses a pid"

    def __repr__(self) -> str:
        return f"FaultKind.{self.name}"


@dataclass(frozen=True, slots=True)
class PortCall:
    """One call of a port, as a `FaultPlan` has seen it.

    Attributes:
        number: of all calls of the run, from 1.
        name: as in `Fault.call`.
        nth: of the calls of that name, from 1.
        about: the container, exec, file or event that it is about.
    """

    number: int
    name: str
    nth: int
    about: str

    def __str__(self) -> str:
        return f"{self.number:02d}-{self.name}-{self.nth}"


@dataclass(frozen=True, slots=True)
class _Row:
    """One call: what may happen before its work (False) and after it (True), and its limits.

    Attributes:
        limit: seconds after which it is given up by its own contract.
        errnos: of what it may raise; none: no OSError.
    """

    kinds: tuple[tuple[FaultKind, bool], ...]
    limit: float = 0.0
    errnos: tuple[int, ...] = ERRORS


_FAILS, _FAILS_LATE = (FaultKind.FAILS, False), (FaultKind.FAILS, True)
_SLOW, _SLOW_LATE = (FaultKind.SLOW, False), (FaultKind.SLOW, True)
_HANGS, _HANGS_LATE = (FaultKind.HANGS, False), (FaultKind.HANGS, True)
_DIES, _DIES_LATE = (FaultKind.DIES, False), (FaultKind.DIES, True)
_ENDS, _ENDS_LATE = (FaultKind.ENDS, False), (FaultKind.ENDS, True)
_COMMAND = (_FAILS, _DIES, _DIES_LATE, _HANGS, _HANGS_LATE, _SLOW, _SLOW_LATE)
_VERB = (*_COMMAND, _ENDS, _ENDS_LATE)
_BIRTH = (*_COMMAND, _ENDS_LATE, (FaultKind.REUSES, False))
_NO_ROOM = (errors.EMFILE, errors.ENOMEM)

TABLE: Mapping[str, _Row] = {
    "runtime.prepare": _Row((_FAILS, _SLOW), 60),
    "runtime.create": _Row(_BIRTH, 120),
    "runtime.restore": _Row(_BIRTH, 120),
    "runtime.exec": _Row((*_BIRTH, _ENDS), 60),
    "runtime.start": _Row(_VERB, 60),
    "runtime.kill": _Row(_VERB, 10),
    "runtime.kill_remaining": _Row(_COMMAND, 10),
    "runtime.delete": _Row(_VERB, 60),
    "runtime.pause": _Row(_VERB, 60),
    "runtime.resume": _Row(_VERB, 60),
    "runtime.update": _Row(_VERB, 60),
    "runtime.checkpoint": _Row(_VERB, 120),
    "kernel.spawn": _Row((_FAILS,)),
    "kernel.cgroup": _Row((_FAILS,)),
    "kernel.open_stdio": _Row((_FAILS, _HANGS, _SLOW), 30),
    "kernel.mount": _Row((_FAILS, _HANGS, _SLOW), 120),
    "kernel.unmount": _Row((_FAILS, _FAILS_LATE, _HANGS, _SLOW), 30),
    "kernel.make_directory": _Row((_FAILS,)),
    "kernel.write_file": _Row((_FAILS,)),
    "child.wait": _Row((_SLOW_LATE,), 5, ()),
    "child.signal": _Row((_ENDS,), 0, ()),
    "cgroup.oom_changed": _Row((_FAILS, _SLOW_LATE), 5),
    "cgroup.stats": _Row((_FAILS,), 0, _NO_ROOM),
    "cgroup.pids": _Row((_FAILS,), 0, _NO_ROOM),
    "stdio.attach": _Row((_FAILS, _FAILS_LATE, _HANGS, _SLOW), 10),
    "stdio.drain": _Row((_SLOW,), 30, ()),
    "publisher.publish": _Row(
        (_FAILS, _FAILS_LATE, _HANGS, _SLOW, (FaultKind.AWAY, False)), 5, (errors.EMFILE,)
    ),
}


@dataclass(frozen=True, slots=True, repr=False)
class Fault:
    """What happens at which call.  Its repr is the Python that makes it again.

    Args:
        call: port and method, as "runtime.create", "kernel.mount", "publisher.publish".
        kind: what happens there.
        nth: at which call of that name, from 1.
        errno: of a call that FAILS.
        done: first the call does its work; only its answer is lost or late.  A process that it
            has made is killed before the error is told, as the contract of `Runtime` asks.
        seconds: what a SLOW or AWAY call takes; 0: nearly its limit, or ten minutes.

    Raises:
        ValueError: no such call, or this cannot happen there; the text says what can.
    """

    call: str
    kind: FaultKind
    nth: int = 1
    errno: int = 0
    done: bool = False
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.call not in TABLE:
            raise ValueError(f"no call {self.call!r}; there are {', '.join(TABLE)}")
        if self.nth < 1:
            raise ValueError(f"calls are counted from 1, not {self.nth}")
        possible = TABLE[self.call].kinds
        if (self.kind, self.done) not in possible:
            can = ", ".join(f"{kind.name}{' done' * done}" for kind, done in possible)
            here = f"{self.kind.name}{' done' * self.done}"
            raise ValueError(f"{self.call} cannot be {here} by its contract; it can be {can}")
        if (self.kind is FaultKind.FAILS) != bool(self.errno):
            raise ValueError("an errno, and only for what FAILS")

    @property
    def limit(self) -> float:
        """Virtual seconds that it adds at most, but for a `publish` that HANGS."""
        if self.kind is FaultKind.AWAY:
            return self.seconds or AWAY
        limit = TABLE[self.call].limit
        return self.seconds or 0.9 * limit if self.kind is FaultKind.SLOW else limit

    @property
    def text(self) -> str:
        """What the client or the log is told of it; "" if there is nothing to tell."""
        match self.kind:
            case FaultKind.FAILS:
                return os.strerror(self.errno)
            case FaultKind.DIES:
                return "did not terminate successfully: signal: killed"
            case FaultKind.HANGS if self.call in ("kernel.mount", "kernel.unmount"):
                return os.strerror(errors.ETIMEDOUT)
            case FaultKind.HANGS if self.call == "publisher.publish":
                return "events were not delivered"
            case FaultKind.HANGS:
                return f"{self.call} did not end within {self.limit:g} s"
            case FaultKind.AWAY:
                return "the daemon is away"
        return ""

    def __str__(self) -> str:
        what = errors.errorcode[self.errno] if self.errno else self.kind.value
        return f"{self.call} #{self.nth} {what}{', but its work was done' * self.done}"

    def __repr__(self) -> str:
        more = [
            f"{name}={getattr(self, name)!r}"
            for name, default in (("nth", 1), ("errno", 0), ("done", False), ("seconds", 0.0))
            if getattr(self, name) != default
        ]
        return f"Fault({', '.join([repr(self.call), repr(self.kind), *more])})"


def every_fault(calls: Iterable[PortCall]) -> Iterator[Fault]:
    """Each fault that can happen at each of these calls, one by one.

    Args:
        calls: of a run without faults: `FaultPlan.calls`.
    """
    for call in calls:
        row = TABLE[call.name]
        for kind, done in row.kinds:
            for number in row.errnos if kind is FaultKind.FAILS else (0,):
                yield Fault(call.name, kind, nth=call.nth, errno=number, done=done)


def draw_faults(
    draw: random.Random, calls: Iterable[PortCall], *, most: int = MOST
) -> tuple[Fault, ...]:
    """Some faults at different calls, swarm style: first which kinds are on, then where.

    With all kinds on in every run, the frequent ones hide what only the others would show.

    Args:
        draw: decides; the same state gives the same faults.
        calls: of a run without faults: `FaultPlan.calls`.
        most: 1 to that many are drawn; fewer if there are not so many calls.
    """
    kinds = list(FaultKind)
    on = set(draw.sample(kinds, draw.randint(1, len(kinds))))
    at: dict[tuple[str, int], list[Fault]] = {}
    for fault in every_fault(calls):
        if fault.kind in on:
            at.setdefault((fault.call, fault.nth), []).append(fault)
    places = draw.sample(list(at), min(len(at), draw.randint(1, most)))
    return tuple(draw.choice(at[place]) for place in places)
