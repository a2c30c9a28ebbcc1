"""What a gibibyte through a container's streams costs: our shim beside Go's.

    python -m benchmarks.stdio [ROUNDS] [--mib N]

In every round each shim has one container for each direction.  The benchmark is at the other end of
the fifo and moves the bytes by splice between it and /dev/null or /dev/zero, which costs it little.

*stdout, cat*: the container has a file in memory sent to its stdout, so that the shim is the limit.
*stdout, dd*: it writes blocks of 64 KiB, as a program would.
*stdin*: it reads blocks of 64 KiB to the end.
*terminal*: dd again, with a terminal between; a quarter of the bytes.

The time is from the first bytes to the last; processor time is that of all the shim's threads.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from statistics import median
from typing import BinaryIO

from trioshim.proto import task_v2_pb2 as api

from ._daemon import open_daemon
from ._figures import Held, Spread, cpu_of, in_turns, machine
from ._report import Report, table
from ._shims import COLD, GO_V1, GO_V2, Kind, Place, Shim, kinds_here, open_place

__all__ = ["Flow", "Way", "measure"]

KINDS = (GO_V1, GO_V2, COLD)
_MIB, _GIB = 1 << 20, 1 << 30
_ROUNDS, _SIZE = 7, 1024  # MiB
_FILE = 128  # MiB of it in the rootfs
_CHUNK = 1 << 20
_LIMIT = 120  # seconds for all the bytes to come


class Way(Enum):
    """Where the bytes go."""

    CAT = "stdout, cat"
    DD = "stdout, dd"
    STDIN = "stdin"
    TERMINAL = "terminal"


# Go's shims want stderr wherever there is stdout, but for a terminal.
_STREAMS = {
    Way.CAT: ("stdout", "stderr"),
    Way.DD: ("stdout", "stderr"),
    Way.STDIN: ("stdin", "stdout", "stderr"),
    Way.TERMINAL: ("stdout",),
}


@dataclass(frozen=True, slots=True)
class Flow:
    """What a gibibyte took: seconds, and those of the shim's processor time."""

    seconds: float
    cpu: float


Flows = dict[str, dict[Way, list[Flow]]]  # by the name of the kind


