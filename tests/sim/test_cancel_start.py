"""Start-up, cut short at every step: a client waits in the backlog before the shim serves.

So it is in life: `start` has given the address away before the shim is up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.sim import requests as ask
from tests.sim.blows import HURRY, Hurried, ReaperError, quietly, suppress_bug
from trioshim import serve
from trioshim.client import TaskClient
from trioshim.testing import (
    Blow,
    Cancellations,
    FakeKernel,
    FakeRuntime,
    MemoryListener,
    MemoryPublisher,
    cancel_everywhere,
    check_event_order,
)
from trioshim.ttrpc import open_client


class Beginning:
    """A shim that is not up yet, and its first client.

    Attributes:
        serving: around `serve`.
        calling: around the client's Create.
        stream: the client's connection, in the backlog.
    """

    def __init__(self) -> None:
        self.kernel = FakeKernel()
        self.listener = MemoryListener()
        self.publisher = MemoryPublisher()
        self.stream = self.listener.connect()
        self.serving = trio.CancelScope()
        self.calling = trio.CancelScope()

    @asynccontextmanager
    async def lasting(self, runtime: FakeRuntime) -> AsyncIterator[None]:
        """The shim serves in the block, shielded; it ends with it at the latest."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.serve, runtime)
            with trio.CancelScope(shield=True):
                yield
            self.serving.cancel()

    async def serve(self, runtime: FakeRuntime) -> None:
        with self.serving:
            await serve(
                self.listener, runtime=runtime, kernel=self.kernel, publisher=self.publisher
            )

    async def create(self) -> None:
        async with open_client(self.stream) as caller:
            with self.calling:
                await quietly(TaskClient(Hurried(caller, HURRY)).create(ask.create("c1")))

    def close_the_connection(self) -> None:
        self.stream.send_stream.close()  # type: ignore[attr-defined]  # a stapled pair
        self.stream.receive_stream.close()  # type: ignore[attr-defined]


def jump() -> None:
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    clock.jump(HURRY)


KINDS: dict[str, Callable[[Beginning], Callable[[], object]]] = {
    "caller_leaves": lambda shim: shim.calling.cancel,
    "deadline_passes": lambda _: jump,
    "connection_closes": lambda shim: shim.close_the_connection,
    "shim_is_cancelled": lambda shim: shim.serving.cancel,
    "sibling_breaks": lambda shim: lambda: shim.kernel.break_reaper(ReaperError()),
}


def cut_start_short(kind: str) -> Cancellations:
    """Probe the time from `serve` to the answer of a Create that was sent before it."""

    async def step(_verb: str) -> None:
        await trio.sleep(0.1)

    async def scenario(blow: Blow) -> None:
        shim = Beginning()
        with trio.fail_after(3600), suppress_bug():
            async with trio.open_nursery() as programs:
                runtime = FakeRuntime(shim.kernel, programs, step=step)
                with suppress_bug():
                    async with shim.lasting(runtime):
                        with blow.may_fall(KINDS[kind](shim)):
                            await shim.create()
                await clean(shim, runtime)
                programs.cancel_scope.cancel()

    return cancel_everywhere(scenario)


async def clean(shim: Beginning, runtime: FakeRuntime) -> None:
    """What a shim that has ended leaves to `delete` and to pid 1, and nothing but that."""
    assert shim.kernel.stdios == []
    assert shim.kernel.cgroups == []
    check_event_order(shim.publisher.events, complete=False)
    if not shim.publisher.events:  # no daemon knows of the container
        assert not runtime.containers
        assert not shim.kernel.mounts
    with trio.move_on_after(1):
        await shim.kernel.reap_strangers()
    living = {container.init.pid for container in runtime.containers.values()}
    assert set(shim.kernel.processes) == living


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_of_a_start_can_be_the_last(kind: str) -> None:
    """At whichever step it falls: nothing is left that nobody knows of."""
    done = cut_start_short(kind)
    assert done.fallen == done.steps > 0
