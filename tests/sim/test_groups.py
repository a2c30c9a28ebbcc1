"""One shim for several containers: who has joined is served, and nobody disturbs another."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
import trio
import trio.testing

from tests.sim import requests as ask
from trioshim.client import TaskClient
from trioshim.errors import InvalidArgumentError, ShimError, UnavailableError
from trioshim.task._containers import RESERVED
from trioshim.testing import (
    Blow,
    World,
    cancel_everywhere,
    check_event_order,
    explore,
    open_shim,
)

LINGER = 300.0


async def ends_at(world: World) -> float:
    """The virtual second in which the shim ends."""
    with trio.fail_after(1000):
        await world.stopped.wait()
    return trio.current_time()


async def live(shim: TaskClient, id_: str) -> None:
    """A whole life, as the daemon has it: with a Shutdown at the end."""
    await shim.create(ask.create(id_))
    await shim.start(ask.start(id_))
    await shim.kill(ask.kill(id_))
    await shim.wait(ask.wait(id_))
    await shim.delete(ask.delete(id_))
    with suppress(UnavailableError):  # as good as an answer: the other's Shutdown was quicker
        await shim.shutdown(ask.shutdown(id_))


# ---------------------------------------------------------------- who is expected


async def test_the_first_container_is_waited_for(autojump_clock: trio.abc.Clock) -> None:
    """Another is quicker and asks for Shutdown: the shim is there for the one it was made for."""
    async with open_shim(group="a") as world, world.client() as shim:
        assert await world.join("b")
        await live(shim, "b")
        await trio.sleep(RESERVED - 1)
        await live(shim, "a")
        assert await ends_at(world) == pytest.approx(RESERVED - 1)
        world.check_nothing_left()


async def test_who_has_joined_is_waited_for(autojump_clock: trio.abc.Clock) -> None:
    """The last container goes while the next is on its way; containerd's shims end here."""
    async with open_shim(group="a") as world, world.client() as shim:
        await shim.create(ask.create("a"))
        assert await world.join("b")
        await shim.delete(ask.delete("a"))
        await shim.shutdown(ask.shutdown("a"))
        await trio.sleep(RESERVED - 1)
        assert not world.stopped.is_set()
        await live(shim, "b")
        await world.stopped.wait()
        check_event_order(world.publisher.events)


async def test_each_is_waited_for_by_name(autojump_clock: trio.abc.Clock) -> None:
    """Two have joined: the whole life of one is not taken for both."""
    async with open_shim(group="a") as world, world.client() as shim:
        await live(shim, "a") if await world.join("b") and await world.join("c") else None
        await live(shim, "b")
        await trio.sleep(1)
        assert not world.stopped.is_set()
        await live(shim, "c")
        await world.stopped.wait()


async def test_nobody_is_waited_for_for_ever(autojump_clock: trio.abc.Clock) -> None:
    """It never comes (its daemon died): the Shutdown that was asked for meanwhile is obeyed."""
    async with open_shim(group="a") as world, world.client() as shim:
        await trio.sleep(7)
        assert await world.join("b")
        await live(shim, "a")
        assert await ends_at(world) == pytest.approx(7 + RESERVED)


async def test_a_container_that_comes_takes_the_shutdown_back(
    autojump_clock: trio.abc.Clock,
) -> None:
    """It was asked for by another one; when this one goes, its own Shutdown is waited for."""
    async with open_shim(group="a") as world, world.client() as shim:
        assert await world.join("b")
        await live(shim, "a")
        await shim.create(ask.create("b"))
        await shim.delete(ask.delete("b"))
        await trio.sleep(10 * RESERVED)
        assert not world.stopped.is_set()
        await shim.shutdown(ask.shutdown("b"))
        await world.stopped.wait()


async def test_a_refused_create_has_come(autojump_clock: trio.abc.Clock) -> None:
    """Its daemon asks for Shutdown next, and that is not to wait."""
    async with open_shim(group="a") as world, world.client() as shim:
        with pytest.raises(InvalidArgumentError):
            await shim.create(ask.create("a", bundle="relative"))
        await shim.shutdown(ask.shutdown("a"))
        assert await ends_at(world) == pytest.approx(0)


async def test_a_refused_create_takes_the_shutdown_back(autojump_clock: trio.abc.Clock) -> None:
    """Its daemon has more to ask, and will ask for Shutdown itself."""
    async with open_shim(group="a") as world, world.client() as shim:
        assert await world.join("b")
        await live(shim, "a")
        with pytest.raises(InvalidArgumentError):
            await shim.create(ask.create("b", bundle="relative"))
        await trio.sleep(10 * RESERVED)
        assert not world.stopped.is_set()


async def test_who_is_ended_by_a_signal_waits_for_nobody(autojump_clock: trio.abc.Clock) -> None:
    """SIGTERM is obeyed, and whoever would join is told so."""
    async with open_shim(group="a") as world:
        world.service.shutdown_requested.set()
        assert not world.service.expect("b")
        assert not await world.join("b")
        await world.stopped.wait()


async def test_the_time_of_nobody_begins_when_nobody_is_expected(
    autojump_clock: trio.abc.Clock,
) -> None:
    """An abandoned shim of a group ends as one for one container, and with its door shut."""
    async with open_shim(group="a", linger=LINGER) as world:
        assert await ends_at(world) == pytest.approx(RESERVED + LINGER)
        assert world.door is not None
        assert not world.door.open
        assert not await world.join("b")


