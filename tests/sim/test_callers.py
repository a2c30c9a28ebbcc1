"""Laws 7 to 9: reads never wait, changes outlive their caller, one container harms no other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.sim import requests as ask
from trioshim.abc import ContainerSpec
from trioshim.client import TaskClient
from trioshim.errors import DeadlineExceededError, NotFoundError, StatusError
from trioshim.proto import task_v2_pb2 as api
from trioshim.proto.task_types_pb2 import Status
from trioshim.testing import FakeRuntime, Program, check_event_order, open_shim

FOREVER = Program(after=None)


def hangs_at(*verbs: str) -> Callable[[str], object]:
    async def step(verb: str) -> None:
        if verb in verbs:
            await trio.sleep_forever()

    return step


async def check_reads_answer_at_once(shim: TaskClient, id_: str) -> None:
    before = trio.current_time()
    with trio.fail_after(2):  # all that the daemon gives a State
        await shim.state(ask.state(id_))
        await shim.pids(api.PidsRequest(id=id_))
        await shim.stats(api.StatsRequest(id=id_))
        await shim.connect(api.ConnectRequest(id=id_))
    assert trio.current_time() == before


@pytest.mark.parametrize("verb", ["start", "pause", "checkpoint", "update", "kill"])
async def test_reads_never_wait_for_a_change(autojump_clock: trio.abc.Clock, verb: str) -> None:
    """Law 7: the runtime hangs in a verb; State, Pids, Stats and Connect answer (#13483)."""
    async with (
        open_shim(program=lambda *_: FOREVER, step=hangs_at(verb)) as world,
        world.client() as shim,
        trio.open_nursery() as nursery,
    ):
        await shim.create(ask.create("c1"))
        changes = {
            "start": lambda: shim.start(ask.start("c1")),
            "pause": lambda: shim.pause(api.PauseRequest(id="c1")),
            "checkpoint": lambda: shim.checkpoint(api.CheckpointTaskRequest(id="c1")),
            "update": lambda: shim.update(
                api.UpdateTaskRequest(id="c1", resources={"value": b"{}"})
            ),
            "kill": lambda: shim.kill(ask.kill("c1")),
        }
        if verb != "start":
            await shim.start(ask.start("c1"))
        nursery.start_soon(changes[verb])
        await trio.sleep(1)
        assert world.runtime.calls[-1] == (verb, "c1")
        await check_reads_answer_at_once(shim, "c1")
        world.serving.cancel()
        nursery.cancel_scope.cancel()


async def test_a_hung_create_stops_nobody_else(autojump_clock: trio.abc.Clock) -> None:
    """Law 7: while one Create hangs, its id is not found yet and others live their lives."""
    hang = trio.Event()

    async def step(verb: str) -> None:
        if verb == "create" and hang.is_set():
            await trio.sleep_forever()

    async with (
        open_shim(program=lambda *_: FOREVER, step=step) as world,
        world.client() as shim,
        trio.open_nursery() as nursery,
    ):
        await shim.create(ask.create("good"))
        await shim.start(ask.start("good"))
        hang.set()
        nursery.start_soon(shim.create, ask.create("bad"))
        await trio.sleep(1)
        before = trio.current_time()
        with pytest.raises(NotFoundError):
            await shim.state(ask.state("bad"))
        assert (await shim.connect(api.ConnectRequest(id="bad"))).task_pid == 0
        await check_reads_answer_at_once(shim, "good")
        await shim.kill(ask.kill("good"))
        await shim.delete(ask.delete("good"))
        assert trio.current_time() == before
        world.serving.cancel()
        nursery.cancel_scope.cancel()


async def test_pausing_is_told_while_the_runtime_pauses(autojump_clock: trio.abc.Clock) -> None:
    """State says PAUSING, then PAUSED; an exec in a paused container is paused too."""

    async def step(verb: str) -> None:
        if verb == "pause":
            await trio.sleep(5)

    async with open_shim(program=lambda *_: FOREVER, step=step) as world, world.client() as shim:
        await shim.create(ask.create("c1"))
        await shim.start(ask.start("c1"))
        await shim.exec(ask.exec_("c1", "e1"))
        await shim.start(ask.start("c1", "e1"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shim.pause, api.PauseRequest(id="c1"))
            await trio.sleep(1)
            assert (await shim.state(ask.state("c1"))).status == Status.PAUSING
        assert (await shim.state(ask.state("c1"))).status == Status.PAUSED
        assert (await shim.state(ask.state("c1", "e1"))).status == Status.PAUSED
        await shim.resume(api.ResumeRequest(id="c1"))
        assert (await shim.state(ask.state("c1", "e1"))).status == Status.RUNNING


async def test_a_create_goes_on_when_its_caller_leaves(autojump_clock: trio.abc.Clock) -> None:
    """Law 8: the daemon dies in the middle of Create; the container is there all the same."""

    async def step(verb: str) -> None:
        if verb == "create":
            await trio.sleep(2)

    async with open_shim(program=lambda *_: FOREVER, step=step) as world:
        with trio.move_on_after(1):
            async with world.client() as shim:
                await shim.create(ask.create("c1"))
        async with world.client() as shim:
            with pytest.raises(NotFoundError):
                await shim.state(ask.state("c1"))
            await trio.sleep(2)
            assert (await shim.state(ask.state("c1"))).status == Status.CREATED


async def test_a_wait_ends_with_its_caller(autojump_clock: trio.abc.Clock) -> None:
    """Law 8: nobody is left waiting in the shim for a client that is gone."""
    async with open_shim(program=lambda *_: FOREVER) as world, world.client() as shim:
        await shim.create(ask.create("c1"))
        async with world.client() as leaving, trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(leaving.wait, ask.wait("c1"))
            await trio.testing.wait_all_tasks_blocked()
            waiting = tasks_named("Wait")
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert (waiting, tasks_named("Wait")) == (10, 0)


def tasks_named(name: str) -> int:
    root = trio.lowlevel.current_root_task()
    assert root is not None
    todo, found = [root], 0
    while todo:
        task = todo.pop()
        found += task.name.startswith(name)
        todo += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


async def test_a_deadline_answers_and_the_change_goes_on(autojump_clock: trio.abc.Clock) -> None:
    """Law 8: Delete outlasts its caller; asked again it gives the same answer (P14)."""

    async def step(verb: str) -> None:
        if verb == "delete":
            await trio.sleep(20)

    program = Program(status=3, after=0.5)
    async with open_shim(program=lambda *_: program, step=step) as world, world.client() as shim:
        await shim.create(ask.create("c1"))
        await shim.start(ask.start("c1"))
        await shim.wait(ask.wait("c1"))
        with pytest.raises(DeadlineExceededError):
            await shim.delete(ask.delete("c1"), timeout=5)
        joined = await shim.delete(ask.delete("c1"))
        assert trio.current_time() == pytest.approx(20.5)
        assert joined.exit_status == 3
        assert await shim.delete(ask.delete("c1")) == joined
        assert [call for call in world.runtime.calls if call[0] == "delete"] == [("delete", "c1")]


async def test_a_delete_that_fails_can_be_asked_again(autojump_clock: trio.abc.Clock) -> None:
    """The mount is busy once; the second Delete succeeds, and there is one delete event."""
    program = Program(status=3, after=0.5)
    async with open_shim(program=lambda *_: program) as world, world.client() as shim:
        await shim.create(ask.create("c1"))
        await shim.start(ask.start("c1"))
        await shim.wait(ask.wait("c1"))
        world.kernel.faults["unmount"] = OSError(16, "busy")
        with pytest.raises(StatusError, match="busy"):
            await shim.delete(ask.delete("c1"))
        assert (await shim.delete(ask.delete("c1"))).exit_status == 3
        await shim.shutdown(ask.shutdown())
        await world.stopped.wait()
        world.check_nothing_left()
    assert [e.topic for e in world.publisher.envelopes].count("/tasks/delete") == 1


class Buggy(FakeRuntime):
    """A runtime with a bug that shows for one container."""

    async def kill_remaining(self, spec: ContainerSpec) -> None:
        await super().kill_remaining(spec)
        if spec.id == "bad":
            raise ZeroDivisionError("a bug")


async def test_one_bad_container_harms_no_other(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Law 9: a bug in one container's life ends that one, loudly; the shim serves on."""
    programs = {"good": FOREVER, "bad": Program(after=1)}
    async with (
        open_shim(program=lambda id_, _: programs[id_], runtime_class=Buggy) as world,
        world.client() as shim,
    ):
        for id_ in programs:
            await shim.create(ask.create(id_))
            await shim.start(ask.start(id_))
        await shim.wait(ask.wait("bad"))
        assert "container bad failed and is removed" in caplog.text
        with pytest.raises(NotFoundError):
            await shim.state(ask.state("bad"))
        assert (await shim.state(ask.state("good"))).status == Status.RUNNING
        await shim.kill(ask.kill("good"))
        assert (await shim.wait(ask.wait("good"))).exit_status == 137
        await shim.delete(ask.delete("good"))
        await shim.shutdown(ask.shutdown())
        await world.stopped.wait()
        world.check_nothing_left()
    check_event_order(world.publisher.events)
