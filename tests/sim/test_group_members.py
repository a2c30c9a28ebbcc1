"""The containers of one shim: whatever goes wrong with one of them, the others do not notice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.sim import requests as ask
from trioshim.abc import ContainerSpec
from trioshim.client import TaskClient
from trioshim.errors import ShimError
from trioshim.proto.task_types_pb2 import Status
from trioshim.testing import FakeRuntime, Program, check_event_order, open_shim

FOREVER = Program(after=None)


class OneIsBad(FakeRuntime):
    """Whatever is asked about the container `bad` fails, or never ends."""

    hangs = False

    async def _trouble(self, spec: ContainerSpec) -> None:
        if spec.id == "bad":
            if self.hangs:
                await trio.sleep_forever()
            raise RuntimeError("a bug of the runtime")

    async def start(self, spec: ContainerSpec) -> None:
        await self._trouble(spec)
        await super().start(spec)

    async def pause(self, spec: ContainerSpec) -> None:
        await self._trouble(spec)
        await super().pause(spec)

    async def kill_remaining(self, spec: ContainerSpec) -> None:
        await self._trouble(spec)
        await super().kill_remaining(spec)


class OneHangs(OneIsBad):
    hangs = True


@pytest.mark.parametrize("kind", [OneIsBad, OneHangs])
@pytest.mark.parametrize("verb", ["create", "start", "exec", "kill", "delete"])
async def test_a_bad_container_disturbs_no_other(
    autojump_clock: trio.abc.Clock, kind: type[OneIsBad], verb: str
) -> None:
    """Its runtime fails or hangs: the others answer at once, live, end and are deleted."""

    async def step(asked: str) -> None:
        if asked == verb and trouble:
            if kind.hangs:
                await trio.sleep_forever()
            raise OSError(5, "input/output error")

    trouble = False
    async with (
        open_shim(group="good", program=lambda *_: FOREVER, step=step, runtime_class=kind) as world,
        world.client() as shim,
        trio.open_nursery() as nursery,
    ):
        await shim.create(ask.create("good"))
        await shim.start(ask.start("good"))
        assert await world.join("bad")
        trouble = True
        nursery.start_soon(abuse, shim, verb)
        await trio.sleep(1)
        trouble = False
        before = trio.current_time()
        state = await shim.state(ask.state("good"))
        assert state.status == Status.RUNNING
        assert await world.join("late")
        async with world.client() as other:
            await other.create(ask.create("late"))
            await other.exec(ask.exec_("good", "e"))
            await other.start(ask.start("good", "e"))
            for id_ in ("late", "good"):
                await other.kill(ask.kill(id_))
                await other.wait(ask.wait(id_))
                await other.delete(ask.delete(id_))
        assert trio.current_time() - before < 1
        nursery.cancel_scope.cancel()


async def abuse(shim: TaskClient, verb: str) -> None:
    """Ask for one thing after the other about the container `bad`."""
    calls: list[tuple[str, Callable[[], Awaitable[object]]]] = [
        ("create", lambda: shim.create(ask.create("bad"))),
        ("start", lambda: shim.start(ask.start("bad"))),
        ("exec", lambda: shim.exec(ask.exec_("bad", "e"))),
        ("exec", lambda: shim.start(ask.start("bad", "e"))),
        ("kill", lambda: shim.kill(ask.kill("bad"))),
        ("delete", lambda: shim.delete(ask.delete("bad"))),
    ]
    for _, call in calls:
        with trio.move_on_after(0.1):
            try:
                await call()
            except ShimError:
                continue


async def test_the_pause_container_may_go_first(autojump_clock: trio.abc.Clock) -> None:
    """Its Shutdown does nothing while others live (containerd#4136's shims lost them)."""
    async with open_shim(group="pause", program=lambda *_: FOREVER) as world:
        async with world.client() as shim:
            await shim.create(ask.create("pause"))
            assert await world.join("work")
            await shim.create(ask.create("work"))
            await shim.start(ask.start("work"))
            await shim.kill(ask.kill("pause"))
            await shim.wait(ask.wait("pause"))
            await shim.delete(ask.delete("pause"))
            await shim.shutdown(ask.shutdown("pause"))
            assert (await shim.state(ask.state("work"))).status == Status.RUNNING
            await shim.kill(ask.kill("work"))
            await shim.wait(ask.wait("work"))
            await shim.delete(ask.delete("work"))
            await shim.shutdown(ask.shutdown("work"))
        await world.stopped.wait()
        check_event_order(world.publisher.events)
        world.check_nothing_left()


async def test_a_bundle_that_is_there_is_known(autojump_clock: trio.abc.Clock) -> None:
    """The shim can go on working in another's when its own goes."""
    async with open_shim(group="a") as world, world.client() as shim:
        seen: list[list[str]] = []

        async def watch() -> None:
            while True:
                await world.service.containers_changed()
                seen.append(world.service.bundles)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
            for id_ in ("a", "b"):
                await shim.create(ask.create(id_))
            await shim.delete(ask.delete("a"))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert seen[-1] == ["/bundles/b"]
        assert ["/bundles/a", "/bundles/b"] in seen
        await shim.delete(ask.delete("b"))
