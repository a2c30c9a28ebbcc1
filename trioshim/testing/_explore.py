"""Many schedules of one scenario: the first that fails is named by a seed, and runs again from it.

A seed decides two things apart from each other: the order of the tasks, and what the scenario
draws.  So a draw more or less does not give another order.
"""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from ._schedules import Trace, run_schedule

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
) -> Exploration:
    """Run `scenario` in many orders of its tasks; stop at the first that fails.

    Args:
        scenario: an async function, with memory streams and fakes for real I/O.  It is given a
            `random.Random` of the seed if it takes an argument.
        schedules: how many: the seeds are `seed`, `seed + 1`, ...
        seed: the first.
        twice: run each seed two times, and compare the orders.

    Raises:
        RuntimeError: a seed gave two orders, or this trio cannot be seeded.
        TypeError: the scenario takes more than one argument.
        ValueError: there is nothing to run.
        BaseException: what the scenario raised, with a note of the seed and how to replay it.
    """
    name = getattr(scenario, "__name__", "scenario")
    return search(
        scenario,
        range(seed, seed + schedules),
        twice=twice,
        again=lambda failed: f"explore({name}, schedules=1, seed={failed})",
    )


def replay(
    scenario: Callable[[], Awaitable[T]] | Callable[[random.Random], Awaitable[T]],
    seed: int,
    *,
    trace: Trace | None = None,
) -> T:
    """The result of `scenario` in the schedule of `seed`, as `explore` runs it.

    Args:
        scenario: see `explore`.
        seed: the one that `explore` named.
        trace: hashes the order; its digest is the schedule's id.

    Raises:
        TypeError: the scenario takes more than one argument.
        BaseException: what the scenario raised.
    """
    return run_schedule(_with_draw(scenario, seed), seed=seed, trace=trace)


def search(
    scenario: Callable[..., Awaitable[object]],
    seeds: range,
    *,
    twice: bool,
    again: Callable[[int], str],
) -> Exploration:
    """`explore`, where `again` says how a seed that failed is run again."""
    __tracebackhide__ = True
    if not seeds:
        raise ValueError(f"schedules must be 1 or more, not {seeds.stop - seeds.start}")
    digests, steps = set(), 0
    for seed in seeds:
        run = _run(scenario, seed, again)
        if twice:
            _compare(run, _run(scenario, seed, again, "the first run of it passed, the second"))
        digests.add(run.digest)
        steps += run.steps
    return Exploration(len(seeds), len(digests), steps)


def _run(
    scenario: Callable[..., Awaitable[object]],
    seed: int,
    again: Callable[[int], str],
    which: str = "it",
) -> _Run:
    __tracebackhide__ = True
    trace = Trace()
    bound = _with_draw(scenario, seed)
    try:
        run_schedule(bound, seed=seed, trace=trace)
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
    needed = [
        parameter
        for parameter in inspect.signature(scenario).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if not needed:
        return functools.partial(scenario)
    if len(needed) > 1:
        names = ", ".join(parameter.name for parameter in needed)
        raise TypeError(
            f"a scenario takes no argument, or one for its draws; {scenario!r} takes {names}: "
            "bind them with functools.partial"
        )
    draw = random.Random(f"draw {seed}")
    if needed[0].kind is inspect.Parameter.KEYWORD_ONLY:
        return functools.partial(scenario, **{needed[0].name: draw})
    return functools.partial(scenario, draw)
