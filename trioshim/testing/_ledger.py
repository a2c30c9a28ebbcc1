"""A ledger of what a run of trio has opened: nothing of it may be left when the run has ended.

File descriptors are compared before and after; memory channels are counted as they are made (how
trio makes them is known to `_inside_trio`); system tasks are looked at when the scenario returns.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from types import TracebackType
from typing import TypeVar

import trio

from ._inside_trio import record_channels

__all__ = ["LeakError", "Ledger"]

T = TypeVar("T")


class LeakError(AssertionError):
    """A run has left something behind.

    Attributes:
        leaks: what is left, by its kind: "file descriptors", "memory channels", "system tasks".
    """

    def __init__(self, leaks: dict[str, list[str]]) -> None:
        lines = [f"{kind} left open: {', '.join(things)}" for kind, things in leaks.items()]
        super().__init__("; ".join(lines))
        self.leaks = leaks


class Ledger:
    """A block around one run; leaving it without an error checks that nothing is left.

        with Ledger() as ledger:
            trio.run(ledger.watch, scenario)

    Raises (on leaving):
        LeakError: with all that is still open.
    """

    def __init__(self) -> None:
        self._fds: dict[str, str] = {}
        self._channels: list[trio.MemorySendChannel[object]] = []
        self._tasks: list[str] = []
        self._recording = ExitStack()

    def __enter__(self) -> Ledger:
        self._fds = _open_fds()
        self._recording.enter_context(record_channels(self._channels))
        return self

    async def watch(self, scenario: Callable[[], Awaitable[T]]) -> T:
        """Run the scenario and note which system tasks it leaves."""
        before = _system_tasks()
        result = await scenario()
        self._tasks = sorted(task.name for task in _system_tasks() - before)
        return result

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._recording.close()
        leaks = {
            "file descriptors": [
                f"{fd} ({target})"
                for fd, target in _open_fds().items()
                if self._fds.get(fd) != target
            ],
            "memory channels": _open_channels(self._channels),
            "system tasks": self._tasks,
        }
        self._channels.clear()
        if error is None and any(leaks.values()):
            raise LeakError({kind: things for kind, things in leaks.items() if things})


def _open_fds() -> dict[str, str]:
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # the one that listed them
            continue
    return found


def _open_channels(channels: list[trio.MemorySendChannel[object]]) -> list[str]:
    return [
        f"one with {now.open_send_channels} sending and {now.open_receive_channels} receiving "
        f"ends and {now.current_buffer_used} values inside"
        for now in (channel.statistics() for channel in channels)
        if now.open_send_channels or now.open_receive_channels
    ]


def _system_tasks() -> set[trio.lowlevel.Task]:
    root = trio.lowlevel.current_root_task()
    assert root is not None  # a task is running: this one
    return {task for nursery in root.child_nurseries for task in nursery.child_tasks}
