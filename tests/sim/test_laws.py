"""The laws of the design over many schedules."""

from __future__ import annotations

import pytest

from tests.sim.amount import SCHEDULES
from tests.sim.worlds import run_day
from trioshim.testing import Trace

BLOCKS = 20


@pytest.mark.parametrize("block", range(BLOCKS))
def test_the_laws_hold_in_every_schedule(block: int) -> None:
    """Whatever the order of tasks, the programs, the daemon's absences: laws 1 to 6, no leak."""
    for seed in range(block, SCHEDULES, BLOCKS):
        run_day(seed)


def test_a_seed_gives_one_schedule() -> None:
    """The same seed twice: the same order of steps; another seed: another one."""
    traces = []
    for seed in (7, 7, 8):
        traces.append(Trace())
        run_day(seed, traces[-1])
    first, again, other = (trace.digest for trace in traces)
    assert first == again
    assert first != other
