"""Promises that no test had kept an eye on; the deliberate defects (`tests/mutants`) found them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.sim import requests as ask
from trioshim.abc import Child, ContainerSpec, Options, Stdio, StdioSpec
from trioshim.errors import AlreadyExistsError, ShimError
from trioshim.proto import events_pb2 as events
from trioshim.proto import task_v2_pb2 as api
from trioshim.proto.task_types_pb2 import Status
from trioshim.task import Containers, open_containers
from trioshim.testing import FakeKernel, FakeRuntime, Program, open_shim

FOREVER = Program(after=None)
LONG = 600  # virtual seconds: what has not come by then does not come


def hangs_at(verb: str) -> Callable[[str], Awaitable[None]]:
    async def step(now: str) -> None:
        if now == verb:
            await trio.sleep_forever()

    return step


def fails_at(verb: str) -> Callable[[str], Awaitable[None]]:
    async def step(now: str) -> None:
        if now == verb:
            raise OSError(5, f"the runtime's {verb} failed")

    return step


# ---------------------------------------------------------------- what stops the shim


async def test_a_create_is_undone_when_the_shim_is_stopped(autojump_clock: trio.abc.Clock) -> None:
    """P17 holds for a Create that is cancelled with the whole shim, too."""
    async with (
        open_shim(step=hangs_at("create returns")) as world,
        world.client() as shim,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(shim.create, ask.create("c1"))
        await trio.testing.wait_all_tasks_blocked()
        assert world.runtime.containers
        assert world.kernel.mounts
        nursery.cancel_scope.cancel()
        world.serving.cancel()
        await stopped(world.stopped)
        assert not world.runtime.containers
        assert not world.kernel.mounts


async def test_a_restore_is_undone_when_the_shim_is_stopped(autojump_clock: trio.abc.Clock) -> None:
    """What a Start has half restored does not stay behind."""
    async with (
        open_shim(step=hangs_at("restore returns")) as world,
        world.client() as shim,
        trio.open_nursery() as nursery,
    ):
        await shim.create(ask.create("c1", checkpoint="/image"))
        nursery.start_soon(shim.start, ask.start("c1"))
        await trio.testing.wait_all_tasks_blocked()
        assert world.runtime.containers
        nursery.cancel_scope.cancel()
        world.serving.cancel()
        await stopped(world.stopped)
        assert not world.runtime.containers


async def stopped(event: trio.Event) -> None:
    with trio.fail_after(LONG), trio.CancelScope(shield=True):
        await event.wait()


# ---------------------------------------------------------------- the life of a container


async def test_a_whole_life_takes_no_time_of_its_own(autojump_clock: trio.abc.Clock) -> None:
    """Each answer comes when the process and the runtime are ready, and not by a time limit."""
    async with open_shim(program=lambda *_: Program(after=3)) as world, world.client() as shim:
        await shim.create(ask.create("c1"))
        await shim.start(ask.start("c1"))
        with trio.fail_after(LONG):
            await shim.wait(ask.wait("c1"))
            await shim.delete(ask.delete("c1"))
        assert trio.current_time() == 3


async def test_the_oom_watch_ends_with_init(autojump_clock: trio.abc.Clock) -> None:
    """Not only with the container: a daemon that was away may ask for its Delete days later."""
    async with open_shim(program=lambda *_: Program(after=3)) as world, world.client() as shim:
        await shim.create(ask.create("c1"))
        await shim.start(ask.start("c1"))
        assert any("_watch_oom" in name for name in world._tasks())
        await shim.wait(ask.wait("c1"))
        await trio.testing.wait_all_tasks_blocked()
        assert not any("_watch_oom" in name for name in world._tasks())


async def test_nothing_is_left_of_a_container_that_was_never_restored(
    autojump_clock: trio.abc.Clock,
) -> None:
    """After its Delete, not only at the end of the shim."""
    async with open_shim() as world, world.client() as shim:
        await shim.create(ask.create("c1", checkpoint="/image"))
        await shim.delete(ask.delete("c1"))
        await trio.testing.wait_all_tasks_blocked()
        world.check_nothing_left()


async def test_init_is_killed_when_its_streams_cannot_be_attached(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Also where the runtime fails to remove the container after that."""
    async with open_shim(step=fails_at("delete")) as world, world.client() as shim:
        world.kernel.faults["attach"] = OSError(5, "no streams")
        with pytest.raises(ShimError, match="no streams"):
            await shim.create(ask.create("c1"))
        await trio.testing.wait_all_tasks_blocked()
        assert not world.kernel.processes


async def test_streams_are_told_of_the_end_and_drained(autojump_clock: trio.abc.Clock) -> None:
    """For init and for an exec: nobody copies for ever, and Delete waits for what is left."""
    async with (
        open_shim(program=lambda *_: Program(after=1)) as world,
        world.client() as shim,
    ):
        await shim.create(ask.create("c1"))
        await shim.exec(ask.exec_("c1", "e1"))
        await shim.start(ask.start("c1"))
        await shim.start(ask.start("c1", "e1"))
        both = list(world.kernel.stdios)
        assert [stdio.ended for stdio in both] == [False, False]
        await shim.wait(ask.wait("c1"))
        assert [stdio.ended for stdio in both] == [True, True]
        await shim.delete(ask.delete("c1", "e1"))
        await shim.delete(ask.delete("c1"))
        assert [stdio.drained for stdio in both] == [True, True]


