"""Every fault at every call of a port that a life makes, one by one, and many at a time.

`pytest -s` prints the counts.  What must hold is in `fault_runs.Run.check`.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.sim.amount import SCHEDULES
from tests.sim.fault_lives import LIVES
from tests.sim.fault_runs import Run, calls_of, live
from trioshim.testing import FaultKind, FaultPlan, PortCall, draw_faults, every_fault

BATCHES = 4
GRACE = 30  # virtual seconds that a fault may cost beside its own: undoing, waiting, asking again

seconds_of = functools.cache(lambda name: live(name, FaultPlan()).seconds)

Table = dict[str, Counter[str]]


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    """Counts by life; printed at the end."""
    rows: Table = {name: Counter() for name in LIVES}
    yield rows
    print(f"\n\n{'life':20}{'port calls':>12}{'faults':>8}{'runs':>8}{'violations':>12}")
    for name, row in rows.items():
        counts = f"{row['calls']:12}{row['faults']:8}{row['runs']:8}{row['violations']:12}"
        print(f"{name:20}{counts}")


@pytest.mark.parametrize(
    ("name", "call"),
    [pytest.param(name, call, id=f"{name}-{call}") for name in LIVES for call in calls_of(name)],
)
def test_no_fault_breaks_a_law(name: str, call: PortCall, table: Table) -> None:
    """Each fault that this call can have: no law broken, nothing left, a clear status."""
    row = table[name]
    row["calls"] += 1
    for fault in every_fault([call]):
        row["faults"] += 1
        for patient in (True, False):
            row["runs"] += 1
            row["violations"] += 1
            run = live(name, FaultPlan(fault), patient=patient)
            check_time(run)
            row["violations"] -= 1
            if not run.told:
                break  # nobody was refused: nobody has to choose between asking again and giving up


def check_time(run: Run) -> None:
    """A fault costs its own time and not much more."""
    extra = run.seconds - seconds_of(run.name)
    own = sum(fault.limit for fault in run.plan.happened)
    assert extra <= own + GRACE, f"{run.plan!r} has cost {extra:.0f} s"


def draw_run(seed: int) -> tuple[str, FaultPlan, bool]:
    draw = random.Random(f"faults {seed}")
    name = draw.choice(list(LIVES))
    faults = draw_faults(draw, calls_of(name))
    return name, FaultPlan(*faults), draw.random() < 0.7


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_swarm_of_faults_breaks_a_law(batch: int) -> None:
    """1 to 4 faults of some kinds, in another order of tasks each time."""
    happened: Counter[FaultKind] = Counter()
    for seed in range(batch, SCHEDULES // 5, BATCHES):
        name, plan, patient = draw_run(seed)
        run = live(name, plan, patient=patient, seed=seed, wild=True)
        happened.update(fault.kind for fault in run.plan.happened)
    print(f"batch {batch}: {dict(happened)}")
    if SCHEDULES >= 1000:
        assert set(happened) == set(FaultKind)
