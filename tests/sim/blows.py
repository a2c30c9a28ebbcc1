"""How a call can be cut short: six kinds of blow, and what has to hold after each.

The runtime takes its time, the daemon too; the blow falls before any step of any task between the
request and its answer.  After it everything is ended as a daemon would, and nothing may be left.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import trio
import trio.testing

from tests.sim import requests as ask
from tests.sim.rpcs import KILL, RPCS, Rpc
from trioshim.abc import ContainerSpec
from trioshim.client import Caller, TaskClient
from trioshim.errors import ShimError
from trioshim.proto import events_pb2 as events
from trioshim.testing import (
    Blow,
    Cancellations,
    World,
    cancel_everywhere,
    check_event_order,
    open_shim,
)
from trioshim.ttrpc import open_client

Kind = Callable[[Rpc, World, Blow], Awaitable[None]]
HURRY = 3.0  # virtual seconds for a call: more than any takes, less than the last events have


def cut_short(name: str, kind: Kind, *, every: int = 1) -> Cancellations:
    """Probe one RPC with one kind of blow, at all of its steps."""
    rpc = RPCS[name]

    async def scenario(blow: Blow) -> None:
        with trio.fail_after(3600), suppress_bug():
            async with open_shim(
                program=lambda *_: rpc.program,
                step=the_runtime_takes_its_time,
                publishing=the_daemon_takes_its_time,
            ) as world:
                async with world.client() as shim:
                    for call in rpc.before:
                        await call(shim)
                await kind(rpc, world, blow)

    return cancel_everywhere(scenario, every=every)


async def the_runtime_takes_its_time(_verb: str) -> None:
    await trio.sleep(0.1)


async def the_daemon_takes_its_time() -> None:
    await trio.sleep(0.3)


@contextmanager
def suppress_bug() -> Iterator[None]:
    try:
        yield
    except ExceptionGroup as group:
        if (rest := group.split(ReaperError)[1]) is not None:
            raise rest from None


# ---------------------------------------------------------------- the caller's blows


async def caller_leaves(rpc: Rpc, world: World, blow: Blow) -> None:
    """The client cancels its call; the connection stays."""
    async with world.client() as shim:
        with trio.CancelScope() as leaving, blow.may_fall(leaving.cancel):
            await ask_for(rpc, world, shim)
        await settle(world)


async def deadline_passes(rpc: Rpc, world: World, blow: Blow) -> None:
    """The call has a deadline, and it is past from one step to the next."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    async with open_client(world.listener.connect()) as caller:
        shim = TaskClient(Hurried(caller, HURRY))
        with blow.may_fall(lambda: clock.jump(HURRY)):
            await ask_for(rpc, world, shim)
    await settle(world)


async def connection_closes(rpc: Rpc, world: World, blow: Blow) -> None:
    """The client is gone from one step to the next."""
    stream = world.listener.connect()

    def close() -> None:
        stream.send_stream.close()  # type: ignore[attr-defined]  # a stapled pair in memory
        stream.receive_stream.close()  # type: ignore[attr-defined]

    async with open_client(stream) as caller:
        with blow.may_fall(close):
            await ask_for(rpc, world, TaskClient(caller))
    await settle(world)


class Hurried(Caller):
    """Calls with a deadline."""

    def __init__(self, caller: Caller, seconds: float) -> None:
        self._caller = caller
        self._seconds = seconds

    async def call(
        self, service: str, method: str, payload: bytes, *, timeout: float | None = None
    ) -> bytes:
        return await self._caller.call(service, method, payload, timeout=timeout or self._seconds)


# ---------------------------------------------------------------- blows at the shim


async def shim_is_told_to_end(rpc: Rpc, world: World, blow: Blow) -> None:
    """SIGTERM: the rings close one after the other."""
    async with ending(world):
        await ends_by(world.service.shutdown_requested.set, rpc, world, blow)


async def shim_is_cancelled(rpc: Rpc, world: World, blow: Blow) -> None:
    """The nursery around `serve` is cancelled: everything at once."""
    async with ending(world):
        await ends_by(world.serving.cancel, rpc, world, blow)


async def sibling_breaks(rpc: Rpc, world: World, blow: Blow) -> None:
    """A bug ends the reaper: its error cancels its siblings, and ends `open_shim` too."""
    with trio.CancelScope(shield=True):
        async with ending(world):
            await ends_by(lambda: world.kernel.break_reaper(ReaperError()), rpc, world, blow)


class ReaperError(Exception):
    """What no reaper should raise."""


async def ends_by(end: Callable[[], object], rpc: Rpc, world: World, blow: Blow) -> None:
    async with world.client() as shim:
        with blow.may_fall(end):
            await ask_for(rpc, world, shim)
        end()
        await world.stopped.wait()


BLOWS: list[Kind] = [
    caller_leaves,
    deadline_passes,
    connection_closes,
    shim_is_told_to_end,
    shim_is_cancelled,
    sibling_breaks,
]


# ---------------------------------------------------------------- what has to hold


async def ask_for(rpc: Rpc, world: World, shim: TaskClient) -> None:
    answered = await quietly(rpc.call(shim))
    if rpc.until_stopped:
        if not answered:  # it may not even have been heard
            with suppress(trio.BrokenResourceError):  # nobody listens: it was heard
                async with world.client() as another:
                    await quietly(rpc.call(another))
        await world.stopped.wait()


async def settle(world: World) -> None:
    """What was begun comes to its end; then everything is deleted, as a daemon would."""
    await trio.sleep(5)
    if not world.stopped.is_set():
        async with world.client() as shim:
            for _ in range(5):
                await quietly(KILL(shim))
                await trio.sleep(1)
                await quietly(shim.delete(ask.delete("c1")))
            await trio.sleep(1)
            world.check_nothing_left()
            await quietly(shim.shutdown(ask.shutdown()))
            await world.stopped.wait()
    world.check_nothing_left()
    check_event_order(world.publisher.events)


@asynccontextmanager
async def ending(world: World) -> AsyncIterator[None]:
    """The shim ends in the block; what it has let go of is there for others to remove."""
    yield
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


async def quietly(call: Awaitable[object]) -> bool:
    """Refused, or gone: both are answers, too."""
    try:
        await call
    except ShimError:
        return False
    return True


def spec_of(id_: str) -> ContainerSpec:
    return ContainerSpec(id=id_, bundle=f"/bundles/{id_}")
