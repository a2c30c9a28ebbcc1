"""A cancellation at every step: each await of a scenario is cancelled once.

The scenario runs once to count the steps that tasks take while the blow may fall, every task's
and not only the caller's; then once more for each of these steps, and exactly there the blow
falls.  Then the ledger has to be clean; what else must hold is for the scenario to check.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import trio

from ._ledger import Ledger
from ._scenario import bind, takes_one
from ._schedules import run_schedule

__all__ = ["Blow", "Cancellations", "cancel_everywhere"]

Scenario = Callable[[], Awaitable[object]] | Callable[["Blow"], Awaitable[object]]


class Blow(trio.abc.Instrument):
    """What falls at one step of a run.

    Args:
        at: the step, from 1; 0: never, only count.

    Attributes:
        steps: how many there were in which it could fall.
        fallen: it has fallen.
    """

    def __init__(self, at: int = 0) -> None:
        self.steps = 0
        self.fallen = False
        self._at = at
        self._act: Callable[[], object] | None = None

    @contextmanager
    def may_fall(self, act: Callable[[], object]) -> Iterator[None]:
        """While the block runs, before any step of any task: `act` is called there, once.

        Args:
            act: the blow: a scope's `cancel`, an event's `set`, a stream's `close`.  It is called
                between two steps, so it cannot wait.
        """
        self.aim(act)
        try:
            yield
        finally:
            self.rest()

    def aim(self, act: Callable[[], object]) -> None:
        """From now on it may fall; `may_fall` without the block."""
        self._act = act

    def rest(self) -> None:
        """It can fall no more."""
        self._act = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 (trio's hook)
        if self._act is None:
            return
        self.steps += 1
        if self.steps == self._at:
            self.fallen = True
            self._act()


@dataclass(frozen=True, slots=True)
class Cancellations:
    """What `cancel_everywhere` has done.

    Attributes:
        steps: steps of the scenario that were probed.
        fallen: runs in which the blow fell; fewer than steps if a run took another way.
    """

    steps: int
    fallen: int


def cancel_everywhere(scenario: Scenario, *, seed: int = 0, every: int = 1) -> Cancellations:
    """Run a scenario once for each of its steps, with a blow exactly there.

    Args:
        scenario: an async function on fakes and memory streams: a run has to be repeatable.
            Without an argument it is cancelled as a whole.  With one it is given a `Blow`; it
            makes its world, says by `may_fall` what is to be probed and how, and checks after it
            what must hold.
        seed: decides the order of steps; see `run_schedule`.
        every: probe only each so many steps, where all would take too long.

    Raises:
        LeakError: a run has left a file descriptor, a memory channel or a system task.
        TypeError: the scenario takes more than one argument.
        ValueError: there is no step to probe, or `every` is not positive.
        BaseException: what the scenario raised, with a note that names seed and step.
    """
    if every < 1:
        raise ValueError(f"every must be 1 or more, not {every}")
    aimed = _aimed(scenario)
    counted = Blow()
    _run(aimed, counted, seed, "before any blow fell")
    if not counted.steps:
        raise ValueError("there is no step to probe: the scenario never said blow.may_fall(...)")
    steps = range(1, counted.steps + 1, every)
    fallen = 0
    for step in steps:
        blow = Blow(step)
        _run(aimed, blow, seed, f"the blow fell at step {step} of {counted.steps}")
        fallen += blow.fallen
    return Cancellations(len(steps), fallen)


def _run(scenario: Callable[[Blow], Awaitable[object]], blow: Blow, seed: int, when: str) -> None:
    try:
        with Ledger() as ledger:
            run_schedule(partial(ledger.watch, partial(scenario, blow)), seed=seed, trace=blow)
    except BaseException as error:
        error.add_note(f"{when}, seed {seed}")
        raise


def _aimed(scenario: Scenario) -> Callable[[Blow], Awaitable[object]]:
    if takes_one(scenario, "the blow") is not None:
        return lambda blow: bind(scenario, blow, "the blow")()

    async def cancelled_as_a_whole(blow: Blow) -> None:
        with trio.CancelScope() as scope, blow.may_fall(scope.cancel):
            await bind(scenario, None, "the blow")()

    return cancelled_as_a_whole
