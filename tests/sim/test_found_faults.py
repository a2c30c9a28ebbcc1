"""What the fault plans have found: each with the plan that showed it."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.sim import requests as ask
from trioshim.client import TaskClient
from trioshim.errors import DeadlineExceededError, FailedPreconditionError, ShimError, StatusError
from trioshim.proto import events_pb2 as events
from trioshim.proto import task_v2_pb2 as api
from trioshim.proto.task_types_pb2 import Status
from trioshim.testing import (
    Fault,
    FaultKind,
    FaultPlan,
    Program,
    World,
    check_event_order,
    open_shim,
)

ATTACH = Fault("stdio.attach", FaultKind.FAILS, errno=errno.EIO)
PAUSE_IS_LOST = Fault("runtime.pause", FaultKind.DIES, done=True)
START_IS_LOST = Fault("runtime.start", FaultKind.DIES, done=True)


async def test_a_remove_that_hangs_does_not_cost_the_unmount(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each step of undoing a Create has its own time; they had one together, and no log."""
    plan = FaultPlan(ATTACH, Fault("runtime.delete", FaultKind.HANGS))
    async with open_shim(faults=plan) as world, world.client() as shim:
        with pytest.raises(ShimError, match="Input/output error"):
            await shim.create(ask.create("c1"))
        assert world.kernel.mounts == []
        assert "c1: cannot remove within 10 s, given up" in caplog.text


