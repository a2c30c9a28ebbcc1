"""The whole shim in memory: the life of a container as a client sees it."""

from __future__ import annotations

import errno

import pytest
import trio

from tests.sim import requests as ask
from trioshim.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    StatusError,
)
from trioshim.proto import events_pb2 as events
from trioshim.proto import task_v2_pb2 as api
from trioshim.proto.task_types_pb2 import Status
from trioshim.testing import (
    Fault,
    FaultKind,
    FaultPlan,
    Program,
    check_event_order,
    open_shim,
)

ZERO = -62135596800


async def test_a_container_lives_from_create_to_shutdown(autojump_clock: trio.abc.Clock) -> None:
    """Create, Start, Wait, Delete, Shutdown: answers, events, and nothing left."""
    program = Program(status=7, after=3)
    async with open_shim(program=lambda *_: program) as world, world.client() as shim:
        created = await shim.create(ask.create("c1"))
        assert (await shim.state(ask.state("c1"))).status == Status.CREATED
        assert (await shim.start(ask.start("c1"))).pid == created.pid
        state = await shim.state(ask.state("c1"))
        assert (state.status, state.pid, state.exited_at.seconds) == (
            Status.RUNNING,
            created.pid,
            ZERO,
        )
        ended = await shim.wait(ask.wait("c1"))
        assert ended.exit_status == 7
        assert (await shim.state(ask.state("c1"))).status == Status.STOPPED
        deleted = await shim.delete(ask.delete("c1"))
        assert (deleted.pid, deleted.exit_status) == (created.pid, 7)
        assert deleted.exited_at == ended.exited_at
        await shim.shutdown(ask.shutdown())
        await world.stopped.wait()
        world.check_nothing_left()
    kinds = [type(event) for event in world.publisher.events]
    assert kinds == [events.TaskCreate, events.TaskStart, events.TaskExit, events.TaskDelete]
    check_event_order(world.publisher.events)
    assert world.kernel.files["/bundles/c1/exit"].split()[:2] == [b"%d" % created.pid, b"7"]
    assert api.DeleteResponse.FromString(world.kernel.files["/bundles/c1/deleted"]) == deleted


async def test_there_is_no_receipt_for_what_was_not_removed(
    autojump_clock: trio.abc.Clock,
) -> None:
    """With it the verb `delete` does nothing: so it comes when nothing is left to do."""
    faults = FaultPlan(Fault("kernel.unmount", FaultKind.FAILS, errno=errno.EIO))
    async with open_shim(faults=faults) as world, world.client() as shim:
        await shim.create(ask.create("c1"))
        await shim.kill(ask.kill("c1", signal=9))
        await shim.wait(ask.wait("c1"))
        with pytest.raises(StatusError):
            await shim.delete(ask.delete("c1"))
        assert "/bundles/c1/exit" in world.kernel.files
        assert "/bundles/c1/deleted" not in world.kernel.files
        await shim.delete(ask.delete("c1"))
        assert "/bundles/c1/deleted" in world.kernel.files


