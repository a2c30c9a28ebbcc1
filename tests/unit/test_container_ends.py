"""How a process ends with its block: `end_process` with a whole shim in memory."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from google.protobuf import any_pb2

from trioshim.client import EventSink, TaskClient
from trioshim.containers import (
    DEVNULL,
    Container,
)
from trioshim.containers import _ending as ending
from trioshim.containers._ending import GRACE, Deliver, end_process
from trioshim.containers._fifos import Fifos
from trioshim.containers._options import Plan
from trioshim.containers._outputs import Copy, Streams
from trioshim.containers._process import ContainerProcess
from trioshim.errors import ShimError, UnavailableError
from trioshim.proto import task_v2_pb2 as api
from trioshim.testing import Program, cancel_everywhere, open_shim, run_schedule
from trioshim.ttrpc._shelter import open_shelter

NOTHING = Streams(DEVNULL, DEVNULL, DEVNULL, terminal=False)
NO_FIFOS = Fifos("", "", "", None, None)


@pytest.fixture
def hears(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Say whether inits catch SIGTERM: the pids of this shim are none of this machine."""

    def say(it_does: bool) -> None:
        monkeypatch.setattr(ending, "_catches", lambda _pid, _signum: it_does)

    say(True)
    return say


@asynccontextmanager
async def open_process(
    task: TaskClient, helpers: trio.Nursery, deliver: Deliver | None = None, exec_id: str = ""
) -> AsyncIterator[ContainerProcess]:
    """As `open_container` and `Container.exec` do it."""
    process = ContainerProcess(task, ["program"], "box", exec_id, NO_FIFOS)
    with process._attended():
        try:
            if exec_id:
                spec = any_pb2.Any(value=b"{}")
                await task.exec(api.ExecProcessRequest(id="box", exec_id=exec_id, spec=spec))
            else:
                created = await task.create(api.CreateTaskRequest(id="box", bundle="/b"))
                process.pid = created.pid
            await process._begin(helpers, NOTHING)
            yield process
        finally:
            await end_process(process, deliver)


@asynccontextmanager
async def open_helped(
    program: Program | None = None,
) -> AsyncIterator[tuple[TaskClient, trio.Nursery]]:
    """A shim in memory whose containers run this; afterwards nothing is left of them."""
    program = program or Program()
    async with (
        open_shim(program=lambda _id, _exec: program) as world,
        world.client() as task,
        open_shelter() as helpers,
    ):
        yield task, helpers
        world.check_nothing_left()


@asynccontextmanager
async def open_box(program: Program, **more: Any) -> AsyncIterator[ContainerProcess]:
    """A container in memory."""
    async with (
        open_helped(program) as (task, helpers),
        open_process(task, helpers, **more) as process,
    ):
        yield process


@pytest.mark.parametrize(
    ("program", "catches", "status", "seconds"),
    [
        (Program(handles={15: 7}), True, 7, 0),
        (Program(), False, 137, 0),
        (Program(), True, 137, GRACE),
    ],
    ids=["obeys", "cannot hear", "does not obey"],
)
async def test_init_is_ended_in_time(
    hears: Callable[[bool], None],
    autojump_clock: trio.testing.MockClock,
    program: Program,
    catches: bool,
    status: int,
    seconds: float,
) -> None:
    """SIGTERM if it has an effect, else SIGKILL at once; and SIGKILL when its time is over."""
    hears(catches)
    async with open_box(program) as process:
        began = trio.current_time()
    assert process.returncode == status
    assert trio.current_time() - began == pytest.approx(seconds, abs=1)


async def test_an_exec_is_ended_and_the_container_is_not(
    hears: Callable[[bool], None], autojump_clock: trio.testing.MockClock
) -> None:
    """By SIGTERM, whatever the rule for init."""
    hears(False)
    async with open_box(Program()) as process:
        assert process._helpers is not None
        async with open_process(process._task, process._helpers, exec_id="e") as made:
            assert made.pid != process.pid
        assert made.returncode == 128 + signal.SIGTERM
        assert process.returncode is None


@pytest.mark.usefixtures("hears")
async def test_nobody_is_told_to_end_who_has(autojump_clock: trio.testing.MockClock) -> None:
    """It is only deleted."""

    async def deliver(_process: ContainerProcess) -> None:
        pytest.fail("it has ended")

    async with open_box(Program(status=4, after=1), deliver=deliver) as process:
        assert await process.wait() == 4
    assert await process.wait() == 4


@pytest.mark.usefixtures("hears")
async def test_a_way_to_end_it_that_fails(autojump_clock: trio.testing.MockClock) -> None:
    """It is killed without delay, the error comes out; one of the shim is only logged."""

    def failing(error: Exception) -> Deliver:
        async def deliver(_process: ContainerProcess) -> None:
            raise error

        return deliver

    async with open_helped() as (task, helpers):
        with pytest.raises(ZeroDivisionError):
            async with open_process(task, helpers, failing(ZeroDivisionError())) as process:
                began = trio.current_time()
        assert process.returncode == 137
        assert trio.current_time() - began < 1
        async with open_process(task, helpers, failing(UnavailableError("away"))) as process:
            pass
        assert process.returncode == 137


