"""Every await of every RPC, cancelled: the caller leaves, the connection closes, the shim ends.

For each RPC, for each kind of blow, for each step that any task of the shim takes meanwhile: the
laws hold, and nothing is left.  `pytest -s` prints the counts.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
import trio
from google.protobuf.any_pb2 import Any

from tests.sim import requests as ask
from trioshim.abc import ContainerSpec
from trioshim.client import TaskClient
from trioshim.errors import ShimError
from trioshim.proto import events_pb2 as events
from trioshim.proto import task_v2_pb2 as api
from trioshim.testing import Program, World, check_event_order, open_shim
from trioshim.testing._cancel import Blow, cancel_everywhere
from trioshim.ttrpc import open_client

Call = Callable[[TaskClient], Awaitable[object]]
FOREVER = Program(after=None)


@dataclass(frozen=True)
class Rpc:
    """One call, and what has to be there before it."""

    call: Call
    before: tuple[Call, ...] = ()
    program: Program = FOREVER


CREATE: Call = lambda shim: shim.create(ask.create("c1"))  # noqa: E731
START: Call = lambda shim: shim.start(ask.start("c1"))  # noqa: E731
ADD: Call = lambda shim: shim.exec(ask.exec_("c1", "e1"))  # noqa: E731
RUN: Call = lambda shim: shim.start(ask.start("c1", "e1"))  # noqa: E731
PAUSE: Call = lambda shim: shim.pause(api.PauseRequest(id="c1"))  # noqa: E731
KILL: Call = lambda shim: shim.kill(ask.kill("c1"))  # noqa: E731
KILL_EXEC: Call = lambda shim: shim.kill(ask.kill("c1", "e1"))  # noqa: E731
WAIT_EXEC: Call = lambda shim: shim.wait(ask.wait("c1", "e1"))  # noqa: E731
WAIT: Call = lambda shim: shim.wait(ask.wait("c1"))  # noqa: E731
RUNNING = (CREATE, START)
RESOURCES = Any(value=json.dumps({"pids": {"limit": 9}}).encode())

RPCS = {
    "Create": Rpc(CREATE),
    "Create (restore)": Rpc(lambda s: s.create(ask.create("c1", checkpoint="/image"))),
    "Start": Rpc(START, (CREATE,)),
    "Start (ends at once)": Rpc(START, (CREATE,), Program(status=3, dies="start")),
    "Start (restore)": Rpc(START, (lambda s: s.create(ask.create("c1", checkpoint="/image")),)),
    "Exec": Rpc(ADD, RUNNING),
    "Start (exec)": Rpc(RUN, (*RUNNING, ADD)),
    "Wait": Rpc(WAIT, RUNNING, Program(status=7, after=0.5)),
    "State": Rpc(lambda s: s.state(ask.state("c1")), RUNNING),
    "Pids": Rpc(lambda s: s.pids(api.PidsRequest(id="c1")), RUNNING),
    "Stats": Rpc(lambda s: s.stats(api.StatsRequest(id="c1")), RUNNING),
    "Connect": Rpc(lambda s: s.connect(api.ConnectRequest(id="c1")), RUNNING),
    "Pause": Rpc(PAUSE, RUNNING),
    "Resume": Rpc(lambda s: s.resume(api.ResumeRequest(id="c1")), (*RUNNING, PAUSE)),
    "Kill": Rpc(KILL, RUNNING),
    "Kill (exec)": Rpc(KILL_EXEC, (*RUNNING, ADD, RUN)),
    "ResizePty": Rpc(lambda s: s.resize_pty(api.ResizePtyRequest(id="c1")), RUNNING),
    "CloseIO": Rpc(lambda s: s.close_io(api.CloseIORequest(id="c1")), RUNNING),
    "Update": Rpc(lambda s: s.update(api.UpdateTaskRequest(id="c1", resources=RESOURCES)), RUNNING),
    "Checkpoint": Rpc(lambda s: s.checkpoint(api.CheckpointTaskRequest(id="c1")), RUNNING),
    "Delete": Rpc(lambda s: s.delete(ask.delete("c1")), (*RUNNING, KILL, WAIT)),
    "Delete (never started)": Rpc(lambda s: s.delete(ask.delete("c1")), (CREATE,)),
    "Delete (exec)": Rpc(
        lambda s: s.delete(ask.delete("c1", "e1")),
        (
            *RUNNING,
            ADD,
            RUN,
            lambda s: s.kill(ask.kill("c1", "e1")),
            lambda s: s.wait(ask.wait("c1", "e1")),
        ),
    ),
    "Shutdown": Rpc(lambda s: s.shutdown(ask.shutdown())),
}


async def the_runtime_takes_its_time(_verb: str) -> None:
    await trio.sleep(0.1)


async def caller_leaves(rpc: Rpc, world: World, blow: Blow) -> None:
    """The client cancels its call; the connection stays."""
    async with world.client() as shim:
        with trio.CancelScope() as leaving:
            blow.aim(leaving.cancel)
            await quietly(rpc.call(shim))
        blow.rest()
    await settle(world)


async def connection_closes(rpc: Rpc, world: World, blow: Blow) -> None:
    """The client is gone from one step to the next."""
    stream = world.listener.connect()

    def close() -> None:
        stream.send_stream.close()  # type: ignore[attr-defined]  # a stapled pair in memory
        stream.receive_stream.close()  # type: ignore[attr-defined]

    async with open_client(stream) as caller:
        blow.aim(close)
        await quietly(rpc.call(TaskClient(caller)))
        blow.rest()
    await settle(world)


async def shim_is_told_to_end(rpc: Rpc, world: World, blow: Blow) -> None:
    """SIGTERM: the rings close one after the other."""
    await ends_by(world.service.shutdown_requested.set, rpc, world, blow)


async def shim_is_cancelled(rpc: Rpc, world: World, blow: Blow) -> None:
    """The nursery around `serve` is cancelled: everything at once."""
    await ends_by(world.serving.cancel, rpc, world, blow)


async def ends_by(end: Callable[[], None], rpc: Rpc, world: World, blow: Blow) -> None:
    async with world.client() as shim:
        blow.aim(end)
        await quietly(rpc.call(shim))
        blow.rest()
        end()
        await world.stopped.wait()
    assert world.kernel.stdios == []
    assert world.kernel.cgroups == []
    told = {type(event) for event in world.publisher.events}
    if events.TaskCreate not in told:  # no daemon knows of it, so nobody would remove it
        assert not world.runtime.containers
        assert not world.kernel.mounts
    async with trio.open_nursery() as pid_1:  # it gets what the shim has let go of
        pid_1.start_soon(world.kernel.reap_strangers)
        for id_ in list(world.runtime.containers):  # what the verb `delete` would do
            await world.runtime.delete(spec_of(id_), force=True)
        await world.kernel.unmount("/bundles/c1/rootfs")
        await trio.sleep(1)
        pid_1.cancel_scope.cancel()
    world.check_nothing_left()
    check_event_order(world.publisher.events, complete=False)


BLOWS = [caller_leaves, connection_closes, shim_is_told_to_end, shim_is_cancelled]


async def settle(world: World) -> None:
    """What was begun comes to its end; then everything is deleted, as a daemon would."""
    await trio.sleep(5)
    if world.stopped.is_set():
        world.check_nothing_left()
        return
    async with world.client() as shim:
        for _ in range(5):
            await quietly(KILL(shim))
            await trio.sleep(1)
            await quietly(shim.delete(ask.delete("c1")))
        await quietly(shim.shutdown(ask.shutdown()))
        await world.stopped.wait()
    world.check_nothing_left()
    check_event_order(world.publisher.events)


async def quietly(call: Awaitable[object]) -> None:
    try:
        await call
    except ShimError:
        await trio.lowlevel.checkpoint()  # refused, or gone: both are answers


def spec_of(id_: str) -> ContainerSpec:
    return ContainerSpec(id=id_, bundle=f"/bundles/{id_}")


@pytest.mark.parametrize("blow_kind", BLOWS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", RPCS)
def test_every_step_can_be_the_last(name: str, blow_kind: Callable[..., Awaitable[None]]) -> None:
    """At whichever step it falls: laws 1 to 4 hold, and nothing is left."""
    rpc = RPCS[name]

    async def scenario(blow: Blow) -> None:
        with trio.fail_after(600):
            async with open_shim(
                program=lambda *_: rpc.program, step=the_runtime_takes_its_time
            ) as world:
                async with world.client() as shim:
                    for call in rpc.before:
                        await call(shim)
                await blow_kind(rpc, world, blow)

    done = cancel_everywhere(scenario)
    print(f"{name}, {blow_kind.__name__}: {done.steps} steps, {done.fallen} cancelled")
    assert done.fallen == done.steps > 0
