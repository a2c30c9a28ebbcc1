"""What a container pays before its shim answers, and what the shim then holds: ours beside Go's.

    python -m benchmarks.start [ROUNDS] [--containers]

Kinds take turns, so a busy machine is busy for all: the Go shims, ours spawned (cold) and ours
from a template (warm).  Needs root and the shims; what is missing is left out, with the reason.
With --containers also the memory for each running container: with a shim of its own, and with one
shim for 20 and for 200 of them, as in a group.  runc.v1 knows no groups.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from ._daemon import open_daemon
from ._figures import Held, Spread, in_turns, machine
from ._report import Report, table
from ._shims import COLD, GO_V1, GO_V2, WARM, Kind, Place, Shim, kinds_here, open_place, warm_up

__all__ = ["Memory", "measure"]

CROWD = 20
SIZES = (20, 200)
_ROUNDS = 30
_REST = 0.5  # seconds until what is idle is idle


def starts(kinds: Sequence[Kind], place: Place, rounds: int) -> dict[str, list[Shim]]:
    """One shim of each kind in each round; the round begins with another one each time."""
    shims: dict[str, list[Shim]] = {kind.name: [] for kind in kinds}
    for number in range(rounds):
        for kind in in_turns(kinds, number):
            name = f"c{number}-{kinds.index(kind)}"
            shim = Shim(kind, place, place.bundle(name))
            shim.end()
            place.forget(name)
            shims[kind.name].append(shim)
            time.sleep(0.3)  # the template's next spare, and Go's garbage
    return shims


# ---------------------------------------------------------------- memory


@dataclass(frozen=True, slots=True)
class Memory:
    """MiB of one kind's shims; 0 for what was not measured.

    Attributes:
        idle: for each of `CROWD` shims that have nothing to do.
        busy: for each of `CROWD` shims with a running container each.
        grouped: for each container of one shim, by their number.
    """

    idle: float
    busy: float
    grouped: Mapping[int, float]


def crowd(kind: Kind, place: Place, *, containers: bool) -> float:
    """MiB for each of many shims, each with a running container or with none."""
    shims: list[Shim] = []
    try:
        for number in range(CROWD):
            shims.append(Shim(kind, place, place.bundle(f"crowd{number}")))
            if containers:
                shims[-1].create()
                shims[-1].start()
        time.sleep(_REST)
        return sum(shim.pss() for shim in shims) / CROWD
    finally:
        for shim in shims:
            if containers:
                shim.remove()
            shim.end()
            place.forget(shim.id)


def grouped(kind: Kind, place: Place, sizes: Sequence[int]) -> dict[int, float]:
    """MiB for each running container of one shim, by their number."""
    bundles = [place.bundle(f"group{number}") for number in range(max(sizes))]
    shim = Shim(kind, place, bundles[0])
    found = {}
    for number, bundle in enumerate(bundles, 1):
        shim.create(bundle)
        shim.start(bundle.name)
        if number in sizes:
            time.sleep(_REST)
            found[number] = shim.pss() / number
    for bundle in reversed(bundles):
        shim.remove(bundle.name)
    shim.end()
    for bundle in bundles:
        place.forget(bundle.name)
    return found


def memory(kind: Kind, place: Place, sizes: Sequence[int]) -> Memory:
    """Of one kind.

    Args:
        kind: which.
        place: where.
        sizes: of a group; none: of idle shims only.
    """
    idle = crowd(kind, place, containers=False)
    if not sizes:
        return Memory(idle, 0.0, {})
    groups = {} if kind == GO_V1 else grouped(kind, place, sizes)
    return Memory(idle, crowd(kind, place, containers=True), groups)


# ---------------------------------------------------------------- figures


def start_lines(shims: Mapping[str, Sequence[Shim]]) -> tuple[str, ...]:
    """A table of times."""
    others = [kind for kind in (GO_V1, GO_V2) if kind.name in shims]
    head = ["shim", "`start`, ms", "first answer, ms", *(f"× {kind.name}" for kind in others)]
    rows = []
    for name, found in shims.items():
        figures = [median(shim.started for shim in found), median(_answered(found))]
        ratios = [str(_ratio(found, shims[kind.name])) for kind in others]
        rows.append([name, *(f"{figure:.1f}" for figure in figures), *ratios])
    return table(head, rows)


def _answered(shims: Sequence[Shim]) -> list[float]:
    return [shim.answered for shim in shims]


def _ratio(mine: Sequence[Shim], others: Sequence[Shim]) -> Spread:
    return Spread.of_ratios(_answered(mine), _answered(others))


def memory_lines(found: Mapping[str, Memory], sizes: Sequence[int]) -> tuple[str, ...]:
    """A table of memory; in brackets the ratio to runc.v1's with a shim for each container."""
    head = ["MiB for each", f"{CROWD} idle shims"]
    if sizes:
        head += [f"{CROWD} shims with a container"]
        head += [f"{size} containers in one shim" for size in sizes]
    go = found.get(GO_V1.name)
    rows = []
    for name, kind in found.items():
        figures = [kind.busy, *(kind.grouped.get(size, 0.0) for size in sizes)] if sizes else []
        idle, busy = (go.idle, go.busy) if go else (0.0, 0.0)
        cells = [_compared(kind.idle, idle), *(_compared(figure, busy) for figure in figures)]
        rows.append([name, *cells])
    return table(head, rows)


