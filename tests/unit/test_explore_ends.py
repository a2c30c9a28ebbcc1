"""No schedule is without end: tasks that spin, and tasks that nothing can wake, are told."""

from __future__ import annotations

import gc
import re
import socket as plain
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from trioshim.testing import explore, replay, run_schedule

Scenario = Callable[[], Awaitable[object]]
GUARD = 60  # seconds; only against a hanging process
SPINS = r"seed 7 took more than 3,000 steps: a task spins; the last \d+ were of"


async def spin() -> None:
    while True:
        await trio.lowlevel.checkpoint()


async def two_spin() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(spin, name="the spinner")
        nursery.start_soon(trio.sleep_forever, name="a sleeper")
        await spin()


async def wait_for(event: trio.Event) -> None:
    await event.wait()


async def deadlock() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for, trio.Event(), name="who waits")
        await trio.sleep(3600)


async def shielded() -> None:
    with trio.CancelScope(shield=True):
        await deadlock()


async def stubborn() -> None:
    with trio.CancelScope():
        try:
            await deadlock()
        finally:
            with trio.CancelScope(shield=True):
                await spin()


def test_who_spins_is_told() -> None:
    """The seed, the limit, and the busiest tasks with the line where each is."""
    with pytest.raises(RuntimeError, match=SPINS) as caught:
        run_schedule(two_spin, seed=7, max_steps=3000)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert re.search(
        r"\n  \d+ x the spinner: checkpoint \(test_explore_ends\.py, line \d+\)", str(caught.value)
    )
    assert caught.value.__cause__ is None


def test_a_limit_is_a_number_of_steps() -> None:
    """Exactly so many are allowed; None: any number."""
    found = explore(sleepers, schedules=1)
    assert explore(sleepers, schedules=1, max_steps=found.steps) == found
    with pytest.raises(RuntimeError, match=f"more than {found.steps - 1} steps"):
        explore(sleepers, schedules=1, max_steps=found.steps - 1)
    assert explore(sleepers, schedules=1, max_steps=None) == found


async def sleepers() -> None:
    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(trio.sleep, number)


def test_the_line_of_a_replay_has_the_limit() -> None:
    """What failed at a limit of one's own fails at it again."""
    for _ in range(2):
        with pytest.raises(RuntimeError, match=SPINS) as caught:
            explore(two_spin, schedules=1, seed=7, max_steps=3000)
        told, line = "\n".join(caught.value.__notes__).splitlines()
        assert re.match(r"seed 7, schedule \w+: it failed after \d+ steps", told)
        assert line == "replay: explore(two_spin, schedules=1, seed=7, max_steps=3000)"
    with pytest.raises(RuntimeError, match=SPINS) as again:
        replay(two_spin, 7, max_steps=3000)
    assert str(again.value) == str(caught.value)


@pytest.mark.parametrize("scenario", [deadlock, shielded])
def test_a_deadlock_is_told(scenario: Scenario) -> None:
    """Who waits where; time that could pass has passed, and no cleanup is left half done."""
    with pytest.raises(RuntimeError, match=r"^seed 3 is stuck after \d+ steps") as caught:
        run_schedule(scenario, seed=3)
    text = str(caught.value)
    assert re.search(r"\n  who waits: Event\.wait \(test_explore_ends\.py, line \d+\)", text)
    assert "NurseryManager.__aexit__" in text
    assert "run_sync_soon" not in text
    gc.collect()  # what is left of a task would warn here


def test_tasks_that_resist_are_stopped() -> None:
    """A cleanup that spins behind a shield: the first verdict stands, and the run ends."""
    with pytest.raises(RuntimeError, match=r"^seed 3 is stuck after \d+ steps"):
        run_schedule(stubborn, seed=3)


IMMORTAL = """
import trio
from trioshim.testing import run_schedule

async def immortal():
    while True:
        try:
            await trio.sleep(0)
        except trio.Cancelled:
            pass

try:
    run_schedule(immortal, seed=5, max_steps=100)
except RuntimeError as error:
    print(type(error).__name__, str(error).splitlines()[0])
"""


def test_a_task_that_survives_every_cancellation_is_left_behind() -> None:
    """Python may complain of what is left of it, but the run ends, with the error."""
    argv = [sys.executable, "-c", IMMORTAL]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=GUARD)
    assert done.stdout.startswith("RuntimeError seed 5 took more than 100 steps: a task spins")


def test_what_the_stop_brings_to_light_is_the_cause() -> None:
    """An error in a cleanup is not lost."""

    async def noisy() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in the cleanup")

    with pytest.raises(RuntimeError, match="is stuck") as caught:
        run_schedule(noisy, seed=0)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_stop_cannot_be_hidden() -> None:
    """A scenario that takes the cancellation for its own has not passed."""

    async def calm() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return

    with pytest.raises(RuntimeError, match="is stuck"):
        run_schedule(calm, seed=0)


async def with_a_thread() -> str:
    return await trio.to_thread.run_sync(lambda: time.sleep(0.05) or "done")


async def called_by_a_thread() -> str:
    event = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def later() -> None:
        time.sleep(0.05)
        trio.from_thread.run_sync(event.set, trio_token=token)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, later)
        await event.wait()
    return "done"


async def with_a_socket() -> str:
    """Somebody of whom trio knows nothing sends, while all tasks wait."""
    ours, theirs = plain.socketpair()
    with ours, theirs, trio.socket.from_stdlib_socket(ours) as socket:
        sender = threading.Timer(0.05, theirs.send, [b"x"])
        sender.start()
        assert await socket.recv(1) == b"x"
        sender.join()
    return "done"


async def with_idle_passes() -> str:
    for cushion in (0.0, 0.01):
        await trio.testing.wait_all_tasks_blocked(cushion)
    return "done"


async def with_long_times() -> str:
    for _ in range(5):
        await trio.sleep(10**9)
    return "done"


@pytest.mark.parametrize(
    "scenario",
    [with_a_thread, called_by_a_thread, with_a_socket, with_idle_passes, with_long_times],
)
def test_who_can_still_be_woken_is_left_alone(scenario: Scenario) -> None:
    """Threads, sockets, time: no deadlock, however long all tasks wait."""
    for seed in range(3):
        assert run_schedule(scenario, seed=seed) == "done"
