"""Where the tasks of a run are that does not end, in words; only trio's public names.

Tasks are told in the order of their texts, so that a seed that is run again says the same.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator

import trio

__all__ = ["busiest", "tasks_of", "told"]

_SHOWN = 10
_OF_TRIO = frozenset({"<init>", "<TrioToken.run_sync_soon task>"})


def tasks_of(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    """The task and all below it."""
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from tasks_of(child)


def told(tasks: Iterable[trio.lowlevel.Task]) -> str:
    """A line for each task: its name, what it waits in, and from where."""
    return _shortened(sorted(_line(task) for task in tasks if task.name not in _OF_TRIO))


def busiest(steps: Counter[str], tasks: Iterable[trio.lowlevel.Task]) -> str:
    """A line for each name in `steps`, the greatest first, and where a task of that name is now."""
    lines = {task.name: _line(task) for task in sorted(tasks, key=_line)}
    order = sorted(steps, key=lambda name: (-steps[name], name))
    return _shortened([f"{steps[name]} x {lines.get(name, name)}" for name in order])


def _shortened(lines: list[str]) -> str:
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "".join(f"\n  {line}" for line in lines[:_SHOWN] + more)


def _line(task: trio.lowlevel.Task) -> str:
    """`mod.greet: Event.wait (test_it.py, line 12)`: the innermost line that is not trio's."""
    place, inside = "", ""
    for frame, line in task.iter_await_frames():
        code = frame.f_code
        if frame.f_globals.get("__name__", "").partition(".")[0] != "trio":
            place, inside = f" ({os.path.basename(code.co_filename)}, line {line})", ""
        elif not inside:
            inside = f": {code.co_qualname}"
    return f"{task.name}{inside}{place}"