def _program(way: Way, mib: int) -> tuple[str, ...]:
    if way is Way.CAT:
        return ("cat", *["/zeros"] * (mib // _FILE))
    if way is Way.STDIN:
        return ("dd", "of=/dev/null", "bs=64k")
    return ("dd", "if=/dev/zero", "bs=64k", f"count={mib * 16}")


def flow(kind: Kind, place: Place, name: str, way: Way, mib: int) -> Flow:
    """So many MiB through a new container of a new shim.

    Raises:
        TimeoutError: nothing comes any more.
        ValueError: the shim refuses a call.
    """
    terminal = way is Way.TERMINAL
    mib = mib // 4 if terminal else mib
    shim = Shim(kind, place, place.bundle(name, *_program(way, mib), terminal=terminal))
    with ExitStack() as fifos:
        paths, ends = {}, {}
        for stream in _STREAMS[way]:
            paths[stream], ends[stream] = fifos.enter_context(place.fifo(f"{name}.{stream}"))
        init = shim.create(fields={"terminal": terminal, **paths})
        shim.start()
        cpu = cpu_of(shim.pid)
        if way is Way.STDIN:
            seconds = _give(shim, init, ends["stdin"], mib)
        else:
            seconds = _take(ends["stdout"], mib)
        cpu = cpu_of(shim.pid) - cpu
    shim.call("Wait", api.WaitRequest(id=shim.id))
    shim.call("Delete", api.DeleteRequest(id=shim.id))
    shim.end()
    place.forget(name)
    part = mib * _MIB / _GIB
    return Flow(seconds / part, cpu / 1e9 / part)


def _take(end: BinaryIO, mib: int) -> float:
    """Read so much; the seconds since the first bytes were there."""
    left, begun = mib * _MIB, 0.0
    with open("/dev/null", "wb", buffering=0) as nowhere:
        while left:
            if not select.select([end], [], [], _LIMIT)[0]:
                raise TimeoutError(f"{left} bytes do not come")
            begun = begun or time.perf_counter()
            left -= os.splice(end.fileno(), nowhere.fileno(), min(left, _CHUNK))
    return time.perf_counter() - begun


def _give(shim: Shim, init: int, end: BinaryIO, mib: int) -> float:
    """Write so much, and see the container end; the seconds."""
    left, begun = mib * _MIB, time.perf_counter()
    with open("/dev/zero", "rb", buffering=0) as zeros, os.fdopen(os.pidfd_open(init)) as ended:
        while left:
            if not select.select([], [end], [], _LIMIT)[1]:
                raise TimeoutError(f"{left} bytes are not taken")
            left -= os.splice(zeros.fileno(), end.fileno(), min(left, _CHUNK))
        end.close()
        shim.call("CloseIO", api.CloseIORequest(id=shim.id, stdin=True))
        if not select.select([ended], [], [], _LIMIT)[0]:
            raise TimeoutError("the container sees no end of its stdin")
    return time.perf_counter() - begun


def flows(kinds: Sequence[Kind], ways: Sequence[Way], rounds: int, mib: int) -> Flows:
    """Every way through every kind in each round; the round begins with another kind each time."""
    found: Flows = {kind.name: {way: [] for way in ways} for kind in kinds}
    with open_place() as place, open_daemon(place.daemon):
        with open(place.rootfs / "zeros", "wb") as zeros:
            zeros.truncate(_FILE * _MIB)
        for number in range(-1, rounds):  # a first one that does not count
            for kind in in_turns(kinds, number):
                for way in ways:
                    name = f"c{number + 1}-{kinds.index(kind)}-{way.name.lower()}"
                    flowed = flow(kind, place, name, way, mib if number >= 0 else _FILE)
                    if number >= 0:
                        found[kind.name][way].append(flowed)
    return found


# ---------------------------------------------------------------- figures


def _of(flows: Sequence[Flow], what: str) -> list[float]:
    return [getattr(each, what) for each in flows]


def _ratio(found: Flows, other: Kind, way: Way, what: str) -> Spread:
    mine, others = found[COLD.name][way], found[other.name][way]
    return Spread.of_ratios(_of(mine, what), _of(others, what))


def lines(found: Flows) -> tuple[str, ...]:
    """A table: the medians of all kinds, then the ratios of ours to Go's."""
    others = [kind for kind in (GO_V1, GO_V2) if kind.name in found and COLD.name in found]
    head = ["s for each GiB", *found, *(f"{COLD.name} × {kind.name}" for kind in others)]
    rows = []
    for way in next(iter(found.values())):
        for what, words in (("seconds", ""), ("cpu", ", processor time")):
            figures = [f"{median(_of(ways[way], what)):.3f}" for ways in found.values()]
            ratios = [str(_ratio(found, kind, way, what)) for kind in others]
            rows.append([f"{way.value}{words}", *figures, *ratios])
    return table(head, rows)


ASKED = (
    ("stdout, time", Way.DD, "seconds", 0.5),
    ("stdout, processor time of the shim", Way.DD, "cpu", 0.4),
)


def measure(*, quick: bool) -> tuple[Report, list[Held]]:
    """The table, and the ratios that are held against something.

    Args:
        quick: few rounds of few bytes, for a look.
    """
    rounds, mib = (2, 256) if quick else (_ROUNDS, _SIZE)
    found = flows(kinds_here(KINDS), list(Way), rounds, mib)
    held = [
        Held(what, _ratio(found, GO_V1, way, which), most, GO_V1.name)
        for what, way, which, most in ASKED
        if COLD.name in found and GO_V1.name in found
    ]
    text = (*lines(found), "", f"{rounds} rounds of {mib} MiB on {machine(['trio'])}")
    return Report("Streams", text, tuple(each.verdict() for each in held)), held


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stdio", description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=_ROUNDS)
    parser.add_argument("--mib", type=int, default=_SIZE, help="bytes for each container (1024)")
    told = parser.parse_args()
    kinds = kinds_here(KINDS)
    if not kinds:
        sys.exit("benchmarks.stdio: no shim can be measured here")
    mib = max(told.mib // _FILE, 1) * _FILE
    print("\n".join(lines(flows(kinds, list(Way), told.rounds, mib))))
    print(f"\n{told.rounds} rounds of {mib} MiB on {machine(['trio'])}")


if __name__ == "__main__":
    main()
