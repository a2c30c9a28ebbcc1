"""Cut every RPC, start-up and Shutdown short at every step, and print the counts.

    python -m tests.sim.count_blows

A row for each RPC: the steps of one run of it, and the runs that were cut short, over all kinds of
blow; a violation is a law that is broken or something that is left.  The exit status is 1 if
there is one.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from functools import partial

from tests.sim.blows import BLOWS, cut_short
from tests.sim.rpcs import RPCS
from tests.sim.test_cancel_start import KINDS, cut_start_short
from trioshim.testing import Cancellations

_ROW = "{:<28}{:>8}{:>15}{:>12}"


def main() -> int:
    """Do all of it and print as it goes."""
    logging.disable(logging.CRITICAL)  # calls that were cut short log that they were
    print(_ROW.format("RPC", "steps", "cancellations", "violations"))
    rows = [count("start-up", [partial(cut_start_short, kind) for kind in KINDS])]
    rows += [count(name, [partial(cut_short, name, kind) for kind in BLOWS]) for name in RPCS]
    steps, fallen, violations = (sum(column) for column in zip(*rows, strict=True))
    print(_ROW.format("all", steps, fallen, violations))
    return 1 if violations else 0


def count(name: str, probes: list[Callable[[], Cancellations]]) -> tuple[int, int, int]:
    """One row: (steps, cancellations, violations)."""
    steps = fallen = violations = 0
    for probe in probes:
        try:
            done = probe()
        except Exception:  # noqa: BLE001 (counted, and shown)
            traceback.print_exc()
            violations += 1
        else:
            steps += done.steps
            fallen += done.fallen
    print(_ROW.format(name, steps, fallen, violations), flush=True)
    return steps, fallen, violations


if __name__ == "__main__":
    sys.exit(main())
