"""All that we know of trio's private names; `check_trio` says when one of them is gone.

trio chooses the order of runnable tasks by a random number generator of its own, which can be
replaced; its tasks know their cancel scopes; its memory channels can be seen being made.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio
from trio._core import _run  # the one place

__all__ = [
    "check_trio",
    "is_token_in_use",
    "postpone",
    "record_channels",
    "seeded",
    "unshield",
]

_FLAG, _RANDOM, _CONTEXT = "_ALLOW_DETERMINISTIC_SCHEDULING", "_r", "GLOBAL_RUN_CONTEXT"
_MADE = "__attrs_post_init__"


def check_trio() -> None:
    """Raise RuntimeError if this trio does not have what seeded schedules and ledgers need."""
    for name in (_FLAG, _RANDOM, _CONTEXT):
        if not hasattr(_run, name):
            raise RuntimeError(
                f"trio {trio.__version__} has no trio._core._run.{name}: seeded schedules need it"
            )
    if not hasattr(trio.MemorySendChannel, _MADE):
        raise RuntimeError(
            f"trio {trio.__version__} has no MemorySendChannel.{_MADE}: "
            "a ledger cannot see which memory channels are left open"
        )


def _runner() -> Any:
    return _run.GLOBAL_RUN_CONTEXT.runner


@contextmanager
def seeded(source: random.Random) -> Iterator[None]:
    """In the block `source.shuffle` decides the order of each pass over the runnable tasks."""
    module = vars(_run)
    saved = {name: module[name] for name in (_FLAG, _RANDOM)}
    module.update({_FLAG: True, _RANDOM: source})
    try:
        yield
    finally:
        module.update(saved)


def postpone(tasks: list[trio.lowlevel.Task]) -> None:
    """Make them runnable in the next pass."""
    _runner().runq.extend(tasks)


def is_token_in_use() -> bool:
    """Whether anybody has asked for trio's token: threads and signals only come in with it."""
    return getattr(_runner(), "trio_token", "unknown") is not None


def unshield(task: trio.lowlevel.Task) -> None:
    """Every cancel scope around a task lets cancellations through."""
    status: Any = task._cancel_status  # noqa: SLF001 (no public name for a task's scopes)
    while status is not None:
        status._scope.shield = False  # noqa: SLF001
        status = status._parent  # noqa: SLF001


@contextmanager
def record_channels(made: list[trio.MemorySendChannel[object]]) -> Iterator[None]:
    """Inside of the block each memory channel is noted by its sending end; clones are left out."""
    check_trio()
    channels: Any = trio.MemorySendChannel
    usual = getattr(channels, _MADE)

    def note(channel: trio.MemorySendChannel[object]) -> None:
        usual(channel)
        if channel.statistics().open_send_channels == 1:  # a clone is the second
            made.append(channel)

    setattr(channels, _MADE, note)
    try:
        yield
    finally:
        setattr(channels, _MADE, usual)
