"""One failing call of a port, at each place in a life: told or logged, never fatal, nothing left.

Beside the container that it happens to another one runs, and must not notice.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from tests.sim import requests as ask
from trioshim.client import TaskClient
from trioshim.errors import ShimError
from trioshim.proto import task_v2_pb2 as api
from trioshim.proto.task_types_pb2 import Status
from trioshim.testing import Program, World, check_event_order, open_shim

ERRORS = [errno.ENOSPC, errno.EMFILE, errno.ENOMEM, errno.EIO]
Step = Callable[[TaskClient], Awaitable[object]]

LIFE: dict[str, Step] = {
    "create": lambda shim: shim.create(ask.create("c1")),
    "start": lambda shim: shim.start(ask.start("c1")),
    "add": lambda shim: shim.exec(ask.exec_("c1", "e1")),
    "exec": lambda shim: shim.start(ask.start("c1", "e1")),
    "stats": lambda shim: shim.pids(api.PidsRequest(id="c1")),
    "pause": lambda shim: shim.pause(api.PauseRequest(id="c1")),
    "resume": lambda shim: shim.resume(api.ResumeRequest(id="c1")),
    "update": lambda shim: shim.update(api.UpdateTaskRequest(id="c1", resources={"value": b"{}"})),
    "checkpoint": lambda shim: shim.checkpoint(api.CheckpointTaskRequest(id="c1")),
    "kill": lambda shim: shim.kill(ask.kill("c1")),
    "wait": lambda shim: shim.wait(ask.wait("c1")),
    "delete exec": lambda shim: shim.delete(ask.delete("c1", "e1")),
    "delete": lambda shim: shim.delete(ask.delete("c1")),
}


@dataclass(frozen=True)
class Fault:
    """A call of a port that fails once.

    Attributes:
        step: where in the life.
        call: the verb of the runtime, or the method of the kernel after "kernel ".
        told: the client gets a status; otherwise only the log tells.
        retried: asking again succeeds.
    """

    step: str
    call: str
    told: bool = True
    retried: bool = True

    def __str__(self) -> str:
        return f"{self.step}: {self.call}"


FAULTS = [
    Fault("create", "kernel make_directory"),
    Fault("create", "kernel mount"),
    Fault("create", "kernel open_stdio"),
    Fault("create", "kernel attach"),
    Fault("create", "kernel cgroup", told=False),
    Fault("create", "create"),
    Fault("create", "create returns"),
    Fault("start", "start"),
    Fault("start", "start returns", retried=False),  # it runs already
    Fault("exec", "kernel open_stdio"),
    Fault("exec", "kernel attach"),
    Fault("exec", "exec"),
    Fault("exec", "exec returns"),
    Fault("pause", "pause"),
    Fault("resume", "resume"),
    Fault("update", "update"),
    Fault("checkpoint", "checkpoint"),
    Fault("kill", "kill"),
    Fault("kill", "kernel write_file", told=False),
    Fault("kill", "kill_remaining", told=False),
    Fault("delete", "delete"),
    Fault("delete", "kernel unmount"),
]


@dataclass
class Failing:
    """Arms the fault, and knows whether it has happened."""

    fault: Fault
    error: OSError
    armed: bool = False
    world: World = field(init=False)

    async def step(self, verb: str) -> None:
        if self.armed and verb == self.fault.call:
            self.armed = False
            raise self.error

    def arm(self) -> None:
        if self.fault.call.startswith("kernel "):
            self.world.kernel.faults[self.fault.call.removeprefix("kernel ")] = self.error
        else:
            self.armed = True

    @property
    def happened(self) -> bool:
        return not self.armed and not self.world.kernel.faults


async def live(failing: Failing, shim: TaskClient, *, retry: bool) -> None:
    """Step by step; what fails is asked again, or given up and the container removed."""
    fault = failing.fault
    for name, step in LIFE.items():
        if name != fault.step:
            await step(shim)
            continue
        failing.arm()
        if not fault.told:
            await step(shim)
            continue
        with pytest.raises(ShimError, match=failing.error.strerror):
            await step(shim)
        assert failing.happened
        await check_the_other_one(shim)
        if not (retry and fault.retried):
            await remove(shim)
            return
        await step(shim)


async def check_the_other_one(shim: TaskClient) -> None:
    assert (await shim.state(ask.state("other"))).status == Status.RUNNING


async def remove(shim: TaskClient) -> None:
    """As a daemon does that wants no more of it."""
    try:
        await shim.state(ask.state("c1"))
    except ShimError:
        return  # its Create has failed: there is nothing
    await tried(shim.resume(api.ResumeRequest(id="c1")))
    await tried(shim.kill(ask.kill("c1", all_=True)))
    if (await shim.state(ask.state("c1"))).status != Status.CREATED:
        await shim.wait(ask.wait("c1"))
    await shim.delete(ask.delete("c1"))


async def tried(call: Awaitable[object]) -> None:
    try:
        await call
    except ShimError:
        return


async def end_other_and_shut_down(world: World, shim: TaskClient) -> None:
    await check_the_other_one(shim)
    await shim.kill(ask.kill("other"))
    await shim.wait(ask.wait("other"))
    await shim.delete(ask.delete("other"))
    await shim.shutdown(ask.shutdown())
    await world.stopped.wait()


def make(fault: Fault, number: int) -> Failing:
    return Failing(fault, OSError(number, os.strerror(number)))


@pytest.mark.parametrize("retry", [True, False], ids=["retry", "remove"])
@pytest.mark.parametrize("number", ERRORS, ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_a_call_that_fails_once_harms_nobody(
    fault: Fault,
    number: int,
    retry: bool,
    autojump_clock: trio.abc.Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The client is told or the log is; the laws hold and nothing is left."""
    failing = make(fault, number)
    async with (
        open_shim(program=lambda *_: Program(after=None), step=failing.step) as world,
        world.client() as shim,
    ):
        failing.world = world
        await shim.create(ask.create("other"))
        await shim.start(ask.start("other"))
        with trio.fail_after(600):
            await live(failing, shim, retry=retry)
            assert failing.happened
            await end_other_and_shut_down(world, shim)
        world.check_nothing_left()
    check_event_order(world.publisher.events)
    if not fault.told:
        assert os.strerror(number) in caplog.text


