"""A cancellation at every step: each await of a scenario is cancelled once.

The scenario runs once to count the steps that tasks take between `Blow.aim` and `Blow.rest`,
every task's and not only the caller's; then once more for each of these steps, and exactly there
the blow falls.  What has to hold afterwards is for the scenario itself to check.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import trio

from ._schedules import run_schedule

__all__ = ["Blow", "Cancellations", "cancel_everywhere"]


class Blow(trio.abc.Instrument):
    """What falls at one step of a run.

    Args:
        at: the step, from 1; 0: never, only count.

    Attributes:
        steps: how many there were between `aim` and `rest`.
        fallen: it has fallen.
    """

    def __init__(self, at: int = 0) -> None:
        self.steps = 0
        self.fallen = False
        self._at = at
        self._act: Callable[[], None] | None = None

    def aim(self, act: Callable[[], None]) -> None:
        """From now on steps count; `act` is the blow: a scope's `cancel`, a stream's `close`."""
        self._act = act

    def rest(self) -> None:
        """Steps count no more."""
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


def cancel_everywhere(
    scenario: Callable[[Blow], Awaitable[None]], *, seed: int = 0
) -> Cancellations:
    """Run a scenario once for each of its steps, with a blow exactly there.

    Args:
        scenario: makes its world, calls `blow.aim(...)` before what is to be probed and
            `blow.rest()` after it, and checks what must hold.  Fakes only: a run has to be
            repeatable.
        seed: decides the order of steps; see `run_schedule`.

    Raises:
        Exception: what the scenario raised, with a note that names seed and step.
    """
    counted = Blow()
    run_schedule(partial(scenario, counted), seed=seed, trace=counted)
    fallen = 0
    for step in range(1, counted.steps + 1):
        blow = Blow(step)
        try:
            run_schedule(partial(scenario, blow), seed=seed, trace=blow)
        except BaseException as error:
            error.add_note(f"the blow fell at step {step} of {counted.steps}, seed {seed}")
            raise
        fallen += blow.fallen
    return Cancellations(counted.steps, fallen)