async def test_a_refused_create_begins_the_time_of_nobody(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Nobody is expected any more."""
    async with open_shim(group="a", linger=LINGER) as world:
        async with world.client() as shim:
            with pytest.raises(InvalidArgumentError):
                await shim.create(ask.create("a", bundle="relative"))
        assert await ends_at(world) == pytest.approx(LINGER)


async def test_a_shim_for_one_knows_no_joining(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its connection is closed without a word, and Shutdown is obeyed at once."""
    async with open_shim() as world:
        async with world.listener.connect() as stream:
            await stream.send_all(b"Jb\n")
            assert await stream.receive_some() == b""
        async with world.client() as shim:
            await shim.shutdown(ask.shutdown("a"))
        assert await ends_at(world) == pytest.approx(0)
    assert "neither ttrpc nor gRPC" in caplog.text


async def test_an_id_without_end_is_not_read(autojump_clock: trio.abc.Clock) -> None:
    """Whoever sends it is hung up on."""
    async with open_shim(group="a") as world, world.listener.connect() as stream:
        await stream.send_all(b"J" + b"x" * 200)
        with trio.fail_after(10):
            assert await stream.receive_some() == b""


@pytest.mark.parametrize("said", [b"J\n", b"J../x\n", b"J\xff\n", b"Jb"])
async def test_nonsense_is_not_expected(autojump_clock: trio.abc.Clock, said: bytes) -> None:
    """Nobody is told to come, and the shim's end does not wait for it."""
    async with open_shim(group="a") as world, world.client() as shim:
        async with world.listener.connect() as stream:
            await stream.send_all(said)
            await stream.send_stream.aclose()  # type: ignore[attr-defined]  # a stapled pair
            assert await stream.receive_some() == b""
        await live(shim, "a")
        assert await ends_at(world) == pytest.approx(0)


async def test_an_id_may_come_in_pieces(autojump_clock: trio.abc.Clock) -> None:
    """A stream has no packets."""
    async with open_shim(group="a") as world, world.client() as shim:
        async with world.listener.connect() as stream:
            for byte in b"Jbox-1\n":
                await stream.send_all(bytes([byte]))
                await trio.testing.wait_all_tasks_blocked()
            assert (await stream.receive_some()).startswith(b"+")
        await live(shim, "a")
        await live(shim, "box-1")
        await world.stopped.wait()


# ---------------------------------------------------------------- every order


async def life_of_a_pod(draw: random.Random) -> None:
    """Containers come by `start` at any time; whoever has been let in is served to the end."""

    async def step(_verb: str) -> None:
        await trio.sleep(draw.choice((0, 0, 0.01, 1)))

    served: list[str] = []
    async with open_shim(group="c0", linger=LINGER, step=step) as world:

        async def member(number: int) -> None:
            id_ = f"c{number}"
            if number:
                await trio.sleep(draw.choice((0, 0, 0.01, 0.5, 2, RESERVED, RESERVED + LINGER)))
            if not number or await world.join(id_):
                await trio.sleep(draw.choice((0, 0, 0.01, RESERVED - 2)))
                async with world.client() as shim:
                    await live(shim, id_)
                served.append(id_)

        async with trio.open_nursery() as members:
            if draw.random() < 0.7:  # else its daemon died
                members.start_soon(member, 0)
            for number in range(1, 4):
                members.start_soon(member, number)
        with trio.fail_after(2 * (RESERVED + LINGER)):
            await world.stopped.wait()
        assert world.door is not None
        assert not world.door.open
        check_event_order(world.publisher.events)
        world.check_nothing_left()


def test_who_was_let_in_is_served_in_every_order() -> None:
    """Joiners, Shutdowns, Creates and the time of nobody, in 200 orders."""
    explored = explore(life_of_a_pod, schedules=200)
    assert explored.distinct == 200


async def life_with_a_late_joiner() -> None:
    """One goes and one comes, in the same moment."""
    async with open_shim(group="a") as world:
        let_in: list[bool] = []

        async def leave() -> None:
            async with world.client() as shim:
                await live(shim, "a")

        async def come() -> None:
            let_in.append(await world.join("b"))
            if let_in[0]:
                async with world.client() as shim:
                    await live(shim, "b")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            nursery.start_soon(come)
        await world.stopped.wait()


def test_one_goes_and_one_comes() -> None:
    """Served or told to go elsewhere; never sent to a shim that ends."""
    explore(life_with_a_late_joiner, schedules=150)


def test_a_start_that_is_killed_keeps_nothing() -> None:
    """At whichever step the joiner goes: others live, and the shim ends in time."""

    async def scenario(blow: Blow) -> None:
        with trio.fail_after(3600):
            async with open_shim(group="a") as world, world.client() as shim:
                with trio.CancelScope() as leaving, blow.may_fall(leaving.cancel):
                    await world.join("b")
                await live(shim, "a")
                assert await ends_at(world) <= RESERVED
                world.check_nothing_left()

    assert cancel_everywhere(scenario).fallen > 0


def test_an_end_that_waits_for_the_door_can_be_cut_short() -> None:
    """Whenever the shim itself is killed: whoever holds the door is not left with it."""

    async def scenario(blow: Blow) -> None:
        with trio.fail_after(3600):
            async with open_shim(group="a") as world:
                assert world.door is not None
                with blow.may_fall(world.serving.cancel):
                    try:
                        async with world.client() as shim, world.door.held():
                            await live(shim, "a")
                    except (ShimError, trio.BrokenResourceError):
                        pass
                    await world.stopped.wait()
                async with world.door.held():
                    pass

    assert cancel_everywhere(scenario).fallen > 0