@pytest.mark.parametrize("number", ERRORS, ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize("call", ["restore", "restore returns", "kernel attach", "kernel cgroup"])
async def test_a_failing_restore_can_be_asked_again_or_removed(
    call: str, number: int, autojump_clock: trio.abc.Clock
) -> None:
    """It is Start that brings the process there, and Start that fails."""
    fault = Fault("start", call, told=call != "kernel cgroup")
    failing = make(fault, number)
    async with (
        open_shim(program=lambda *_: Program(after=None), step=failing.step) as world,
        world.client() as shim,
    ):
        failing.world = world
        await shim.create(ask.create("c1", checkpoint="/image"))
        failing.arm()
        if fault.told:
            with pytest.raises(ShimError, match=failing.error.strerror):
                await shim.start(ask.start("c1"))
            assert (await shim.state(ask.state("c1"))).status == Status.CREATED
        else:
            await shim.start(ask.start("c1"))
        assert failing.happened
        with trio.fail_after(600):
            await remove_restored(shim)
            await shim.shutdown(ask.shutdown())
            await world.stopped.wait()
        world.check_nothing_left()
    check_event_order(world.publisher.events)


async def remove_restored(shim: TaskClient) -> None:
    await tried(shim.kill(ask.kill("c1", all_=True)))
    await shim.delete(ask.delete("c1"))


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.step == "create" and f.told], ids=str)
async def test_nothing_is_left_of_a_create_that_failed(
    fault: Fault, autojump_clock: trio.abc.Clock
) -> None:
    """Not only at the end of the shim: when Create is answered (P17), and the id is free."""
    failing = make(fault, errno.EIO)
    async with open_shim(step=failing.step) as world, world.client() as shim:
        failing.world = world
        failing.arm()
        with pytest.raises(ShimError):
            await shim.create(ask.create("c1"))
        await trio.testing.wait_all_tasks_blocked()
        world.check_nothing_left()
        assert world.publisher.events == []
        await shim.create(ask.create("c1"))
