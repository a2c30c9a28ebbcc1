"""What each step of a container's life takes: our shim beside Go's, with the same runc.

    python -m benchmarks.life [ROUNDS] [--cpu]

Kinds take turns: in every round each lives one life, from the verb `start` to the verb `delete`,
with a rootfs that is mounted, stdout and stderr in fifos, and one exec.  The client is a blocking
socket, and the daemon's part two threads that sleep.

*Exit* is the time from the real end of init, which a pidfd tells us, to its TaskExit here.
*Whole life* is all of it by the clock, with what no step has a name for.
With --cpu: the processor time of the shim in each step instead (looking takes time too).
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

from google.protobuf.any_pb2 import Any

from trioshim.proto import task_v2_pb2 as api

from ._daemon import Daemon, open_daemon, prompt
from ._figures import Held, Spread, cpu_of, in_turns, machine
from ._report import Report, table
from ._shims import COLD, GO_V1, GO_V2, WARM, Kind, Place, Shim, kinds_here, open_place, warm_up

__all__ = ["lives", "measure"]

WHOLE, CPU = "whole life", "processor time of the shim"
PHASES = (
    "`start`",
    "first answer",
    "Create",
    "Start",
    "exec of `true`",
    "exit to TaskExit",
    "Wait and Delete",
    "Shutdown",
    "`delete`",
)
START, FIRST, CREATE, BEGIN, EXEC, EXIT, DELETE, SHUTDOWN, CLEANUP = PHASES
_ROUNDS = 20
_PAUSE = 0.3  # seconds: the template's next spare, and Go's garbage
_LIMIT = 30
_EXEC = "true"
Life = Mapping[str, float]  # milliseconds by phase


@dataclass
class _Laps:
    """Milliseconds, or those of the shim's processor time, from one step to the next."""

    of_cpu: bool
    pid: int = 0
    took: dict[str, float] = field(default_factory=dict)
    _last: float = 0.0

    def begin(self) -> None:
        """What was before is in no step."""
        self._last = self._now()

    def lap(self, name: str) -> None:
        """A step is over, and the next begins."""
        self.took[name] = self._now() - self._last
        self._last = self._now()

    def _now(self) -> float:
        return cpu_of(self.pid) / 1e6 if self.of_cpu else time.perf_counter_ns() / 1e6


@contextmanager
def _streams(place: Place, name: str) -> Iterator[dict[str, str | bool]]:
    """Fifos for stdout and stderr; the fields of a request that name them."""
    with place.fifo(f"{name}.o") as (stdout, _), place.fifo(f"{name}.e") as (stderr, _):
        yield {"stdout": stdout, "stderr": stderr}


def live(kind: Kind, place: Place, daemon: Daemon, name: str, *, of_cpu: bool = False) -> Life:
    """One life; what each step took.

    Raises:
        ValueError, TimeoutError, subprocess.SubprocessError: the shim does not do as it is told.
    """
    bundle = place.bundle(name)
    with _streams(place, name) as streams, _streams(place, f"{name}-exec") as exec_streams:
        begun = time.perf_counter_ns()
        shim = Shim(kind, place, bundle)
        laps = _Laps(of_cpu, shim.pid)
        laps.took |= {START: shim.started, FIRST: shim.answered}
        if of_cpu:
            laps.took = {FIRST: cpu_of(shim.pid) / 1e6}
        laps.begin()
        init = shim.create(fields=streams)
        laps.lap(CREATE)
        shim.start()
        laps.lap(BEGIN)
        _exec(shim, exec_streams, laps)
        _end(shim, init, daemon, laps)
        if not of_cpu:
            laps.took[WHOLE] = (time.perf_counter_ns() - begun) / 1e6
    place.forget(name)
    return laps.took


def _exec(shim: Shim, streams: Mapping[str, str | bool], laps: _Laps) -> None:
    spec = Any(value=json.dumps(shim.place.process("true")).encode())
    request = api.ExecProcessRequest(id=shim.id, exec_id=_EXEC, spec=spec)
    for name, value in streams.items():
        setattr(request, name, value)
    laps.begin()
    shim.call("Exec", request)
    shim.call("Start", api.StartRequest(id=shim.id, exec_id=_EXEC))
    shim.call("Wait", api.WaitRequest(id=shim.id, exec_id=_EXEC))
    laps.lap(EXEC)
    shim.call("Delete", api.DeleteRequest(id=shim.id, exec_id=_EXEC))


