"""For each law a deliberate break of the code, and the test that catches it.

A copy of the package gets one edit; the named tests run against the copy, in a process of their
own, and must fail there.  If the text to be edited has changed, the break says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mutants.copies import edited_copy, run_tests


@dataclass(frozen=True)
class Break:
    """One edit that breaks one law."""

    law: int
    name: str
    file: str
    old: str
    new: str
    caught_by: str = "tests/sim/test_laws.py"
    shows_as: int = 0  # another law that the break is seen by first


LIFE, CALLERS = "tests/sim/test_life.py", "tests/sim/test_callers.py"
CONTAINER, EXECS = "task/_container.py", "task/_execs.py"

BREAKS = [
    Break(
        1,
        "the exit does not wait for a Start under way",
        CONTAINER,
        "async with self._starting:  # a Start under way",
        "async with trio.Lock():  # a Start under way",
        LIFE,
    ),
    Break(
        1,
        "a start is told when its turn is over",
        CONTAINER,
        "            self._emit(messages.task_start(self.spec.id, self.init.pid))\n",
        "            self._starting.release()\n"
        "            await trio.sleep(0.1)\n"
        "            await self._starting.acquire()\n"
        "            self._emit(messages.task_start(self.spec.id, self.init.pid))\n",
    ),
    Break(
        1,
        "an exec's start is told after its end",
        EXECS,
        "                self._emit(messages.task_exec_started(self._spec.id, process))\n"
        "                task_status.started()\n"
        "                stdio.take_input()\n"
        "                end = await process.child.wait()\n",
        "                task_status.started()\n"
        "                end = await process.child.wait()\n"
        "                process.exit = end\n"
        "                process.did(Verb.EXIT)\n"
        "                self._emit(messages.task_exit(self._spec.id, process))\n"
        "                process.exited.set()\n"
        "                self._emit(messages.task_exec_started(self._spec.id, process))\n"
        "                return\n",
    ),
    Break(
        1,
        "delete is told before the exit",
        CONTAINER,
        "                await self._wait_for_exit()  # if",
        "                await trio.lowlevel.checkpoint()  # if",
    ),
    Break(
        2,
        "the exit of an exec is told twice",
        EXECS,
        "        process.exited.set()\n",
        "        self._emit(messages.task_exit(self._spec.id, process))\n"
        "        process.exited.set()\n",
    ),
    Break(
        2,
        "the exit of a killed exec is not told",
        EXECS,
        "        self._emit(messages.task_exit(self._spec.id, process))\n",
        "        if end.status < 128:\n"
        "            self._emit(messages.task_exit(self._spec.id, process))\n",
        shows_as=3,
    ),
    Break(
        3,
        "init's exit does not wait for the execs",
        EXECS,
        "await self.running.start(self._run, process, stdio)",
        "await self.streams.start(self._run, process, stdio)",
    ),
    Break(
        3,
        "an exec may start after init has ended",
        EXECS,
        "        if self._closed:\n",
        "        if False:\n",
        LIFE,
    ),
    Break(
        4,
        "no last look at memory before the exit",
        CONTAINER,
        "                self._look_at_memory()  # OOM is told before the exit, or never (law 4)\n"
        "                self._exited(end)\n",
        "                self._exited(end)\n                self._look_at_memory()\n",
    ),
    Break(
        5,
        "an event is dropped when the daemon is away",
        "task/_events.py",
        "        await trio.sleep(pause)\n",
        "        return\n",
        shows_as=1,
    ),
    Break(
        5,
        "a later event overtakes one that is tried again",
        "task/_events.py",
        "            await _deliver(envelope, publisher)\n",
        "            nursery_of_this_task().start_soon(_deliver, envelope, publisher)\n"
        "            await trio.sleep(0.03)\n",
        shows_as=1,
    ),
    Break(
        6,
        "Create is answered before its event is queued",
        CONTAINER,
        "            self._emit(messages.task_create(self.spec, self.init.pid))\n"
        "            task_status.started(self.init.pid)\n",
        "            task_status.started(self.init.pid)\n"
        "            await trio.sleep(0.5)\n"
        "            self._emit(messages.task_create(self.spec, self.init.pid))\n",
        shows_as=1,
    ),
    Break(
        6,
        "Wait is answered before the exit is queued",
        CONTAINER,
        "            end = await self.init.child.wait()\n",
        "            end = self.init.exit = await self.init.child.wait()\n"
        "            self.init.exited.set()\n",
    ),
    Break(
        7,
        "State waits for its turn",
        "task/_service.py",
        "    @instant\n"
        "    def state(self, request: api.StateRequest) -> api.StateResponse:\n"
        "        container = self._containers.get(request.id)\n",
        "    async def state(self, request: api.StateRequest) -> api.StateResponse:\n"
        "        container = self._containers.get(request.id)\n"
        "        async with container.init.changing:\n"
        "            pass\n",
        CALLERS,
    ),
    Break(
        8,
        "a change ends with its caller",
        "rpc/_service.py",
        "        run = _run if found.reads else",
        "        run = _run if True else",
        CALLERS,
    ),
    Break(
        8,
        "a read goes on without its caller",
        "rpc/_service.py",
        "        run = _run if found.reads else",
        "        run = _run if False else",
        CALLERS,
    ),
    Break(
        9,
        "a bug in one container ends them all",
        "task/_containers.py",
        "            if not container.created:  # Create answers with this\n",
        "            if True:\n",
        CALLERS,
    ),
    Break(
        10,
        "a frame that was cut short is followed by another",
        "ttrpc/_outbox.py",
        "        if self._writing:\n            return\n",
        "",
        "tests/unit/test_ttrpc_trio.py",
    ),
]

# `_forward` has no nursery at hand; the break that lets events overtake needs one.
_PRELUDE = """
def nursery_of_this_task():
    return trio.lowlevel.current_task().parent_nursery
"""


def test_every_law_is_broken_once() -> None:
    """No law goes without a break."""
    assert {one.law for one in BREAKS} == set(range(1, 11))


@pytest.mark.parametrize("one", BREAKS, ids=lambda one: f"law{one.law}-{one.name}")
def test_a_break_is_caught(tmp_path: Path, one: Break) -> None:
    """With the edit the tests fail; so without it their silence means something."""
    edited_copy(tmp_path, one.file, one.old, one.new, append=_PRELUDE)

    done = run_tests(tmp_path, [one.caught_by], limit=120)

    assert done.code == 1, f"not caught: {done.text[-4000:]}"
    if one.caught_by.endswith("test_laws.py"):
        assert f"LawBrokenError: law {one.shows_as or one.law}" in done.text, done.text[-3000:]
