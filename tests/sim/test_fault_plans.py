"""`FaultPlan` itself: it counts, acts where it was planned, and can be repeated from one line."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from functools import partial
from typing import cast

import pytest
import trio

from tests.sim import requests as ask
from trioshim import abc
from trioshim.errors import (
    ShimError,
)
from trioshim.testing import (
    Fault,
    FaultKind,
    FaultPlan,
    PortCall,
    Program,
    draw_faults,
    every_fault,
    open_shim,
    run_schedule,
)
from trioshim.testing._faults import TABLE

ERRNOS = {errno.ENOSPC, errno.EMFILE, errno.ENOMEM, errno.EIO}
FOREVER = Program(after=None)
CALLS = [PortCall(number, name, 1, "c1") for number, name in enumerate(TABLE, 1)]


async def live(plan: FaultPlan) -> list[str]:
    """A short life; what its client was refused with."""
    told: list[str] = []
    async with (
        open_shim(program=lambda *_: FOREVER, faults=plan) as world,
        world.client() as shim,
    ):
        for step in (
            lambda: shim.create(ask.create("c1")),
            lambda: shim.start(ask.start("c1")),
            lambda: shim.kill(ask.kill("c1")),
            lambda: shim.wait(ask.wait("c1")),
            lambda: shim.delete(ask.delete("c1")),
        ):
            try:
                await step()
            except ShimError as error:
                told.append(str(error))
        await trio.sleep(1)
    return told


# ---------------------------------------------------------------- plans


async def test_a_plan_without_faults_takes_notes(autojump_clock: trio.abc.Clock) -> None:
    """Every call that can have a fault, in order, with what it is about."""
    plan = FaultPlan()
    assert await live(plan) == []
    verbs = [(c.name, c.about) for c in plan.calls if c.name.startswith("runtime.")]
    assert verbs == [
        ("runtime.prepare", "c1"),
        ("runtime.create", "c1"),
        ("runtime.start", "c1"),
        ("runtime.kill", "c1"),
        ("runtime.kill_remaining", "c1"),
        ("runtime.delete", "c1"),
    ]
    assert [call.number for call in plan.calls] == list(range(1, len(plan.calls) + 1))
    topics = [call.about for call in plan.calls if call.name == "publisher.publish"]
    assert topics == [f"/tasks/{event}" for event in ("create", "start", "exit", "delete")]


async def test_a_fault_happens_at_its_call_and_at_no_other(
    autojump_clock: trio.abc.Clock,
) -> None:
    """The second Create fails, the first does not."""
    fault = Fault("runtime.create", FaultKind.FAILS, nth=2, errno=errno.ENOSPC)
    plan = FaultPlan(fault)
    async with open_shim(faults=plan) as world, world.client() as shim:
        await shim.create(ask.create("c1"))
        assert (plan.happened, plan.missed) == ([], [fault])
        with pytest.raises(ShimError, match="No space left on device"):
            await shim.create(ask.create("c2"))
        assert (plan.happened, plan.missed) == ([fault], [])
        await shim.create(ask.create("c3"))


async def test_a_fault_after_the_last_call_is_missed(autojump_clock: trio.abc.Clock) -> None:
    """It never happens, and the plan says so."""
    fault = Fault("runtime.start", FaultKind.HANGS, nth=2)
    plan = FaultPlan(fault)
    assert await live(plan) == []
    assert (plan.happened, plan.missed) == ([], [fault])


def test_a_plan_is_repeated_from_its_repr() -> None:
    """One line makes it again; in the same order of tasks it does the same."""
    plan = FaultPlan(
        Fault("runtime.start", FaultKind.DIES, done=True),
        Fault("runtime.kill", FaultKind.SLOW, seconds=3.0),
        Fault("kernel.unmount", FaultKind.FAILS, nth=1, errno=errno.EIO),
    )
    names = {"Fault": Fault, "FaultKind": FaultKind, "FaultPlan": FaultPlan}
    again = eval(repr(plan), names)
    assert again.faults == plan.faults
    told, told_again = (run_schedule(partial(live, one), seed=7) for one in (plan, again))
    assert told == told_again != []
    assert (again.happened, again.calls) == (plan.happened, plan.calls)


def test_two_faults_at_one_call_are_refused() -> None:
    """Which one should happen?"""
    slow, dies = (Fault("runtime.start", kind) for kind in (FaultKind.SLOW, FaultKind.DIES))
    with pytest.raises(ValueError, match=r"two faults at one call: runtime.start #1 is slow"):
        FaultPlan(slow, dies)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Fault("runtime.crate", FaultKind.DIES), "no call 'runtime.crate'; there are run"),
        (lambda: Fault("kernel.cgroup", FaultKind.SLOW), "cannot be SLOW by its contract; it can"),
        (lambda: Fault("stdio.drain", FaultKind.FAILS, errno=5), "it can be SLOW$"),
        (lambda: Fault("runtime.start", FaultKind.FAILS), "an errno, and only for what FAILS"),
        (lambda: Fault("runtime.start", FaultKind.DIES, errno=5), "an errno, and only for what"),
        (lambda: Fault("runtime.start", FaultKind.DIES, nth=0), "counted from 1, not 0"),
    ],
)
def test_what_cannot_happen_cannot_be_planned(make: Callable[[], Fault], why: str) -> None:
    """The contract of the port decides; the text says what is possible."""
    with pytest.raises(ValueError, match=why):
        make()


def test_a_kernel_that_cannot_reuse_a_pid_says_so() -> None:
    """Of a real one nobody can ask it."""

    plan = FaultPlan(Fault("runtime.create", FaultKind.REUSES))
    with pytest.raises(TypeError, match="object cannot be told to reuse a pid"):
        plan.kernel(cast(abc.Kernel, object()))


# ---------------------------------------------------------------- all of them, and some


def test_the_list_is_complete() -> None:
    """Each errno for each call that may raise one; nothing twice; each is itself by its repr."""
    found = list(every_fault(CALLS))
    assert len(set(found)) == len(found)
    names = {"Fault": Fault, "FaultKind": FaultKind}
    assert [eval(repr(fault), names) for fault in found] == found
    for call in CALLS:
        errnos = {f.errno for f in found if f.call == call.name and f.kind is FaultKind.FAILS}
        never = call.name in ("child.wait", "child.signal", "stdio.drain")
        of_reads = call.name in ("cgroup.stats", "cgroup.pids")
        if call.name == "publisher.publish":
            assert errnos == {errno.EMFILE}
        else:
            no_room = {errno.EMFILE, errno.ENOMEM}
            assert errnos == (set() if never else no_room if of_reads else ERRNOS), call.name
    assert {fault.kind for fault in found} == set(FaultKind)


def test_every_verb_of_the_runtime_has_its_faults() -> None:
    """A verb that is added to the port is added to the table."""
    verbs = {name for name in vars(abc.Runtime) if not name.startswith("_")} - {"io_owner"}
    assert {name.partition(".")[2] for name in TABLE if name.startswith("runtime.")} == verbs


@pytest.mark.parametrize("fault", list(every_fault(CALLS)), ids=str)
def test_a_fault_says_what_is_told_of_it(fault: Fault) -> None:
    """An error has a text, what is only slow has none."""
    silent = (FaultKind.SLOW, FaultKind.ENDS, FaultKind.REUSES)
    assert bool(fault.text) is (fault.kind not in silent)
    if fault.errno:
        assert fault.text == os.strerror(fault.errno)


def test_a_seed_draws_the_same_faults() -> None:
    """1 to 4 of them, at different calls; of all seeds together all kinds."""
    kinds = set()
    for seed in range(100):
        drawn = draw_faults(random.Random(seed), CALLS)
        assert drawn == draw_faults(random.Random(seed), CALLS)
        assert 1 <= len(FaultPlan(*drawn).faults) <= 4
        kinds |= {fault.kind for fault in drawn}
    assert kinds == set(FaultKind)


def test_a_swarm_has_runs_of_few_kinds() -> None:
    """Kinds are chosen before places: some runs have one kind only, however rare it is."""
    runs = [draw_faults(random.Random(seed), CALLS, most=8) for seed in range(300)]
    of_one = [{fault.kind for fault in run} for run in runs if len(run) >= 3]
    assert {FaultKind.SLOW} in of_one
    assert {FaultKind.DIES} in of_one
