"""A daemon that asks again or gives up, in a life with faults, and what must hold afterwards.

Beside each life another container runs, and must not notice.  To see one run again:
`python -m tests.sim.fault_runs LIFE "FaultPlan(...)"`.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Awaitable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field

import trio
from google.protobuf.message import Message

from tests.sim import requests as ask
from tests.sim.fault_lives import LIVES, Aside, Life, Step
from trioshim.abc import ContainerSpec
from trioshim.client import TaskClient
from trioshim.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    NotFoundError,
    ShimError,
    StatusError,
)
from trioshim.proto import events_pb2 as events
from trioshim.proto import task_v2_pb2 as api
from trioshim.proto.task_types_pb2 import Status
from trioshim.testing import (
    Fault,
    FaultKind,
    FaultPlan,
    PortCall,
    World,
    check_event_order,
    open_shim,
    run_schedule,
)

AWAY = 660  # virtual seconds: longer than any fault
ID_IS_TAKEN = "OCI runtime create failed: container with given ID already exists: already exists"
HARMLESS = {
    *("publisher.publish", "kernel.write_file", "child.wait"),
    *("cgroup.oom_changed", "cgroup.pids", "stdio.drain"),
}
GIVEN_UP = re.compile(r"(\w+): cannot (?:remove|unmount)")  # in the log
PAUSES = (1, 1, 2, 4, 8, 16, 32, 64)  # between kill and delete, until the daemon calls it a leak
# What a request may be refused with because of what a fault has done to its container.
FOLLOWS = re.compile(
    r"cannot (start|delete|resize|pause|resume|update|checkpoint|exec in) an? \w+ "
    r"(process|container|state)"
    r"|container (not running|not paused|not created|does not exist)"
    r"|cannot start (a container that has stopped|an already running container)"
    r"|cannot exec in a (stopped|paused) container"
    r"|cannot delete container that is not stopped"
    r"|process (already finished|not created|does not exist)"
    r"|is removed, but its init \d+ or what it leaves behind has not ended within 10 s: ask again"
    r"|no such container|cgroup does not exist|init process is not running"
)


class _GaveUpError(Exception):
    """The daemon has been refused, and removes the container."""


@dataclass
class Run:
    """One run of a life.

    Attributes:
        patient: the daemon asks again once before it gives a container up.
        wild: several faults: some may not come, or hide each other; and an undoing that fails
            leaves something, which the log names and the daemon's `delete` action removes.
        answers: what clients were answered, without those that were refused.
        told: the refusals.
        logged: what the log was.
        during: calls of ports made for the life, not for the container beside it.
        seconds: virtual ones, of all of it.
    """

    name: str
    plan: FaultPlan
    patient: bool = True
    wild: bool = False
    answers: list[object] = field(default_factory=list)
    told: list[ShimError] = field(default_factory=list)
    logged: list[logging.LogRecord] = field(default_factory=list)
    during: list[PortCall] = field(default_factory=list)
    seconds: float = 0.0
    world: World = field(init=False)

    @property
    def life(self) -> Life:
        return LIVES[self.name]

    def open_world(self) -> AbstractAsyncContextManager[World]:
        """A shim for this life, with the plan between it and its ports."""
        return open_shim(
            program=self.life.program,
            shared_pid_namespace=self.life.shared_pid_namespace,
            pid_max=self.life.pid_max,
            faults=self.plan,
        )

    # ------------------------------------------------------------ the daemon

    async def live(self) -> None:
        with trio.fail_after(7200):
            async with self.open_world() as self.world:
                async with self.world.client() as shim:
                    await self._beside_another(shim)
                    await shim.shutdown(ask.shutdown())
                    await self.world.stopped.wait()
                self.seconds = trio.current_time()
                if self.wild:
                    await delete_actions(self.world, self.logged)
                self.world.check_nothing_left()

    async def _beside_another(self, shim: TaskClient) -> None:
        await shim.create(ask.create("other"))
        await shim.start(ask.start("other"))
        await trio.sleep(1)  # its events are delivered
        first = len(self.plan.calls)
        async with trio.open_nursery() as watch:
            watch.start_soon(self._look, shim)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._use, shim, "c1", self.life.steps)
                if self.life.beside:
                    nursery.start_soon(self._use, shim, "c2", self.life.beside)
            watch.cancel_scope.cancel()
        self.during = self.plan.calls[first:]
        assert (await shim.state(ask.state("other"))).status == Status.RUNNING
        await self._remove(shim, "other")
        await trio.sleep(AWAY)  # the daemon is back, and has heard everything

    async def _look(self, shim: TaskClient) -> None:
        """Law 7: whatever happens to others, State is answered at once."""
        while True:
            before = trio.current_time()
            assert (await shim.state(ask.state("other"))).status == Status.RUNNING
            try:
                await shim.state(ask.state("c1"))
            except NotFoundError:
                await trio.lowlevel.checkpoint()
            assert trio.current_time() == before, "State has waited"
            await trio.sleep(3)

    async def _use(self, shim: TaskClient, id_: str, steps: tuple[Step | Aside, ...]) -> None:
        created = False
        async with trio.open_nursery() as waiting:
            try:
                for number, step in enumerate(steps):
                    if isinstance(step, Aside):
                        waiting.start_soon(self._tried, step.step(shim))
                        continue
                    await self._ask(shim, step, may_be_refused=number == self.life.may_be_refused)
                    if not created:
                        created = True
                        waiting.start_soon(self._tried, shim.wait(ask.wait(id_)))
            except _GaveUpError:
                if created:
                    await self._remove(shim, id_)
                else:
                    self.check_no_trace(id_)

    async def _ask(self, shim: TaskClient, step: Step, *, may_be_refused: bool = False) -> None:
        for _ in range(1 + self.patient):
            if await self._tried(step(shim)):
                return
        if not may_be_refused:
            raise _GaveUpError

    async def _remove(self, shim: TaskClient, id_: str) -> None:
        for pause in PAUSES:
            await self._tried(shim.kill(ask.kill(id_, all_=True)))
            await trio.sleep(pause)
            if await self._tried(shim.delete(ask.delete(id_))):
                return
            if str(self.told[-1]) == "container not created: not found":
                return
        raise AssertionError(f"{id_} cannot be removed: {[str(error) for error in self.told]}")

    async def _tried(self, call: Awaitable[object]) -> bool:
        try:
            self.answers.append(await call)
        except ShimError as error:
            self.told.append(error)
            return False
        return True

    # ------------------------------------------------------------ what must hold

    def check(self) -> None:
        """Raise AssertionError (`LawBrokenError` is one) if something does not."""
        self.check_events()
        assert self.wild or not self.plan.missed, "the planned call has not come"
        for error in self.told:
            self.check_status(error)
        for record in self.logged:
            assert not record.exc_info, f"not foreseen: {record.getMessage()} {record.exc_info}"
        self.check_told()

    def check_no_trace(self, id_: str) -> None:
        """When a failed Create is answered, nothing is left of it (P17), or the log names it."""
        if self.wild and any(GIVEN_UP.search(record.getMessage()) for record in self.logged):
            return
        assert id_ not in self.world.runtime.containers
        assert f"/bundles/{id_}/rootfs" not in self.world.kernel.mounts
        assert id_ not in [stdio.spec.id for stdio in self.world.kernel.stdios]

    def check_events(self) -> None:
        seen = once_each(self.world)
        hung = any(
            fault.kind is FaultKind.HANGS and fault.call == "publisher.publish"
            for fault in self.plan.faults
        )
        check_event_order(seen, complete=not hung)
        of_other = [type(e) for e in seen if getattr(e, "container_id", "") == "other"]
        life = [events.TaskCreate, events.TaskStart, events.TaskExit, events.TaskDelete]
        assert of_other == (life[: len(of_other)] if hung else life)
        if not hung:
            check_exits(seen)
            for answer in self.answers:
                check_answer(answer, seen)
            self.check_memory(seen)

    def check_memory(self, seen: list[Message]) -> None:
        """What the kernel killed for memory is told, even if the watching failed (law 4)."""
        otherwise = any(
            fault.call == "kernel.cgroup" or fault.kind is FaultKind.ENDS
            for fault in self.plan.happened
        )
        if self.name == "out of memory" and not self.told and not otherwise:
            assert any(isinstance(e, events.TaskOOM) for e in seen), "no OOM was told"

    def check_status(self, error: ShimError) -> None:
        """It says what was wrong: the fault, or the state that it has left."""
        text = str(error)
        if self.wild and text == ID_IS_TAKEN:
            return  # by a container whose undoing was given up
        known = (StatusError, NotFoundError, FailedPreconditionError, DeadlineExceededError)
        assert type(error) in known, f"{type(error).__name__}: {text}"
        faults = [fault.text for fault in self.plan.happened if fault.text]
        assert any(said in text for said in faults) or FOLLOWS.search(text), text
        assert "Error" not in text
        assert "Traceback" not in text

    def check_told(self) -> None:
        """Each fault has been told to a client, or else the log tells it."""
        said = [str(error) for error in self.told] + [r.getMessage() for r in self.logged]
        if not self.wild and self.life.may_be_refused < 0:
            assert not (self.told and all(map(is_harmless, self.plan.happened))), said
        given_up = any(" within 10 s, given up" in text for text in said)
        for fault in self.plan.happened:
            hidden = self.wild and (fault.call == "publisher.publish" or given_up)
            told = any(fault.text in text for text in said)
            assert told or hidden or not fault.text, f"nobody was told of {fault}"


def is_harmless(fault: Fault) -> bool:
    """No client is refused anything for it."""
    return fault.call in HARMLESS or fault.kind in (FaultKind.SLOW, FaultKind.REUSES)


def once_each(world: World) -> list[Message]:
    """What was delivered, without what a publisher whose answer was lost got again."""
    envelopes = world.publisher.envelopes
    return [
        event
        for number, event in enumerate(world.publisher.events)
        if number == 0 or envelopes[number] != envelopes[number - 1]
    ]


def check_exits(seen: list[Message]) -> None:
    """Law 2, for processes that were created and never started, too."""
    created = [e.pid for e in seen if isinstance(e, events.TaskCreate) and e.pid]
    exits = [e.pid for e in seen if isinstance(e, events.TaskExit)]
    for pid in created:
        assert pid in exits, f"no exit of process {pid}"


def check_answer(answer: object, seen: list[Message]) -> None:
    """An answer that names an exit or a start names one that is told (law 6)."""
    match answer:
        case api.StartResponse():
            started = (events.TaskStart, events.TaskExecStarted)
            assert answer.pid in [e.pid for e in seen if isinstance(e, started)], answer
        case api.WaitResponse() | api.DeleteResponse() if answer.exited_at.seconds > 0:
            exits = [
                (e.exit_status, e.exited_at.ToNanoseconds())
                for e in seen
                if isinstance(e, events.TaskExit)
            ]
            assert (answer.exit_status, answer.exited_at.ToNanoseconds()) in exits, answer


async def delete_actions(world: World, logged: list[logging.LogRecord]) -> None:
    """What a daemon runs for containers whose undoing the shim had to give up."""
    await remove({m[1] for r in logged if (m := GIVEN_UP.search(r.getMessage()))}, world)


async def remove(ids: set[str], world: World) -> None:
    """Remove containers that no shim cares for any more; orphans go to pid 1."""
    async with trio.open_nursery() as pid_1:
        pid_1.start_soon(world.kernel.reap_strangers)
        for id_ in sorted(ids):
            await world.runtime.delete(ContainerSpec(id_, f"/bundles/{id_}"), force=True)
            await world.kernel.unmount(f"/bundles/{id_}/rootfs")
        await trio.sleep(1)
        pid_1.cancel_scope.cancel()


@contextmanager
def heard(records: list[logging.LogRecord]) -> Iterator[None]:
    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger, listener = logging.getLogger("trioshim"), Listener()
    logger.addHandler(listener)
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
        logger.propagate = propagate


def live(
    name: str, plan: FaultPlan, *, patient: bool = True, seed: int = 0, wild: bool = False
) -> Run:
    """Live one life and check what must hold.

    Raises:
        AssertionError: with a note that says how to run it again.
    """
    run = Run(name, plan, patient, wild)
    try:
        with heard(run.logged):
            run_schedule(run.live, seed=seed)
        run.check()
    except BaseException as error:
        again = (
            f'{name!r} "{plan!r}"{" --impatient" * (not patient)}{" --wild" * wild} --seed {seed}'
        )
        error.add_note(f"{', '.join(map(str, plan.faults))}, in the life {name!r}")
        error.add_note(f"clients were told {[str(error) for error in run.told]}")
        error.add_note(f"to run it again: python -m tests.sim.fault_runs {again}")
        raise
    return run


@functools.cache
def calls_of(name: str) -> list[PortCall]:
    """The port calls of a life without faults."""
    return live(name, FaultPlan()).during


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument("life", choices=LIVES)
    parser.add_argument("plan")
    parser.add_argument("--impatient", action="store_true")
    parser.add_argument("--wild", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    names = {"Fault": Fault, "FaultKind": FaultKind, "FaultPlan": FaultPlan}
    plan = eval(given.plan, names)
    patient = not given.impatient
    run = live(given.life, plan, patient=patient, seed=given.seed, wild=given.wild)
    print(f"told: {[str(error) for error in run.told]}")
    print(f"logged: {[record.getMessage() for record in run.logged]}")
    print(f"events: {[type(event).__name__ for event in run.world.publisher.events]}")


if __name__ == "__main__":
    main()
