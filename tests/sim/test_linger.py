"""A shim that nobody needs ends by itself; one that somebody may need does not (P21)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.sim import requests as ask
from trioshim.testing import Program, World, open_shim

LINGER = 60.0
FOREVER = Program(after=None)


async def ends_at(world: World) -> float:
    """The virtual second in which the shim ends."""
    with trio.fail_after(1000):
        await world.stopped.wait()
    return trio.current_time()


async def test_a_shim_without_anybody_ends(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """After 60 seconds, not earlier; the log says why."""
    async with open_shim(linger=LINGER) as world:
        assert await ends_at(world) == pytest.approx(LINGER)
        world.check_nothing_left()
    assert "no container and no client for 60 s" in caplog.text


async def test_a_shim_never_ends_by_itself_unless_told(autojump_clock: trio.abc.Clock) -> None:
    """Without `linger` it waits for Shutdown."""
    async with open_shim() as world:
        await trio.sleep(80_000)
        assert not world.stopped.is_set()


async def test_not_while_a_client_is_connected(autojump_clock: trio.abc.Clock) -> None:
    """However silent; when the last one leaves the time begins."""
    async with open_shim(linger=LINGER) as world:
        async with world.client():
            await trio.sleep(500)
            async with world.client():
                await trio.sleep(500)
            await trio.sleep(500)
            assert not world.stopped.is_set()
        assert await ends_at(world) == pytest.approx(1500 + LINGER)


async def test_a_short_visit_begins_the_time_anew(autojump_clock: trio.abc.Clock) -> None:
    """One second before the end."""
    async with open_shim(linger=LINGER) as world:
        for _ in range(3):
            await trio.sleep(LINGER - 1)
            async with world.client():
                await trio.testing.wait_all_tasks_blocked()
        assert await ends_at(world) == pytest.approx(3 * (LINGER - 1) + LINGER)


async def test_not_while_a_container_is_there(autojump_clock: trio.abc.Clock) -> None:
    """The daemon restarts: the container runs on, and so does its shim."""
    async with open_shim(linger=LINGER, program=lambda *_: FOREVER) as world:
        async with world.client() as shim:
            await shim.create(ask.create("c1"))
            await shim.start(ask.start("c1"))
        await trio.sleep(500)
        async with world.client() as shim:
            await shim.kill(ask.kill("c1"))
            await shim.wait(ask.wait("c1"))
        await trio.sleep(500)
        assert not world.stopped.is_set(), "it is not deleted yet"
        async with world.client() as shim:
            await shim.delete(ask.delete("c1"))
        assert await ends_at(world) == pytest.approx(1000 + LINGER)
        world.check_nothing_left()


@asynccontextmanager
async def left_in_a_create(seconds: float) -> AsyncIterator[World]:
    """A shim whose daemon has died after a second of a Create, which takes so long and fails."""

    async def step(verb: str) -> None:
        if verb == "create":
            await trio.sleep(seconds)
            raise OSError(28, "no space left")

    async with open_shim(linger=LINGER, step=step) as world:
        with trio.move_on_after(1):
            async with world.client() as shim:
                await shim.create(ask.create("c1"))
        yield world


async def test_a_failed_create_of_a_daemon_that_died(autojump_clock: trio.abc.Clock) -> None:
    """It died while Create was under way; Create fails, and nobody comes any more (P21)."""
    async with left_in_a_create(20) as world:
        assert await ends_at(world) == pytest.approx(1 + LINGER)
        world.check_nothing_left()


async def test_a_slow_failed_create_of_a_daemon_that_died(autojump_clock: trio.abc.Clock) -> None:
    """The same, but Create takes longer than `linger`: the shim is not left behind."""
    async with left_in_a_create(200) as world:
        await trio.sleep(200)
        assert not world.stopped.is_set()
        assert await ends_at(world) <= 200 + 2 * LINGER
