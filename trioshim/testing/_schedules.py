"""One seed, one schedule: runs of trio that can be repeated.

trio chooses the order of runnable tasks by a private random number generator.  Here it is seeded,
under a virtual clock.  Shuffling alone lets every runnable task take a step in each pass, so it
never starves one; ours may also postpone some to the next pass, and every interleaving is
reachable (of 1000 seeds 21 find a starvation race that shuffling finds with none).

A schedule without end is an error: one that takes too many steps, and one in which every task
waits and nothing can wake it.  The scheduler sees each pass anyway, so this costs nothing.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio
import trio.testing

from ._inside_trio import check_trio, is_token_in_use, postpone, seeded, unshield
from ._stuck import busiest, tasks_of, told

__all__ = ["MAX_STEPS", "Trace", "run_schedule"]

T = TypeVar("T")
MAX_STEPS = 1_000_000  # of one schedule; some seconds
_POSTPONED = 0.25  # of the passes leave some tasks for the next one
_SAMPLE = 1000  # the last steps before the limit, in which the busiest tasks are counted
_GRACE = 10_000  # steps that a stopped run has to unwind in
_IDLE = 3  # passes without a step: the clock needs some to jump to the next deadline
_LOOK = 64  # while somebody waits for a thread or a file, look only so often


class _Scheduler(random.Random):
    """trio's source of chance for one run.

    Attributes:
        seed_told: the seed, for errors.
        max_steps: how many the run may take.
        steps: how many it has taken.
        verdict: why it was stopped; empty if it was not.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.seed_told = seed
        self.max_steps: float = math.inf
        self.steps = 0
        self.verdict = ""
        self._idle = 0
        self._busy: Counter[str] = Counter()
        self._stops = iter((_cancel, _unshield, _crash))

    def shuffle(self, batch: Any) -> None:  # trio calls it with its list of runnable tasks
        if not batch:
            self._count_idle()
            return
        if len(batch) > 1:
            super().shuffle(batch)
            if self.random() < _POSTPONED:
                keep = self.randrange(1, len(batch))
                postpone(batch[keep:])
                del batch[keep:]
        self._idle = 0
        self.steps += len(batch)
        if self.steps > self.max_steps - _SAMPLE:
            self._count_busy(batch)

    def _count_idle(self) -> None:
        self._idle += 1
        if self._idle % _LOOK == _IDLE and not _can_wake():
            self._stop(
                f"seed {self.seed_told} is stuck after {self.steps} steps: all tasks wait, there "
                f"is no timeout, and no thread or file can wake one:{told(_tasks())}"
            )

    def _count_busy(self, batch: list[trio.lowlevel.Task]) -> None:
        self._busy.update(task.name for task in batch)
        if self.steps > self.max_steps:
            last, self._busy = self._busy, Counter()
            self._stop(
                f"seed {self.seed_told} took more than {self.max_steps:,} steps: a task spins; "
                f"the last {last.total()} were of{busiest(last, _tasks())}"
            )

    def _stop(self, verdict: str) -> None:
        """End the run; if it resists, with more force each time."""
        self.verdict = self.verdict or verdict
        self.max_steps = self.steps + _GRACE
        self._idle = 0
        next(self._stops)()


def _cancel() -> None:
    _root().child_nurseries[-1].cancel_scope.cancel()  # the one of the main task


def _unshield() -> None:
    _cancel()
    for task in _tasks():
        unshield(task)


def _crash() -> None:
    raise RuntimeError("tasks cannot be stopped")  # ends trio.run as an internal error


def _can_wake() -> bool:
    """Whether a run whose tasks all wait can go on: by time, a file, a thread or a signal."""
    state = trio.lowlevel.current_statistics()
    if state.tasks_runnable or state.seconds_to_next_deadline < math.inf:
        return True
    if state.run_sync_soon_queue_size or is_token_in_use():
        return True
    return _waiting_for_files(state.io_statistics) > 1  # one is trio's own


def _waiting_for_files(statistics: Any) -> float:
    if statistics.backend == "epoll":
        return float(statistics.tasks_waiting_read + statistics.tasks_waiting_write)
    return math.inf  # who knows


def _tasks() -> list[Any]:
    return list(tasks_of(_root()))


def _root() -> trio.lowlevel.Task:
    root = trio.lowlevel.current_root_task()
    assert root is not None  # this is called in a run
    return root


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


def run_schedule(
    scenario: Callable[[], Awaitable[T]],
    *,
    seed: int,
    trace: trio.abc.Instrument | None = None,
    max_steps: int | None = MAX_STEPS,
) -> T:
    """`trio.run(scenario)` under a virtual clock, in the order that `seed` decides.

    Args:
        scenario: only fakes and memory streams: real I/O cannot be repeated.
        seed: the same one gives the same order of steps.
        trace: sees every step, as a `Trace` that hashes their order.
        max_steps: of all tasks together; None: no limit.

    Raises:
        RuntimeError: this trio cannot be seeded; or the run was stopped, for it took more than
            `max_steps`, or nothing could wake any task again.
    """
    check_trio()
    scheduler = _Scheduler(seed)
    scheduler.max_steps = math.inf if max_steps is None else max_steps
    try:
        with seeded(scheduler):
            result = trio.run(
                scenario,
                clock=trio.testing.MockClock(autojump_threshold=0),
                instruments=[trace] if trace else [],
            )
    except BaseException as error:
        if not scheduler.verdict or isinstance(error, KeyboardInterrupt):
            raise
        raise RuntimeError(scheduler.verdict) from _besides_the_stop(error)
    if scheduler.verdict:
        raise RuntimeError(scheduler.verdict)
    return result


def _besides_the_stop(error: BaseException) -> BaseException | None:
    """What the tasks raised on their own while they were stopped."""
    if isinstance(error, BaseExceptionGroup):
        return error.split((trio.Cancelled, trio.TrioInternalError))[1]
    return None if isinstance(error, (trio.Cancelled, trio.TrioInternalError)) else error