def _compared(size: float, other: float) -> str:
    if not size:
        return "no groups"
    return f"{size:.2f} ({size / other:.2f} ×)" if other else f"{size:.2f}"


def _held(shims: Mapping[str, Sequence[Shim]], found: Mapping[str, Memory]) -> list[Held]:
    go = GO_V1.name
    if not {go, COLD.name, WARM.name} <= set(shims):
        return []
    held = [
        Held("first answer, warm", _ratio(shims[WARM.name], shims[go]), 1.4, go),
        Held("first answer, cold", _ratio(shims[COLD.name], shims[go]), 12, go),
    ]
    sizes = {f"memory, {CROWD} shims, warm": (found[WARM.name].busy, 2.2)}
    for number, size in found[COLD.name].grouped.items():
        most = 0.8 if number <= 20 else 0.2
        sizes[f"memory, {number} containers in one shim"] = (size, most)
    for what, (size, most) in sizes.items():
        held.append(Held(what, Spread.of([size / found[go].busy]), most, go))
    return held


def measure(*, quick: bool) -> tuple[Report, list[Held]]:
    """The tables, and the ratios that are held against something.

    Args:
        quick: few rounds and small groups, for a look.
    """
    rounds, sizes = (3, SIZES[:1]) if quick else (_ROUNDS, SIZES)
    shims, found = _measure(kinds_here(), rounds, sizes)
    held = _held(shims, found)
    foot = f"{rounds} rounds on {machine(['trio', 'protobuf'])}"
    lines = (*start_lines(shims), "", *memory_lines(found, sizes), "", foot)
    return Report("Start and memory", lines, tuple(each.verdict() for each in held)), held


def _measure(
    kinds: Sequence[Kind], rounds: int, sizes: Sequence[int]
) -> tuple[dict[str, list[Shim]], dict[str, Memory]]:
    with open_place() as place, open_daemon(place.daemon):
        warm_up(kinds, place)
        shims = starts(kinds, place, rounds)
        return shims, {kind.name: memory(kind, place, sizes) for kind in kinds}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=_ROUNDS)
    parser.add_argument("--containers", action="store_true", help="memory with containers, too")
    told = parser.parse_args()
    kinds = kinds_here()
    if not kinds:
        sys.exit("benchmarks.start: no shim can be measured here")
    sizes = SIZES if told.containers else ()
    shims, found = _measure(kinds, told.rounds, sizes)
    print("\n".join([*start_lines(shims), "", *memory_lines(found, sizes)]))
    print(f"\n{told.rounds} rounds on {machine(['trio', 'protobuf'])}")


if __name__ == "__main__":
    main()
