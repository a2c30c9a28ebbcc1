"""One seed, one schedule: runs of trio that can be repeated.

trio chooses the order of runnable tasks by a private random number generator.  Here it is seeded,
under a virtual clock.  Shuffling alone lets every runnable task take a step in each pass, so it
never starves one; ours may also postpone some to the next pass, and every interleaving is
reachable (of 1000 seeds 21 find a starvation race that shuffling finds with none).

All knowledge of trio's private names is in this module; `check_trio` says when they change.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import trio
import trio.testing

__all__ = ["Trace", "check_trio", "run_schedule"]

T = TypeVar("T")
_FLAG, _RANDOM = "_ALLOW_DETERMINISTIC_SCHEDULING", "_r"
_POSTPONED = 0.25  # of the passes leave some tasks for the next one


class _Scheduler(random.Random):
    def shuffle(self, batch: Any) -> None:  # trio calls it with its list of runnable tasks
        super().shuffle(batch)
        if len(batch) > 1 and self.random() < _POSTPONED:
            keep = self.randrange(1, len(batch))
            _run_queue().extend(batch[keep:])
            del batch[keep:]


def _trio_run() -> Any:
    import trio._core._run as run  # the one place: private, see check_trio

    return run


def _run_queue() -> Any:
    return _trio_run().GLOBAL_RUN_CONTEXT.runner.runq


def check_trio() -> None:
    """Raise RuntimeError if this trio does not have what seeded schedules need."""
    run = _trio_run()
    for name in (_FLAG, _RANDOM, "GLOBAL_RUN_CONTEXT"):
        if not hasattr(run, name):
            raise RuntimeError(
                f"trio {trio.__version__} has no trio._core._run.{name}: seeded schedules need it"
            )


class Trace(trio.abc.Instrument):
    """A hash of the order in which tasks took their steps."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=8)
        self.steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        self._hash.update(task.name.encode() + b"\n")

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    run = vars(_trio_run())
    saved = {name: run[name] for name in (_FLAG, _RANDOM)}
    run.update({_FLAG: True, _RANDOM: _Scheduler(seed)})
    try:
        yield
    finally:
        run.update(saved)


def run_schedule(
    scenario: Callable[[], Awaitable[T]], *, seed: int, trace: trio.abc.Instrument | None = None
) -> T:
    """`trio.run(scenario)` under a virtual clock, in the order that `seed` decides.

    Args:
        scenario: only fakes and memory streams: real I/O cannot be repeated.
        seed: the same one gives the same order of steps.
        trace: sees every step, as a `Trace` that hashes their order.

    Raises:
        RuntimeError: this trio cannot be seeded.
    """
    check_trio()
    with _seeded(seed):
        return trio.run(
            scenario,
            clock=trio.testing.MockClock(autojump_threshold=0),
            instruments=[trace] if trace else [],
        )
