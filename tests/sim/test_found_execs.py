"""Promises about execs that the deliberate defects (`tests/mutants`) found unwatched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.sim import requests as ask
from trioshim.abc import Stdio, StdioSpec
from trioshim.client import TaskClient
from trioshim.errors import FailedPreconditionError, NotFoundError, ShimError
from trioshim.proto import task_v2_pb2 as api
from trioshim.proto.runc_options_pb2 import ProcessDetails
from trioshim.testing import Program, World, open_shim

FOREVER = Program(after=None)
LONG = 600  # virtual seconds: what has not come by then does not come


@asynccontextmanager
async def running(**programs: Program) -> AsyncIterator[tuple[World, TaskClient]]:
    """A shim with a container c1 that runs until it is killed."""
    async with (
        open_shim(program=lambda _, exec_id: programs.get(exec_id, FOREVER)) as world,
        world.client() as shim,
    ):
        await shim.create(ask.create("c1"))
        await shim.start(ask.start("c1"))
        yield world, shim


async def run(shim: TaskClient, exec_id: str) -> int:
    await shim.exec(ask.exec_("c1", exec_id))
    return (await shim.start(ask.start("c1", exec_id))).pid


async def test_who_waits_for_an_exec_that_cannot_start_is_answered(
    autojump_clock: trio.abc.Clock,
) -> None:
    """There will be no exit to wait for."""
    async with running(e1=Program(missing=True)) as (_, shim), trio.open_nursery() as nursery:
        await shim.exec(ask.exec_("c1", "e1"))
        nursery.start_soon(shim.wait, ask.wait("c1", "e1"))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ShimError, match="not found"):
            await shim.start(ask.start("c1", "e1"))
        nursery.cancel_scope.deadline = trio.current_time() + LONG
    assert not nursery.cancel_scope.cancelled_caught


async def test_an_exec_that_cannot_be_killed_is_given_up(autojump_clock: trio.abc.Clock) -> None:
    """Init's exit is told after the grace, and the exec is left to the reaper (P2)."""
    program = Program(after=None, lingers=LONG)
    async with (
        open_shim(
            program=lambda _, exec_id: program if exec_id else FOREVER, shared_pid_namespace=True
        ) as world,
        world.client() as shim,
    ):
        await shim.create(ask.create("c1"))
        await shim.start(ask.start("c1"))
        pid = await run(shim, "e1")
        await shim.kill(ask.kill("c1"))
        with trio.fail_after(LONG / 2):
            await shim.wait(ask.wait("c1"))
            assert (await shim.wait(ask.wait("c1", "e1"))).exit_status == 137
        assert pid in world.kernel.processes
        await trio.sleep(2 * LONG)
        assert pid not in world.kernel.processes


async def test_a_pid_that_comes_again_is_the_living_execs(autojump_clock: trio.abc.Clock) -> None:
    """An exec that has ended has no pid any more, though nobody has deleted it (P7)."""
    programs = {"old": Program(after=1)}
    async with (
        open_shim(program=lambda _, exec_id: programs.get(exec_id, FOREVER), pid_max=3) as world,
        world.client() as shim,
    ):
        await shim.create(ask.create("c1"))
        await shim.start(ask.start("c1"))
        await shim.exec(ask.exec_("c1", "new"))
        old = await run(shim, "old")
        await shim.wait(ask.wait("c1", "old"))
        assert (await shim.start(ask.start("c1", "new"))).pid == old
        found = (await shim.pids(api.PidsRequest(id="c1"))).processes
        details = {one.pid: ProcessDetails.FromString(one.info.value).exec_id for one in found}
        assert details[old] == "new"


async def test_init_may_end_while_an_execs_streams_open(autojump_clock: trio.abc.Clock) -> None:
    """Start is refused for what it is, not answered with a failure of ours."""
    async with running() as (world, shim):
        opened, open_stdio = trio.Event(), world.kernel.open_stdio

        @asynccontextmanager
        async def slow(spec: StdioSpec) -> AsyncIterator[Stdio]:
            await opened.wait()
            async with open_stdio(spec) as stdio:
                yield stdio

        world.kernel.open_stdio = slow  # type: ignore[method-assign]  # a slow client
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused, shim)
            await trio.testing.wait_all_tasks_blocked()
            await shim.kill(ask.kill("c1"))
            await shim.wait(ask.wait("c1"))
            opened.set()


async def refused(shim: TaskClient) -> None:
    await shim.exec(ask.exec_("c1", "e1"))
    with pytest.raises(FailedPreconditionError, match="init process is not running"):
        await shim.start(ask.start("c1", "e1"))


async def test_two_deletes_of_an_exec_get_one_answer(autojump_clock: trio.abc.Clock) -> None:
    """Whichever is quicker (P14)."""
    answers: list[api.DeleteResponse] = []
    async with running(e1=Program(status=3, after=1)) as (world, shim):

        async def delete() -> None:
            answers.append(await shim.delete(ask.delete("c1", "e1")))

        await run(shim, "e1")
        await shim.wait(ask.wait("c1", "e1"))
        stdio = world.kernel.stdios[-1]

        async def slow() -> None:
            await trio.sleep(1)

        stdio.drain = slow  # type: ignore[method-assign]  # so the other one waits for its turn
        async with trio.open_nursery() as nursery:
            nursery.start_soon(delete)
            nursery.start_soon(delete)
    assert [answer.exit_status for answer in answers] == [3, 3]


async def test_a_delete_of_an_exec_that_fails_can_be_asked_again(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Nothing is forgotten before the last step has succeeded (P14)."""
    async with running(e1=Program(status=3, after=1)) as (world, shim):
        await run(shim, "e1")
        await shim.wait(ask.wait("c1", "e1"))
        stdio = world.kernel.stdios[-1]
        drain, failures = stdio.drain, [OSError(5, "cannot copy")]

        async def failing() -> None:
            if failures:
                raise failures.pop()
            await drain()

        stdio.drain = failing  # type: ignore[method-assign]  # a disk that is full once
        with pytest.raises(ShimError, match="cannot copy"):
            await shim.delete(ask.delete("c1", "e1"))
        assert (await shim.state(ask.state("c1", "e1"))).exit_status == 3
        assert (await shim.delete(ask.delete("c1", "e1"))).exit_status == 3


async def test_close_io_may_come_before_start(autojump_clock: trio.abc.Clock) -> None:
    """The exec finds its input closed."""
    async with running() as (world, shim):
        await shim.exec(ask.exec_("c1", "e1"))
        await shim.close_io(api.CloseIORequest(id="c1", exec_id="e1", stdin=True))
        await shim.start(ask.start("c1", "e1"))
        assert world.kernel.stdios[-1].stdin_closed


async def test_a_kill_that_comes_too_late_says_so(autojump_clock: trio.abc.Clock) -> None:
    """The process has ended, and the shim has not heard of it yet."""
    async with running() as (world, shim):
        await run(shim, "e1")
        child = world.service._containers.get("c1").process("e1").child
        assert child is not None

        def gone(signum: int) -> None:
            raise ProcessLookupError(3, "no such process")

        child.signal = gone  # type: ignore[method-assign]  # no schedule of the fake gets there
        with pytest.raises(NotFoundError, match="process already finished"):
            await shim.kill(ask.kill("c1", "e1"))