async def test_an_unmount_that_hangs_is_in_the_log(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """What is left for the `delete` action is named; it was left without a word."""
    plan = FaultPlan(ATTACH, Fault("kernel.unmount", FaultKind.HANGS))
    async with open_shim(faults=plan) as world, world.client() as shim:
        with pytest.raises(ShimError, match="Input/output error"):
            await shim.create(ask.create("c1"))
        assert trio.current_time() == 10
        assert world.kernel.mounts == ["/bundles/c1/rootfs"]
        assert "c1: cannot unmount within 10 s, given up" in caplog.text


async def test_a_restore_that_cannot_be_undone_is_in_the_log(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The same for a Start that restores."""
    plan = FaultPlan(ATTACH, Fault("runtime.delete", FaultKind.HANGS))
    async with open_shim(faults=plan) as world, world.client() as shim:
        await shim.create(ask.create("c1", checkpoint="/image"))
        with pytest.raises(ShimError, match="Input/output error"):
            await shim.start(ask.start("c1"))
        assert "c1: cannot remove within 10 s, given up" in caplog.text


async def test_a_delete_that_waits_for_the_rest_does_not_blame_init(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Init has ended, killing what it leaves behind hangs; asked again, Delete succeeds."""
    plan = FaultPlan(Fault("runtime.kill_remaining", FaultKind.HANGS, done=True))
    async with (
        open_shim(program=lambda *_: Program(after=None), faults=plan) as world,
        world.client() as shim,
    ):
        await shim.create(ask.create("c1"))
        with pytest.raises(DeadlineExceededError, match="or what it leaves behind has not ended"):
            await shim.delete(ask.delete("c1"))
        assert (await shim.delete(ask.delete("c1"))).exit_status == 137
        await trio.sleep(1)
        world.check_nothing_left()


# ---------------------------------------------------------------- an answer that is lost


@asynccontextmanager
async def created(
    *faults: Fault, after: float | None = None
) -> AsyncIterator[tuple[World, TaskClient]]:
    """A shim with one container, c1, and a plan of faults."""
    async with (
        open_shim(
            program=lambda *_: Program(status=7, after=after), faults=FaultPlan(*faults)
        ) as w,
        w.client() as shim,
    ):
        await shim.create(ask.create("c1"))
        yield w, shim


async def status(shim: TaskClient) -> Status.ValueType:
    return (await shim.state(ask.state("c1"))).status


async def end(world: World, shim: TaskClient) -> list[type]:
    """Kill it, remove it; the kinds of events that were told, in order."""
    await shim.kill(ask.kill("c1"))
    await shim.wait(ask.wait("c1"))
    await shim.delete(ask.delete("c1"))
    await trio.sleep(1)
    world.check_nothing_left()
    return told(world)


def told(world: World) -> list[type]:
    check_event_order(world.publisher.events)
    return [type(event) for event in world.publisher.events]


@pytest.mark.parametrize("again", [False, True], ids=["undone at once", "undone at the second try"])
async def test_a_pause_that_failed_is_undone(again: bool, autojump_clock: trio.abc.Clock) -> None:
    """It was frozen, State said RUNNING, and only Kill was possible."""
    faults = [PAUSE_IS_LOST, Fault("runtime.resume", FaultKind.DIES)]
    async with created(*faults[: 1 + again]) as (world, shim):
        await shim.start(ask.start("c1"))
        with pytest.raises(ShimError, match="signal: killed"):
            await shim.pause(api.PauseRequest(id="c1"))
        assert not world.runtime.containers["c1"].paused
        assert await status(shim) == Status.RUNNING
        await shim.pause(api.PauseRequest(id="c1"))
        await shim.resume(api.ResumeRequest(id="c1"))
        await shim.exec(ask.exec_("c1", "e1"))
        await shim.start(ask.start("c1", "e1"))
        await shim.kill(ask.kill("c1", "e1"))
        await shim.delete(ask.delete("c1", "e1"))
        assert (await end(world, shim)).count(events.TaskPaused) == 1


async def test_a_pause_that_did_not_come_so_far_is_undone_without_a_word(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """That it is not paused is what was hoped for: no warning, and no second try."""
    async with created(Fault("runtime.pause", FaultKind.DIES)) as (world, shim):
        await shim.start(ask.start("c1"))
        with pytest.raises(ShimError, match="signal: killed"):
            await shim.pause(api.PauseRequest(id="c1"))
        assert world.runtime.calls[-1:] == [("resume", "c1")]
        assert trio.current_time() == 0
        assert caplog.text == ""


async def test_undoing_a_pause_that_hangs_has_an_end(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Pause is answered; what is left is named."""
    hangs = Fault("runtime.resume", FaultKind.HANGS)
    async with created(PAUSE_IS_LOST, hangs) as (_, shim):
        await shim.start(ask.start("c1"))
        with pytest.raises(ShimError, match="signal: killed"):
            await shim.pause(api.PauseRequest(id="c1"))
        assert trio.current_time() == 10
        assert "c1: cannot resume within 10 s, given up" in caplog.text


async def test_what_stops_the_shim_does_not_leave_a_container_frozen(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Init runs on when its shim has gone, and nobody else knows that it is to be resumed."""

    async def step(verb: str) -> None:
        if verb == "pause returns":
            world.serving.cancel()
            await trio.sleep_forever()

    async with open_shim(step=step) as world, world.client() as shim:
        await shim.create(ask.create("c1"))
        await shim.start(ask.start("c1"))
        with pytest.raises(ShimError):
            await shim.pause(api.PauseRequest(id="c1"))
        await world.stopped.wait()
        assert not world.runtime.containers["c1"].paused


async def test_a_resume_whose_answer_was_lost_can_be_asked_again(
    autojump_clock: trio.abc.Clock,
) -> None:
    """It ran, State said PAUSED for ever, and Resume was refused by the runtime."""
    async with created(Fault("runtime.resume", FaultKind.DIES, done=True)) as (world, shim):
        await shim.start(ask.start("c1"))
        await shim.pause(api.PauseRequest(id="c1"))
        with pytest.raises(ShimError, match="signal: killed"):
            await shim.resume(api.ResumeRequest(id="c1"))
        assert await status(shim) == Status.PAUSED
        await shim.resume(api.ResumeRequest(id="c1"))
        assert await status(shim) == Status.RUNNING
        assert (await end(world, shim)).count(events.TaskResumed) == 1


async def test_a_start_whose_answer_was_lost_can_be_asked_again(
    autojump_clock: trio.abc.Clock,
) -> None:
    """It ran, State said CREATED, no start was told, and Start was refused by the runtime."""
    async with created(START_IS_LOST) as (world, shim):
        with pytest.raises(ShimError, match="signal: killed"):
            await shim.start(ask.start("c1"))
        assert await status(shim) == Status.CREATED
        assert (await shim.start(ask.start("c1"))).pid == (await shim.state(ask.state("c1"))).pid
        assert await status(shim) == Status.RUNNING
        with pytest.raises(StatusError, match="cannot start a running process"):
            await shim.start(ask.start("c1"))
        life = [events.TaskCreate, events.TaskStart, events.TaskExit, events.TaskDelete]
        assert await end(world, shim) == life


async def test_an_end_that_follows_a_start_whose_answer_was_lost(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Nobody can know whether it had run: the exit is told alone, and there is no second start."""
    async with created(START_IS_LOST, after=1) as (world, shim):
        with pytest.raises(ShimError, match="signal: killed"):
            await shim.start(ask.start("c1"))
        assert (await shim.wait(ask.wait("c1"))).exit_status == 7
        with pytest.raises(StatusError, match="cannot start a stopped process"):
            await shim.start(ask.start("c1"))
        await shim.delete(ask.delete("c1"))
        await trio.sleep(1)
        assert told(world) == [events.TaskCreate, events.TaskExit, events.TaskDelete]


async def test_an_end_during_the_second_start(autojump_clock: trio.abc.Clock) -> None:
    """The same when init ends before the runtime looks: that Start is refused, no start is told."""
    ends = Fault("runtime.start", FaultKind.ENDS, nth=2)
    async with created(START_IS_LOST, ends) as (world, shim):
        for refusal in ("signal: killed", "cannot start a container that has stopped"):
            with pytest.raises(ShimError, match=refusal):
                await shim.start(ask.start("c1"))
        assert (await shim.wait(ask.wait("c1"))).exit_status == 137
        await shim.delete(ask.delete("c1"))
        await trio.sleep(1)
        assert told(world) == [events.TaskCreate, events.TaskExit, events.TaskDelete]


async def test_a_container_that_somebody_else_has_started(autojump_clock: trio.abc.Clock) -> None:
    """By hand, and not by a Start of ours: the first one is refused."""
    async with created() as (world, shim):
        world.runtime.containers["c1"].started = True
        with pytest.raises(FailedPreconditionError, match="already running container"):
            await shim.start(ask.start("c1"))
        assert await status(shim) == Status.CREATED


# ---------------------------------------------------------------- an undoing that fails


@pytest.mark.parametrize("checkpoint", ["", "/image"], ids=["create", "restore"])
async def test_a_remove_that_fails_is_tried_once_more(
    checkpoint: str, autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The id was taken until the `delete` action came, so asking again was refused."""
    plan = FaultPlan(ATTACH, Fault("runtime.delete", FaultKind.DIES))
    async with open_shim(faults=plan) as world, world.client() as shim:
        with pytest.raises(ShimError, match="Input/output error"):
            await shim.create(ask.create("c1", checkpoint=checkpoint))
            await shim.start(ask.start("c1"))
        assert list(world.runtime.containers) == []
        assert trio.current_time() == 1
        assert "cannot remove" not in caplog.text
        if not checkpoint:
            await shim.create(ask.create("c1"))
        await shim.start(ask.start("c1"))


async def test_a_remove_that_fails_twice_is_in_the_log(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Then it is for the `delete` action; the unmount is done all the same."""
    plan = FaultPlan(ATTACH, *(Fault("runtime.delete", FaultKind.DIES, nth=n) for n in (1, 2)))
    async with open_shim(faults=plan) as world, world.client() as shim:
        with pytest.raises(ShimError, match="Input/output error"):
            await shim.create(ask.create("c1"))
        assert list(world.runtime.containers) == ["c1"]
        assert world.kernel.mounts == []
        assert caplog.text.count("c1: cannot remove: runc did not terminate successfully") == 1


async def test_an_unmount_that_fails_is_tried_once_more(autojump_clock: trio.abc.Clock) -> None:
    """A mount that was busy for a moment does not stay."""
    plan = FaultPlan(ATTACH, Fault("kernel.unmount", FaultKind.FAILS, errno=errno.EIO))
    async with open_shim(faults=plan) as world, world.client() as shim:
        with pytest.raises(ShimError, match="Input/output error"):
            await shim.create(ask.create("c1"))
        assert world.kernel.mounts == []
