"""`launch` with the real shims, ours and containerd's: the same program drives all three."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from google.protobuf.message import Message

from tests.unit.fds import open_fds
from tests.unit.launch_world import runs
from trioshim.client import EventSink, LaunchedShim, TaskClient, launch, open_event_sink
from trioshim.errors import NotFoundError
from trioshim.proto import events_pb2
from trioshim.proto import task_v2_pb2 as api
from trioshim.proto.task_types_pb2 import Status

from .conformance_world import find
from .shim_parts import until
from .shim_world import BOX, SLEEP, ShimWorld, open_shim_world
from .template_world import was_forked

OURS = "containerd-shim-trio-v1"
GO_V2 = "containerd-shim-runc-v2"
GO_V1 = "containerd-shim-runc-v1"
GROUP = "io.containerd.runc.v2.group"
KILLED = 137

every_shim = pytest.mark.parametrize("binary", [OURS, GO_V2, GO_V1])


@pytest.fixture
async def world(machine: None, rootfs: Path) -> AsyncIterator[ShimWorld]:
    async with open_shim_world(rootfs, listening=False) as world:
        yield world


@asynccontextmanager
async def launched(
    world: ShimWorld, binary: str, *args: str, id_: str = BOX, **more: Any
) -> AsyncIterator[LaunchedShim]:
    """A launch for a container that runs `args`; when it is over, there is nothing of it."""
    if find(binary) is None:
        pytest.skip(f"no {binary} in PATH")
    bundle = world.make_bundle(id_, *(args or SLEEP)) if not (world.base / id_).exists() else None
    env = {"TRIOSHIM_SOCKET_DIR": str(world.sockets)} | more.pop("env", {})
    options = {"id": id_, "namespace": world.namespace, "env": env} | more
    async with launch(binary, bundle or world.base / id_, **options) as shim:
        yield shim
    if not shim.shared:
        assert traces(world, shim) == []


def traces(world: ShimWorld, shim: LaunchedShim) -> list[str]:
    sockets = [path for path in [shim.address.removeprefix("unix://")] if os.path.lexists(path)]
    return world.traces() + sockets


async def create(world: ShimWorld, shim: LaunchedShim, task: TaskClient) -> int:
    request = api.CreateTaskRequest(id=shim.id, bundle=shim.bundle, options=world.options())
    return (await task.create(request)).pid


async def run(world: ShimWorld, shim: LaunchedShim, task: TaskClient) -> int:
    await create(world, shim, task)
    return (await task.start(api.StartRequest(id=shim.id))).pid


async def heard(sink: EventSink, events: trio.MemoryReceiveChannel[Any]) -> list[Message]:
    sink.close()
    return [event.message async for event in events]


@every_shim
async def test_a_whole_life(world: ShimWorld, binary: str) -> None:
    """Created, started, ended, deleted: every shim tells the same of it, in this order."""
    before = open_fds()
    async with open_event_sink() as sink, sink.subscribe() as events:
        async with launched(world, binary, "sh", "-c", "exit 3", events=sink) as shim:
            assert (shim.protocol, shim.version, shim.shared) == ("ttrpc", 2, False)
            async with shim.client() as task:
                pid = await run(world, shim, task)
                assert (await task.wait(api.WaitRequest(id=BOX))).exit_status == 3
                assert (await task.delete(api.DeleteRequest(id=BOX))).pid == pid
        create_, start, exit_, delete = await heard(sink, events)
    assert isinstance(create_, events_pb2.TaskCreate)
    assert isinstance(start, events_pb2.TaskStart)
    assert isinstance(exit_, events_pb2.TaskExit)
    assert isinstance(delete, events_pb2.TaskDelete)
    assert [each.pid for each in (create_, start, exit_, delete)] == [pid] * 4
    assert (exit_.exit_status, delete.exit_status) == (3, 3)
    assert open_fds() == before


@every_shim
async def test_a_running_container_ends_with_the_block(world: ShimWorld, binary: str) -> None:
    """`delete` kills it, and tells how it ended; the shim tells of its exit."""
    async with open_event_sink() as sink, sink.subscribe() as events:
        async with launched(world, binary, events=sink) as shim, shim.client() as task:
            pid = await run(world, shim, task)
        told = await heard(sink, events)
    assert shim.deleted is not None
    assert (shim.deleted.pid, shim.deleted.exit_status) == (pid, KILLED)
    [exit_] = [each for each in told if isinstance(each, events_pb2.TaskExit)]
    assert (exit_.id, exit_.exit_status) == (BOX, KILLED)


@every_shim
async def test_an_empty_shim_ends_by_itself(world: ShimWorld, binary: str) -> None:
    """It is told to shut down, and does."""
    async with launched(world, binary) as shim, shim.client() as task:
        with pytest.raises(NotFoundError):
            await task.state(api.StateRequest(id=BOX))
    assert shim.deleted is None


@every_shim
async def test_a_created_container_goes_too(world: ShimWorld, binary: str) -> None:
    """One that was never started."""
    async with launched(world, binary) as shim, shim.client() as task:
        await create(world, shim, task)
    assert shim.deleted is not None


@every_shim
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
async def test_what_a_killed_shim_leaves_is_removed(
    world: ShimWorld, binary: str, signum: signal.Signals
) -> None:
    """Its container outlives it, and a socket that it may have removed, until the block ends."""
    async with launched(world, binary) as shim:
        async with shim.client() as task:
            pid = await run(world, shim, task)
        os.kill(shim.pid, signum)
        await shim.wait_ended()
        assert runs(pid)
    assert shim.deleted is not None
    assert shim.deleted.exit_status == KILLED


@every_shim
async def test_a_stopped_shim_is_ended(world: ShimWorld, binary: str) -> None:
    """It accepts connections and answers nothing."""
    async with launched(world, binary) as shim:
        async with shim.client() as task:
            await run(world, shim, task)
        os.kill(shim.pid, signal.SIGSTOP)
    assert shim.deleted is not None


async def test_grpc_is_spoken_if_it_is_announced(world: ShimWorld) -> None:
    """By ours, on request."""
    env = {"TRIOSHIM_PROTOCOL": "grpc"}
    async with launched(world, OURS, env=env) as shim, shim.client() as task:
        assert (shim.protocol, shim.version) == ("grpc", 2)
        pid = await run(world, shim, task)
        state = await task.state(api.StateRequest(id=BOX))
        assert (state.pid, state.status) == (pid, Status.RUNNING)


async def test_members_of_a_group_share_a_shim(world: ShimWorld) -> None:
    """The second launch finds the first one's shim, and leaves it and its container alone."""
    for id_ in (BOX, "other"):
        config = world.make_bundle(id_, *SLEEP) / "config.json"
        text = config.read_text()
        config.write_text(json.dumps(json.loads(text) | {"annotations": {GROUP: "g"}}))
    async with open_event_sink() as sink, launched(world, GO_V2, events=sink) as shim:
        async with shim.client() as task:
            await run(world, shim, task)
        async with launched(world, GO_V2, id_="other", events=sink) as other:
            assert (other.shared, other.pid) == (True, shim.pid)
            async with other.client() as task:
                await run(world, other, task)
        assert other.deleted is not None
        async with shim.client() as task:
            assert (await task.state(api.StateRequest(id=BOX))).status == Status.RUNNING


