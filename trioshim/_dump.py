"""The tree of trio's tasks as text: what a hung shim is waiting for, without a debugger."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator

import trio

__all__ = ["task_tree"]


def task_tree() -> str:
    """Every task of this run, below the one that opened its nursery, with the line it waits in."""
    root = trio.lowlevel.current_root_task()
    return "\n".join(_lines(root, 0)) if root is not None else ""


def _lines(task: trio.lowlevel.Task, depth: int) -> Iterator[str]:
    indent = "  " * depth
    yield f"{indent}{task.name}"
    own = os.path.dirname(trio.__file__)  # how trio waits is not the question
    frames = [frame for frame in _frames(task) if not frame.filename.startswith(own)]
    for frame in frames[-3:]:
        place = frame.filename.rpartition("/")[2]
        yield f"{indent}  @ {place}:{frame.lineno} {frame.name}: {frame.line}"
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _lines(child, depth + 1)


def _frames(task: trio.lowlevel.Task) -> traceback.StackSummary:
    return traceback.StackSummary.extract(task.iter_await_frames())