@pytest.mark.usefixtures("hears")
async def test_a_program_that_is_not_there(autojump_clock: trio.testing.MockClock) -> None:
    """The error is the runtime's, and there is nobody to end."""
    async with open_helped(Program(missing=True)) as (task, helpers):
        with pytest.raises(ShimError, match="not found"):
            async with open_process(task, helpers):
                pytest.fail("it has no block")


@pytest.mark.usefixtures("hears")
async def test_a_shim_that_is_gone(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody knows how it has ended; and nobody waits for that."""
    async with (
        open_shim() as world,
        world.client() as task,
        open_shelter() as helpers,
        open_process(task, helpers) as process,
    ):
        world.serving.cancel()
        with pytest.raises(UnavailableError):
            await process.wait()
    assert process.returncode is None


@pytest.mark.usefixtures("hears")
async def test_what_is_under_way_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    """When a process has ended, its block waits for output that somebody has still to take."""
    send, receive = trio.testing.memory_stream_one_way_pair()
    reading, writing = os.pipe()
    async with open_box(Program(status=0, after=0)) as process, trio.open_nursery() as nursery:
        copy = Copy(receive, writing, pytest.fail)
        process._copies.append(copy)
        nursery.start_soon(copy.run)
        await send.send_all(bytes(1 << 20))
        await process.wait()
        with trio.move_on_after(100) as scope:
            await process._flush()
        assert scope.cancelled_caught
        await copy.stop()
    os.close(reading)
    os.close(writing)


@pytest.mark.usefixtures("hears")
async def test_killed_while_it_is_paused(autojump_clock: trio.testing.MockClock) -> None:
    """To resume what has ended fails, and that is no failure of the block; but others are."""
    async with open_helped() as (task, helpers):
        created = await task.create(api.CreateTaskRequest(id="box", bundle="/b"))
        nothing = Plan([], {}, [], "/")
        sink = EventSink("/nowhere")
        box = Container(task, nothing, "box", NO_FIFOS, Path("/b"), sink, helpers)
        box.pid = created.pid
        await box._begin(helpers, NOTHING)
        with pytest.raises(ShimError):
            async with box.paused():
                await box.task.resume(api.ResumeRequest(id="box"))
        async with box.paused():
            await box.kill()
            await box.wait()
        await end_process(box, None)


class Mute:
    """A connection to a shim that was stopped."""

    async def call(
        self, service: str, method: str, payload: bytes, *, timeout: float | None = None
    ) -> bytes:
        await trio.sleep_forever()
        raise AssertionError


@pytest.mark.usefixtures("hears")
async def test_a_shim_that_does_not_answer(autojump_clock: trio.testing.MockClock) -> None:
    """It is given up within two times the grace; the rest is for `launch` to do."""
    async with open_shim() as world, world.client() as task, open_shelter() as helpers:
        async with open_process(task, helpers) as process:
            task._caller = Mute()
            began = trio.current_time()
        assert trio.current_time() - began == pytest.approx(2 * GRACE)
    assert process.returncode is None


async def slowly(_verb: str) -> None:
    """As a runtime is: a Start takes its time, and may be cancelled meanwhile."""
    await trio.sleep(0.1)


@pytest.mark.usefixtures("hears")
@pytest.mark.parametrize("exec_id", ["", "e"])
def test_cancelled_at_any_step(exec_id: str) -> None:
    """Of its beginning, its life and its end: there is no process and nothing of it afterwards.

    A Create that is cancelled is for `launch` to undo; here it is not probed.
    """

    async def scenario(blow: Any) -> None:
        async with (
            open_shim(program=lambda _id, _exec: Program(handles={15: 7}), step=slowly) as world,
            world.client() as task,
            open_shelter() as helpers,
        ):
            created = await task.create(api.CreateTaskRequest(id="box", bundle="/b"))
            began = trio.current_time()
            with trio.CancelScope() as scope:
                init = ContainerProcess(task, ["program"], "box", "", NO_FIFOS)
                init.pid = created.pid
                try:
                    if exec_id:
                        await init._begin(helpers, NOTHING)
                    with blow.may_fall(scope.cancel):
                        if not exec_id:
                            await init._begin(helpers, NOTHING)
                            await trio.sleep(1)
                        else:
                            async with open_process(task, helpers, exec_id=exec_id) as made:
                                await trio.sleep(1)
                            assert made.returncode is not None
                finally:
                    with trio.CancelScope(shield=True):
                        pids = await task.pids(api.PidsRequest(id="box"))
                        assert [each.pid for each in pids.processes] == [init.pid]
                    await end_process(init, None)
            assert trio.current_time() - began < GRACE  # nobody had to be killed
            world.check_nothing_left()

    assert cancel_everywhere(scenario).fallen > 10


@pytest.mark.usefixtures("hears")
@pytest.mark.parametrize("seed", range(10))
def test_in_any_order_of_steps(seed: int) -> None:
    """Its own status, or that of its end: nothing between, and nothing left."""

    async def scenario() -> int | None:
        program = Program(status=4, after=0.5, handles={15: 7})
        async with open_box(program) as process:
            with trio.move_on_after(0.11 * seed):
                await process.wait()
        return process.returncode

    assert run_schedule(scenario, seed=seed) == (4 if seed >= 5 else 7)