def _end(shim: Shim, init: int, daemon: Daemon, laps: _Laps) -> None:
    with os.fdopen(os.pidfd_open(init)) as ended:
        laps.begin()
        with prompt():
            signal.pidfd_send_signal(ended.fileno(), signal.SIGKILL)
            select.select([ended], [], [], _LIMIT)
            real = time.perf_counter_ns()
    told = daemon.exit_of(shim.id).at
    laps.lap(EXIT)
    if not laps.of_cpu:
        laps.took[EXIT] = (told - real) / 1e6
    shim.call("Wait", api.WaitRequest(id=shim.id))
    shim.call("Delete", api.DeleteRequest(id=shim.id))
    laps.lap(DELETE)
    laps.took[CPU] = cpu_of(shim.pid) / 1e6
    if laps.of_cpu:
        shim.end()
        return
    laps.begin()
    shim.end()
    laps.lap(SHUTDOWN)
    shim.delete()
    laps.lap(CLEANUP)


def lives(kinds: Sequence[Kind], rounds: int, *, of_cpu: bool = False) -> dict[str, list[Life]]:
    """One life of each kind in each round; the round begins with another one each time."""
    found: dict[str, list[Life]] = {kind.name: [] for kind in kinds}
    with open_place() as place, open_daemon(place.daemon) as daemon:
        warm_up(kinds, place)
        for kind in kinds:
            live(kind, place, daemon, f"first-{kinds.index(kind)}")
        for number in range(rounds):
            for kind in in_turns(kinds, number):
                name = f"c{number}-{kinds.index(kind)}"
                found[kind.name].append(live(kind, place, daemon, name, of_cpu=of_cpu))
                time.sleep(_PAUSE)
    return found


# ---------------------------------------------------------------- figures


def _of(lives: Sequence[Life], phase: str) -> list[float]:
    return [life[phase] for life in lives]


def _ratio(found: Mapping[str, list[Life]], mine: Kind, other: Kind, phase: str) -> Spread:
    return Spread.of_ratios(_of(found[mine.name], phase), _of(found[other.name], phase))


def lines(found: Mapping[str, list[Life]]) -> tuple[str, ...]:
    """A table: the medians of all kinds, then the ratios of ours to Go's."""
    pairs = [
        (mine, other)
        for mine in (WARM, COLD)
        for other in (GO_V1, GO_V2)
        if mine.name in found and other.name in found
    ]
    head = ["ms", *found, *(f"{mine.name} × {other.name}" for mine, other in pairs)]
    rows = []
    for phase in next(iter(found.values()))[0]:
        figures = [f"{median(_of(lives, phase)):.2f}" for lives in found.values()]
        ratios = [str(_ratio(found, mine, other, phase)) for mine, other in pairs]
        rows.append([phase, *figures, *ratios])
    return table(head, rows)


ASKED = (
    ("whole life, warm", WARM, WHOLE, 1.05),
    ("exec of `true`", WARM, EXEC, 1.0),
    ("exit to TaskExit", WARM, EXIT, 1.0),
)


def measure(*, quick: bool, rounds: int = 0) -> tuple[Report, list[Held]]:
    """The table, and the ratios that are held against something.

    Args:
        quick: few rounds, for a look.
        rounds: so many, whatever `quick` says.
    """
    rounds = rounds or (3 if quick else _ROUNDS)
    found = lives(kinds_here(), rounds)
    held = [
        Held(what, _ratio(found, mine, GO_V1, phase), most, GO_V1.name)
        for what, mine, phase, most in ASKED
        if mine.name in found and GO_V1.name in found
    ]
    text = (*lines(found), "", f"{rounds} rounds on {machine(['trio', 'protobuf'])}")
    return Report("A container's life", text, tuple(each.verdict() for each in held)), held


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.life", description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=_ROUNDS)
    parser.add_argument("--cpu", action="store_true", help="processor time of the shim instead")
    told = parser.parse_args()
    kinds = kinds_here()
    if not kinds:
        sys.exit("benchmarks.life: no shim can be measured here")
    print("\n".join(lines(lives(kinds, told.rounds, of_cpu=told.cpu))))
    print(f"\n{told.rounds} rounds on {machine(['trio', 'protobuf'])}")


if __name__ == "__main__":
    main()
