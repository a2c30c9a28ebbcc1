"""A generated day in the life of a shim, and every law checked on what came of it.

One seed decides the programs, how long the runtime takes, when the daemon is away, what the
clients ask and in which order trio runs the tasks.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import trio

from tests.sim import requests as ask
from trioshim.client import TaskClient, Wire
from trioshim.errors import ShimError, UnavailableError
from trioshim.proto import events_pb2 as events
from trioshim.proto import task_v2_pb2 as api
from trioshim.testing import (
    FaultPlan,
    LawBrokenError,
    Program,
    Trace,
    World,
    check_event_order,
    open_shim,
    run_schedule,
)

PAUSES = (0.0, 0.0, 0.0, 0.001, 0.1, 2.0)  # virtual seconds


@dataclass
class Day:
    """What one seed has decided, drawn before trio runs."""

    seed: int
    protocol: Wire = "ttrpc"
    draw: random.Random = field(init=False)
    shared_pid_namespace: bool = field(init=False)
    pid_max: int = field(init=False)
    programs: dict[tuple[str, str], Program] = field(default_factory=dict)
    answers: list[tuple[str, str, str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.draw = random.Random(f"day {self.seed}")
        self.shared_pid_namespace = self.draw.random() < 0.3
        self.pid_max = self.draw.choice((12, 20, 32768))

    def open_world(self, faults: FaultPlan | None = None) -> AbstractAsyncContextManager[World]:
        """A shim for this day."""
        return open_shim(
            program=self.program,
            step=self.step,
            publishing=self.publishing,
            shared_pid_namespace=self.shared_pid_namespace,
            pid_max=self.pid_max,
            faults=faults,
            protocol=self.protocol,
        )

    def program(self, id_: str, exec_id: str) -> Program:
        draw = random.Random(f"{self.seed} {id_} {exec_id}")
        kind = draw.random()
        after = None if kind < 0.4 else draw.choice((0.0, 0.0, 0.05, 1.0))
        dies = ""
        if kind > 0.9:
            dies = "exec" if exec_id else draw.choice(("create", "start"))
        return Program(
            status=draw.choice((0, 1, 42)),
            after=after,
            dies=dies,
            out_of_memory=draw.random() < 0.2,
            ignores=frozenset({15}) if draw.random() < 0.3 else frozenset(),
            lingers=draw.choice((0.0, 0.0, 0.3)),
        )

    async def step(self, verb: str) -> None:
        await self.pause()
        may_fail = verb not in ("delete", "kill_remaining") and not verb.endswith("returns")
        if may_fail and self.draw.random() < 0.03:
            raise OSError(5, f"the runtime's {verb} failed")

    async def publishing(self) -> None:
        # Short enough for the shim to drain its queue in time at the end.
        await trio.sleep(self.draw.choice((0.0, 0.001, 0.02)))
        if self.draw.random() < 0.15:
            raise UnavailableError("the daemon is away")

    async def pause(self) -> None:
        pause = self.draw.choice(PAUSES)
        if pause:
            await trio.sleep(pause)
        else:
            await trio.lowlevel.checkpoint()


async def live_one_day(day: Day) -> World:
    """Containers come and go under several clients; at the end the shim is shut down."""
    with trio.fail_after(3600):  # virtual seconds: who waits longer waits for ever
        return await _live_one_day(day)


async def _live_one_day(day: Day) -> World:
    async with day.open_world() as world:
        await use_containers(day, world)
        async with world.client() as shim:
            await shim.shutdown(ask.shutdown())
            await world.stopped.wait()
    return world


async def use_containers(day: Day, world: World) -> None:
    """One container or two, at the same time, until they are gone."""
    async with world.client() as shim, trio.open_nursery() as nursery:
        for number in range(day.draw.choice((1, 1, 2))):
            nursery.start_soon(use_container, day, world, shim, f"c{number}")


async def use_container(day: Day, world: World, shim: TaskClient, id_: str) -> None:
    created = await told(day, world, "create", id_, "", shim.create(ask.create(id_)))
    if created is None:
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for, day, world, shim, id_, "")
        if day.draw.random() < 0.9:
            nursery.start_soon(start, day, world, shim, id_)
        for number in range(day.draw.choice((0, 1, 2))):
            nursery.start_soon(use_exec, day, world, shim, id_, f"e{number}")
        if day.draw.random() < 0.3:
            nursery.start_soon(pause_and_resume, day, shim, id_)
        await day.pause()
        await end_container(day, world, shim, id_)


async def start(day: Day, world: World, shim: TaskClient, id_: str) -> None:
    await day.pause()
    await told(day, world, "start", id_, "", shim.start(ask.start(id_)))


async def wait_for(day: Day, world: World, shim: TaskClient, id_: str, exec_id: str) -> None:
    ended = await tried(shim.wait(ask.wait(id_, exec_id)))
    if ended is not None and ended.exited_at.seconds > 0:
        day.answers.append(("exit", id_, exec_id, world.kernel.now()))


async def use_exec(day: Day, world: World, shim: TaskClient, id_: str, exec_id: str) -> None:
    await day.pause()
    if await tried(shim.exec(ask.exec_(id_, exec_id))) is None:
        return
    started = await told(
        day, world, "exec-started", id_, exec_id, shim.start(ask.start(id_, exec_id))
    )
    if started is None:
        return
    await day.pause()
    await tried(shim.kill(ask.kill(id_, exec_id)))
    await wait_for(day, world, shim, id_, exec_id)
    await tried(shim.delete(ask.delete(id_, exec_id)))


async def pause_and_resume(day: Day, shim: TaskClient, id_: str) -> None:
    await day.pause()
    await tried(shim.pause(api.PauseRequest(id=id_)))
    await day.pause()
    await tried(shim.resume(api.ResumeRequest(id=id_)))


async def end_container(day: Day, world: World, shim: TaskClient, id_: str) -> None:
    """Until it is gone: kill, wait a little, delete, as a stubborn client would."""
    await tried(shim.kill(ask.kill(id_, signal=15, all_=True)))
    for _ in range(100):
        await tried(shim.kill(ask.kill(id_, all_=True)))
        await trio.sleep(1)
        answer = await told(day, world, "delete", id_, "", shim.delete(ask.delete(id_)))
        if answer is not None:
            return
    raise AssertionError(f"{id_} cannot be deleted")


async def tried(call: Awaitable[api.WaitResponse]) -> api.WaitResponse | None:
    try:
        return await call
    except ShimError:
        return None


async def told(
    day: Day, world: World, what: str, id_: str, exec_id: str, call: Awaitable[object]
) -> object | None:
    """The answer; and when it came, for law 6."""
    try:
        answer = await call
    except ShimError:
        return None
    day.answers.append((what, id_, exec_id, world.kernel.now()))
    return answer


def check_laws(day: Day, world: World) -> None:
    """Everything that must hold at the end of a day."""
    check_event_order(world.publisher.events)
    stamps = [e.timestamp.seconds * 10**9 + e.timestamp.nanos for e in world.publisher.envelopes]
    if stamps != sorted(stamps):
        raise LawBrokenError(5, "events were delivered in another order than they happened")
    for what, id_, exec_id, when in day.answers:
        found = [
            stamp
            for event, stamp in zip(world.publisher.events, stamps, strict=True)
            if _is(event, what, id_, exec_id)
        ]
        if not found:
            raise LawBrokenError(5, f"{what} of {id_} {exec_id} was answered, its event is lost")
        if found[0] > when:
            raise LawBrokenError(6, f"{what} of {id_} {exec_id} was answered before its event")
    world.check_nothing_left()


def _is(event: object, what: str, id_: str, exec_id: str) -> bool:
    match event:
        case events.TaskCreate():
            found = ("create", event.container_id, "")
        case events.TaskStart():
            found = ("start", event.container_id, "")
        case events.TaskDelete():
            found = ("delete", event.container_id, "")
        case events.TaskExecStarted():
            found = ("exec-started", event.container_id, event.exec_id)
        case events.TaskExit():
            of_init = event.id == event.container_id
            found = ("exit", event.container_id, "" if of_init else event.id)
        case _:
            return False
    return found == (what, id_, exec_id)


def run_day(seed: int, trace: Trace | None = None, protocol: Wire = "ttrpc") -> None:
    """One schedule: live a day and check the laws.

    Raises:
        LawBrokenError, AssertionError: with the seed to run it again.
    """
    day = Day(seed, protocol)
    scenario: Callable[[], Awaitable[World]] = lambda: live_one_day(day)  # noqa: E731
    try:
        world = run_schedule(scenario, seed=seed, trace=trace)
        check_laws(day, world)
    except BaseException as error:
        error.add_note(f"to run it again: python -m tests.sim.worlds {seed}-{protocol}")
        raise


if __name__ == "__main__":
    import sys

    for argument in sys.argv[1:]:  # a seed, or a seed and a protocol: 7-grpc
        number, _, wire = argument.partition("-")
        run_day(int(number), protocol="grpc" if wire == "grpc" else "ttrpc")
        print(f"seed {argument}: all laws hold")