async def test_a_failed_pause_is_over(autojump_clock: trio.abc.Clock) -> None:
    """State says RUNNING again, not PAUSING."""
    async with (
        open_shim(program=lambda *_: FOREVER, step=fails_at("pause")) as world,
        world.client() as shim,
    ):
        await shim.create(ask.create("c1"))
        await shim.start(ask.start("c1"))
        with pytest.raises(ShimError, match="pause failed"):
            await shim.pause(api.PauseRequest(id="c1"))
        assert (await shim.state(ask.state("c1"))).status == Status.RUNNING


async def test_pause_and_resume_are_told(autojump_clock: trio.abc.Clock) -> None:
    """One event each, in their order."""
    async with open_shim(program=lambda *_: FOREVER) as world, world.client() as shim:
        await shim.create(ask.create("c1"))
        await shim.start(ask.start("c1"))
        await shim.pause(api.PauseRequest(id="c1"))
        await shim.resume(api.ResumeRequest(id="c1"))
        await trio.testing.wait_all_tasks_blocked()
        kinds = [type(event) for event in world.publisher.events]
        assert kinds[2:] == [events.TaskPaused, events.TaskResumed]


async def test_a_paused_container_is_thawed_when_its_init_has_ended(
    autojump_clock: trio.abc.Clock,
) -> None:
    """In a frozen cgroup of version 1 even SIGKILL waits, and so would init's exit."""
    async with open_shim(program=lambda *_: FOREVER) as world, world.client() as shim:
        await shim.create(ask.create("c1"))
        await shim.start(ask.start("c1"))
        await shim.pause(api.PauseRequest(id="c1"))
        await shim.kill(ask.kill("c1"))
        await shim.wait(ask.wait("c1"))
        assert world.runtime.calls[-2:] == [("resume", "c1"), ("kill_remaining", "c1")]


class Taken(FakeRuntime):
    """A runtime that knows a container of that name, which is another's."""

    async def create(self, spec: ContainerSpec, stdio: Stdio) -> Child:
        raise AlreadyExistsError(f"container {spec.id}")


async def test_the_container_of_another_is_not_removed(autojump_clock: trio.abc.Clock) -> None:
    """The undoing of a Create stops before what this Create has not made."""
    async with open_shim(runtime_class=Taken) as world, world.client() as shim:
        with pytest.raises(AlreadyExistsError):
            await shim.create(ask.create("c1"))
        assert ("delete", "c1") not in world.runtime.calls


async def test_of_two_starts_one_is_refused(autojump_clock: trio.abc.Clock) -> None:
    """By the table, and without asking the runtime."""

    async def step(verb: str) -> None:
        if verb == "start":
            await trio.sleep(1)

    refusals: list[str] = []
    async with open_shim(program=lambda *_: FOREVER, step=step) as world, world.client() as shim:

        async def start() -> None:
            try:
                await shim.start(ask.start("c1"))
            except ShimError as error:
                refusals.append(str(error))

        await shim.create(ask.create("c1"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            nursery.start_soon(start)
        assert refusals == ["cannot start a running process"]
        assert world.runtime.calls.count(("start", "c1")) == 1


async def test_pids_names_an_ended_init(autojump_clock: trio.abc.Clock) -> None:
    """Until Delete, though its cgroup is empty (P22)."""
    async with open_shim(program=lambda *_: Program(after=1)) as world, world.client() as shim:
        pid = (await shim.create(ask.create("c1"))).pid
        await shim.start(ask.start("c1"))
        await shim.wait(ask.wait("c1"))
        found = (await shim.pids(api.PidsRequest(id="c1"))).processes
        assert [process.pid for process in found] == [pid]


# ---------------------------------------------------------------- names that come again


@asynccontextmanager
async def two_of_one_name() -> AsyncIterator[tuple[Containers, ContainerSpec]]:
    async with trio.open_nursery() as programs:
        kernel = FakeKernel()
        runtime = FakeRuntime(kernel, programs)
        spec = ContainerSpec(
            "c1", "/b", (), StdioSpec("c1", "ns", "", "", "", False), "", Options("", b"")
        )
        async with open_containers(runtime, kernel, lambda _event: None) as containers:
            yield containers, spec


async def test_a_new_container_outlives_the_end_of_an_old_one(
    autojump_clock: trio.abc.Clock,
) -> None:
    """The old life ends a moment after its Delete; a Create may come between."""
    async with two_of_one_name() as (containers, spec):
        await containers.create(spec)
        await containers.delete("c1")
        await containers.create(spec)
        await trio.testing.wait_all_tasks_blocked()
        assert containers.find("c1") is not None


async def test_a_name_that_comes_again_is_deleted_again(autojump_clock: trio.abc.Clock) -> None:
    """The answer that is remembered is that of the old container."""
    async with two_of_one_name() as (containers, spec):
        first = await containers.create(spec)
        assert (await containers.delete("c1")).pid == first
        second = await containers.create(spec)
        assert (await containers.delete("c1")).pid == second != first
        assert len(containers) == 0


async def test_empty_for_a_moment_is_not_empty(autojump_clock: trio.abc.Clock) -> None:
    """Who waits for the last container looks again when it is woken."""
    seen: list[int] = []
    done = trio.Event()
    async with two_of_one_name() as (containers, spec), trio.open_nursery() as nursery:

        async def wait() -> None:
            await containers.wait_until_empty()
            seen.append(len(containers))
            done.set()

        await containers.create(spec)
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await containers.delete("c1")
        await containers.create(spec)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == []
        with trio.fail_after(LONG):
            await containers.delete("c1")
            await done.wait()
        assert seen == [0]