async def test_a_process_that_ends_at_once_has_started_first(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Law 1: it has ended long before the runtime's start returns (containerd#7111)."""

    async def step(verb: str) -> None:
        if verb == "start returns":
            await trio.sleep(1)

    program = Program(status=3, dies="start")
    async with open_shim(program=lambda *_: program, step=step) as world, world.client() as shim:
        await shim.create(ask.create("c1"))
        await shim.start(ask.start("c1"))
        assert (await shim.wait(ask.wait("c1"))).exit_status == 3
        await shim.delete(ask.delete("c1"))
        await shim.shutdown(ask.shutdown())
        await world.stopped.wait()
    kinds = [type(event).__name__ for event in world.publisher.events]
    assert kinds == ["TaskCreate", "TaskStart", "TaskExit", "TaskDelete"]


async def test_execs_come_and_go(autojump_clock: trio.abc.Clock) -> None:
    """Two execs, one ends by itself, one with its container; each has its events."""
    programs = {"": Program(after=None), "quick": Program(status=3, after=0.5)}
    async with (
        open_shim(program=lambda _, exec_id: programs.get(exec_id, Program())) as world,
        world.client() as shim,
    ):
        await shim.create(ask.create("c1"))
        await shim.start(ask.start("c1"))
        for name in ("quick", "slow"):
            await shim.exec(ask.exec_("c1", name))
            await shim.start(ask.start("c1", name))
        assert (await shim.wait(ask.wait("c1", "quick"))).exit_status == 3
        quick = await shim.delete(ask.delete("c1", "quick"))
        assert quick.exit_status == 3
        assert await shim.delete(ask.delete("c1", "quick")) == quick
        await shim.kill(ask.kill("c1"))
        assert (await shim.wait(ask.wait("c1"))).exit_status == 137
        assert (await shim.wait(ask.wait("c1", "slow"))).exit_status == 137
        await shim.delete(ask.delete("c1", "slow"))
        await shim.delete(ask.delete("c1"))
        await shim.shutdown(ask.shutdown())
        await world.stopped.wait()
        world.check_nothing_left()
    check_event_order(world.publisher.events)


async def test_refusals_have_the_right_class(autojump_clock: trio.abc.Clock) -> None:
    """Each wrong request is answered by its class, and the shim lives on."""
    async with (
        open_shim(program=lambda *_: Program(after=None)) as world,
        world.client() as shim,
    ):
        with pytest.raises(NotFoundError, match="container not created: not found"):
            await shim.state(ask.state("nobody"))
        with pytest.raises(NotFoundError):
            await shim.delete(ask.delete("nobody"))
        for bad in ("", "a/b", "..", "x" * 77):
            with pytest.raises(InvalidArgumentError):
                await shim.create(ask.create(bad))
        with pytest.raises(InvalidArgumentError, match="absolute"):
            await shim.create(ask.create("c1", bundle="relative"))
        await shim.create(ask.create("c1"))
        with pytest.raises(AlreadyExistsError):
            await shim.create(ask.create("c1"))
        with pytest.raises(StatusError, match="cannot pause task in created state"):
            await shim.pause(api.PauseRequest(id="c1"))
        await shim.start(ask.start("c1"))
        with pytest.raises(StatusError, match="cannot start a running process"):
            await shim.start(ask.start("c1"))
        with pytest.raises(StatusError, match="cannot delete a running process"):
            await shim.delete(ask.delete("c1"))
        with pytest.raises(InvalidArgumentError, match="without resources"):
            await shim.update(api.UpdateTaskRequest(id="c1"))
        with pytest.raises(InvalidArgumentError, match="no spec"):
            await shim.exec(api.ExecProcessRequest(id="c1", exec_id="e1"))
        with pytest.raises(InvalidArgumentError):
            await shim.exec(ask.exec_("c1", "../../x"))
        await shim.exec(ask.exec_("c1", "e1"))
        with pytest.raises(AlreadyExistsError, match="id e1: already exists"):
            await shim.exec(ask.exec_("c1", "e1"))
        with pytest.raises(NotFoundError, match="process does not exist e2"):
            await shim.start(ask.start("c1", "e2"))
        with pytest.raises(FailedPreconditionError, match="process not created"):
            await shim.kill(ask.kill("c1", "e1"))
        await shim.kill(ask.kill("c1"))
        await shim.wait(ask.wait("c1"))
        with pytest.raises(NotFoundError, match="process already finished: not found"):
            await shim.kill(ask.kill("c1"))
        with pytest.raises(FailedPreconditionError, match="init process is not running"):
            await shim.start(ask.start("c1", "e1"))
        await shim.delete(ask.delete("c1"))


async def test_a_container_that_was_never_started_can_be_deleted(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Deleting kills its init: the exit is told, then the delete."""
    async with open_shim() as world, world.client() as shim:
        await shim.create(ask.create("c1"))
        deleted = await shim.delete(ask.delete("c1"))
        assert deleted.exit_status == 137
        await shim.shutdown(ask.shutdown())
        await world.stopped.wait()
        world.check_nothing_left()
    kinds = [type(event) for event in world.publisher.events]
    assert kinds == [events.TaskCreate, events.TaskExit, events.TaskDelete]


async def test_shutdown_waits_for_the_last_container(autojump_clock: trio.abc.Clock) -> None:
    """With a container left, Shutdown is answered and does nothing."""
    async with open_shim() as world, world.client() as shim:
        await shim.create(ask.create("c1"))
        await shim.shutdown(ask.shutdown())
        assert (await shim.state(ask.state("c1"))).status == Status.CREATED
        assert not world.stopped.is_set()


async def test_oom_is_told_before_the_exit(autojump_clock: trio.abc.Clock) -> None:
    """Law 4: a process killed for memory: oom, then exit, once each (containerd#8893)."""
    program = Program(after=1, out_of_memory=True)
    async with open_shim(program=lambda *_: program) as world, world.client() as shim:
        await shim.create(ask.create("c1"))
        await shim.start(ask.start("c1"))
        assert (await shim.wait(ask.wait("c1"))).exit_status == 137
        await shim.delete(ask.delete("c1"))
        await shim.shutdown(ask.shutdown())
        await world.stopped.wait()
    kinds = [type(event).__name__ for event in world.publisher.events]
    assert kinds == ["TaskCreate", "TaskStart", "TaskOOM", "TaskExit", "TaskDelete"]


async def test_a_restored_container_is_born_at_start(autojump_clock: trio.abc.Clock) -> None:
    """With a checkpoint, Create answers pid 0 and Start brings the process."""
    async with (
        open_shim(program=lambda *_: Program(status=5, after=1)) as world,
        world.client() as shim,
    ):
        created = await shim.create(ask.create("c1", checkpoint="/images/checkpoint"))
        assert created.pid == 0
        assert (await shim.state(ask.state("c1"))).status == Status.CREATED
        started = await shim.start(ask.start("c1"))
        assert started.pid > 0
        assert (await shim.wait(ask.wait("c1"))).exit_status == 5
        await shim.delete(ask.delete("c1"))
        await shim.create(ask.create("c2", checkpoint="/images/checkpoint"))
        never = await shim.delete(ask.delete("c2"))
        assert (never.pid, never.exit_status, never.exited_at.seconds) == (0, 0, ZERO)
        await shim.shutdown(ask.shutdown())
        await world.stopped.wait()
        world.check_nothing_left()
    check_event_order(world.publisher.events)
