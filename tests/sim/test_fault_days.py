"""A generated day (`worlds`) with faults drawn into it: several clients at a time, any program."""

from __future__ import annotations

import logging
import random

import pytest
import trio

from tests.sim import requests as ask
from tests.sim.amount import SCHEDULES
from tests.sim.fault_runs import AWAY, delete_actions, heard, once_each
from tests.sim.worlds import Day, use_containers
from trioshim.testing import (
    Fault,
    FaultKind,
    FaultPlan,
    World,
    check_event_order,
    draw_faults,
    run_schedule,
)

BATCHES = 2


async def live_one_day(day: Day, plan: FaultPlan, logged: list[logging.LogRecord]) -> World:
    with trio.fail_after(7200):
        async with day.open_world(plan) as world:
            await use_containers(day, world)
            await trio.sleep(AWAY)  # the daemon is back, and has heard everything
            async with world.client() as shim:
                await shim.shutdown(ask.shutdown())
                await world.stopped.wait()
            await delete_actions(world, logged)
            world.check_nothing_left()
    return world


def run_day(seed: int, plan: FaultPlan) -> World:
    """One day, and the laws that hold for any.

    Raises:
        AssertionError: with the plan in a note.
    """
    day = Day(seed)
    logged: list[logging.LogRecord] = []
    try:
        with heard(logged):
            world = run_schedule(lambda: live_one_day(day, plan, logged), seed=seed)
        for record in logged:
            assert not record.exc_info, f"not foreseen: {record.getMessage()} {record.exc_info}"
        check_event_order(once_each(world), complete=not any(map(is_deaf, plan.happened)))
    except BaseException as error:
        error.add_note(f"day {seed} with {plan!r}")
        raise
    return world


def is_deaf(fault: Fault) -> bool:
    return fault.call == "publisher.publish" and fault.kind is FaultKind.HANGS


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_day_with_faults_breaks_a_law(batch: int) -> None:
    """Laws 1 to 4 hold, nothing is left, and nothing fails that was not foreseen."""
    happened = 0
    for seed in range(batch, SCHEDULES // 20, BATCHES):
        quiet = FaultPlan()
        run_day(seed, quiet)
        plan = FaultPlan(*draw_faults(random.Random(f"faults {seed}"), quiet.calls))
        run_day(seed, plan)
        happened += len(plan.happened)
    print(f"batch {batch}: {happened} faults")
    assert happened >= SCHEDULES // 20 // BATCHES
