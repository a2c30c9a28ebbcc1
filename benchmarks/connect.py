"""The smallest call there is, to real shims side by side: Connect, which all answer from memory.

    python -m benchmarks.connect [ROUNDS]

Each shim has a running container.  They take turns as in `benchmarks.rpc`, which has more servers
and both wires; here are both of Go's shims.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack

from trioshim.proto import task_v2_pb2 as api

from ._clients import TtrpcClient
from ._daemon import open_daemon
from ._figures import Held, Row, machine, tables
from ._report import Report
from ._shims import COLD, GO_V1, GO_V2, Shim, kinds_here, open_place
from .rpc import IN_FLIGHT, Contest

__all__ = ["measure"]

_ROUNDS = 15
_SECONDS = 0.2  # for each turn


def _rows(rounds: int, seconds: float) -> list[Row]:
    with ExitStack() as stack:
        place = stack.enter_context(open_place())
        stack.enter_context(open_daemon(place.daemon))
        contest = Contest(stack, place.base)
        for number, kind in enumerate(kinds_here((GO_V1, GO_V2, COLD))):
            shim = Shim(kind, place, place.bundle(f"c{number}"))
            stack.callback(shim.end)
            shim.create()
            stack.callback(shim.remove)
            shim.start()
            question = api.ConnectRequest(id=shim.id).SerializeToString()
            against = "" if kind == GO_V1 else GO_V1.name
            client = TtrpcClient(shim.path, "Connect", question)
            contest.add((kind.name, "ttrpc", "raw", against), client, shim.pid)
        contest.run(rounds, seconds)
    return contest.rows


def _held(rows: list[Row]) -> list[Held]:
    found = {row.server: row for row in rows}
    if not {GO_V1.name, COLD.name} <= set(found):
        return []
    mine, go = found[COLD.name], found[GO_V1.name]
    many = go.ratio(mine, IN_FLIGHT[-1], "calls_per_second")  # theirs by ours: time by call
    return [
        Held("Connect, p50", mine.ratio(go, 1, "p50"), 1.5, GO_V1.name),
        Held(f"Connect, {IN_FLIGHT[-1]} in flight", many, 1.0, GO_V1.name),
    ]


def measure(*, quick: bool, rounds: int = 0) -> tuple[Report, list[Held]]:
    """The tables, and the ratios that are held against something.

    Args:
        quick: few rounds, for a look.
        rounds: so many, whatever `quick` says.
    """
    rounds = rounds or (3 if quick else _ROUNDS)
    rows = _rows(rounds, _SECONDS)
    held = _held(rows)
    lines = [*tables(rows, IN_FLIGHT).splitlines(), "", f"{rounds} rounds on {machine(['trio'])}"]
    return Report("Connect", tuple(lines), tuple(each.verdict() for each in held)), held


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.connect", description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=_ROUNDS)
    told = parser.parse_args()
    if not kinds_here():
        sys.exit("benchmarks.connect: no shim can be measured here")
    print("\n".join(measure(quick=False, rounds=told.rounds)[0].lines))


if __name__ == "__main__":
    main()
