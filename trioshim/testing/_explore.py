"""Many schedules of one scenario: the first that fails is named by a seed, and runs again from it.

A seed decides two things apart from each other: the order of the tasks, and what the scenario
draws.  So a draw more or less does not give another order.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from ._scenario import bind
from ._schedules import MAX_STEPS, Trace, run_schedule

__all__ = ["Exploration", "explore", "replay", "search"]

T = TypeVar("T")
_DIFFERS = """\
seed {seed} took two ways: schedule {first}, then {second}; nothing it finds can be run again.
What usually causes it: real I/O (sockets, files, threads, child processes), time.time or
datetime.now instead of trio.current_time, random without `draw`, the order of a set, a task
whose name is the repr of an object, or something that outlives a run (a global, a cache)"""


@dataclass(frozen=True, slots=True)
class Exploration:
    """What was looked at.

    Attributes:
        schedules: how many seeds were run.
        distinct: how many different orders they gave.
        steps: of all tasks in all of them.
    """

    schedules: int
    distinct: int
    steps: int


def explore(
    scenario: Callable[[], Awaitable[object]] | Callable[[random.Random], Awaitable[object]],
    *,
    schedules: int = 1000,
    seed: int = 0,
    twice: bool = False,
    max_steps: int | None = MAX_STEPS,
) -> Exploration:
    """Run `scenario` in many orders of its tasks; stop at the first that fails.

    Args:
        scenario: an async function, with memory streams and fakes for real I/O.  It is given a
            `random.Random` of the seed if it takes an argument.
        schedules: how many: the seeds are `seed`, `seed + 1`, ...
        seed: the first.
        twice: run each seed two times, and compare the orders.
        max_steps: of one schedule; None: no limit.

    Raises:
        RuntimeError: a seed gave two orders, or took more than `max_steps`, or all its tasks wait
            and nothing can wake one; or this trio cannot be seeded.
        TypeError: the scenario takes more than one argument.
        ValueError: there is nothing to run.
        BaseException: what the scenario raised, with a note of the seed and how to replay it.
    """
    name = getattr(scenario, "__name__", "scenario")
    limit = "" if max_steps == MAX_STEPS else f", max_steps={max_steps}"
    return search(
        scenario,
        range(seed, seed + schedules),
        twice=twice,
        max_steps=max_steps,
        again=lambda failed: f"explore({name}, schedules=1, seed={failed}{limit})",
    )


def replay(
    scenario: Callable[[], Awaitable[T]] | Callable[[random.Random], Awaitable[T]],
    seed: int,
    *,
    trace: Trace | None = None,
    max_steps: int | None = MAX_STEPS,
) -> T:
    """The result of `scenario` in the schedule of `seed`, as `explore` runs it.

    Args:
        scenario: see `explore`.
        seed: the one that `explore` named.
        trace: hashes the order; its digest is the schedule's id.
        max_steps: see `explore`.

    Raises:
        RuntimeError: see `run_schedule`.
        TypeError: the scenario takes more than one argument.
        BaseException: what the scenario raised.
    """
    return run_schedule(_with_draw(scenario, seed), seed=seed, trace=trace, max_steps=max_steps)


def search(
    scenario: Callable[..., Awaitable[object]],
    seeds: range,
    *,
    again: Callable[[int], str],
    twice: bool = False,
    max_steps: int | None = MAX_STEPS,
) -> Exploration:
    """`explore`, where `again` says how a seed that failed is run again."""
    __tracebackhide__ = True
    if not seeds:
        raise ValueError(f"schedules must be 1 or more, not {seeds.stop - seeds.start}")
    digests, steps = set(), 0
    for seed in seeds:
        run = _run(scenario, seed, again, max_steps)
        if twice:
            second = "the first run of it passed, the second"
            _compare(run, _run(scenario, seed, again, max_steps, second))
        digests.add(run.digest)
        steps += run.steps
    return Exploration(len(seeds), len(digests), steps)


def _run(
    scenario: Callable[..., Awaitable[object]],
    seed: int,
    again: Callable[[int], str],
    max_steps: int | None,
    which: str = "it",
) -> _Run:
    __tracebackhide__ = True
    trace = Trace()
    bound = _with_draw(scenario, seed)
    try:
        run_schedule(bound, seed=seed, trace=trace, max_steps=max_steps)
    except BaseException as error:  # Ctrl-C in a schedule without end has a seed too
        error.add_note(
            f"seed {seed}, schedule {trace.digest}: {which} failed after {trace.steps} steps\n"
            f"replay: {again(seed)}"
        )
        raise
    return _Run(seed, trace.digest, trace.steps)


@dataclass(frozen=True, slots=True)
class _Run:
    seed: int
    digest: str
    steps: int


def _compare(first: _Run, second: _Run) -> None:
    if first != second:
        raise RuntimeError(
            _DIFFERS.format(seed=first.seed, first=first.digest, second=second.digest)
        )


def _with_draw(scenario: Callable[..., Awaitable[T]], seed: int) -> Callable[[], Awaitable[T]]:
    return bind(scenario, random.Random(f"draw {seed}"), "one for its draws")