# ---------------------------------------------------------------- cancellation


class CancelAtStep(trio.abc.Instrument):
    """Counts the steps of all tasks, and cancels at one of them."""

    def __init__(self, scope: trio.CancelScope, at: float) -> None:
        self.steps = 0
        self._scope = scope
        self._at = at

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        if self.steps == self._at:
            self._scope.cancel()


async def live(world: ShimWorld, id_: str, at: float = 0) -> tuple[int, bool]:
    """A whole life, cancelled at that step: how many steps it took, and whether it came so far."""
    with trio.CancelScope() as scope:
        instrument = CancelAtStep(scope, at)
        trio.lowlevel.add_instrument(instrument)
        try:
            async with launched(world, OURS, id_=id_) as shim, shim.client() as task:
                await run(world, shim, task)
                await task.kill(api.KillRequest(id=id_, signal=9))
                await task.wait(api.WaitRequest(id=id_))
                await task.delete(api.DeleteRequest(id=id_))
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return instrument.steps, scope.cancelled_caught


async def test_a_cancellation_at_any_time_leaves_nothing(world: ShimWorld) -> None:
    """During start, on meeting, in the block, during the end: spread over all the steps."""
    before = open_fds()
    steps, _ = await live(world, "whole")
    caught = []
    for part in range(12):
        at = max(1, steps * part // 12)
        caught.append((await live(world, f"c{part}", at))[1])
        left = world.traces()
        assert left == [], f"cancelled at step {at} of {steps}"
    assert caught[:-1].count(True) >= 8, caught
    assert open_fds() == before


async def test_a_cancellation_during_create_leaves_nothing(world: ShimWorld) -> None:
    """The shim goes on creating what nobody waits for any more, and it goes too."""
    mark = world.base / "creating"
    slow = world.runc(f'case "$*" in *create*) touch {mark}; sleep 1; esac; real "$@"')
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when, scope, mark.exists)
            async with launched(world, OURS) as shim, shim.client() as task:
                request = api.CreateTaskRequest(id=BOX, bundle=shim.bundle, options=slow)
                await task.create(request)
    assert scope.cancelled_caught
    assert world.traces() == []


async def cancel_when(scope: trio.CancelScope, probe: Callable[[], object]) -> None:
    await until(probe, "the moment to cancel")
    scope.cancel()


async def test_a_shim_from_a_template_is_ours_too(world: ShimWorld) -> None:
    """It was forked before it was asked for: its environment tells, not its age."""
    forked = False
    for number in range(40):  # the first of them leaves a template behind, which needs a while
        async with launched(world, OURS, id_=f"{BOX}{number}") as shim:
            assert not shim.shared
            forked = was_forked(shim.pid)
        if forked:
            break
    assert forked
