"""The runtime in memory behaves like runc: the same cases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio

from trioshim.abc import Child, ContainerSpec, ExecSpec, StdioSpec
from trioshim.testing import FakeKernel, FakeRuntime, FakeStdio, Program

from . import runtime_cases, runtime_cases_inside
from .kernel_cases import until
from .runtime_cases import Does

CASES = runtime_cases.CASES + runtime_cases_inside.CASES
PROGRAMS = {
    Does.ENDS_WITH_0: Program(after=0),
    Does.ENDS_WITH_7: Program(status=7, after=0),
    Does.ENDS_WITH_255: Program(status=255, after=0),
    Does.SLEEPS: Program(after=None),
    Does.ENDS_WITH_42_ON_TERM: Program(after=None, handles={15: 42}),
    Does.IS_MISSING: Program(missing=True),
    Does.DIES_IN_CREATE: Program(status=137, dies="create"),
    Does.EATS_MEMORY: Program(after=1, out_of_memory=True),
}


@dataclass
class FakeWorld:
    """Everything by number: container 1, exec 2."""

    kernel: FakeKernel
    runtime: FakeRuntime = field(init=False)
    programs: dict[str, Program] = field(default_factory=dict)
    children: list[Child] = field(default_factory=list)
    hanging: str = ""
    hung_now: trio.Event = field(default_factory=trio.Event)

    def program(self, id_: str, exec_id: str) -> Program:
        return self.programs[exec_id or id_]

    async def step(self, verb: str) -> None:
        if verb == f"{self.hanging} returns":
            self.hung_now.set()
            await trio.sleep_forever()

    def _name(self, does: Does) -> str:
        name = f"n{len(self.programs)}"
        self.programs[name] = PROGRAMS[does]
        return name

    @property
    def stdio(self) -> FakeStdio:
        return FakeStdio(StdioSpec(), [])

    def spec(self, does: Does, *, shared: bool = False) -> ContainerSpec:
        self.runtime.shared_pid_namespace = shared
        return ContainerSpec(self._name(does), "/bundle")

    def exec_spec(self, does: Does) -> ExecSpec:
        return ExecSpec(self._name(does), b"{}")

    def owns(self, child: Child) -> Child:
        self.children.append(child)
        return child

    async def ready(self, spec: ContainerSpec) -> None:
        await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def hung(self, verb: str) -> AsyncIterator[None]:
        self.hanging, self.hung_now = verb, trio.Event()
        yield
        self.hanging = ""

    async def hangs(self) -> None:
        await self.hung_now.wait()

    def alive(self, pid: int) -> bool:
        process = self.kernel.processes.get(pid)
        return process is not None and process.exit is None

    def count(self, spec: ContainerSpec) -> int:
        container = self.runtime.containers.get(spec.id)
        return len(container.cgroup.members) if container is not None else 0


@pytest.fixture
async def world(autojump_clock: trio.abc.Clock) -> AsyncIterator[FakeWorld]:
    kernel = FakeKernel()
    world = FakeWorld(kernel)
    async with trio.open_nursery() as nursery:
        world.runtime = FakeRuntime(kernel, nursery, program=world.program, step=world.step)
        await nursery.start(kernel.reap_strangers)
        yield world
        await clean_up(world)
        nursery.cancel_scope.cancel()
    assert kernel.processes == {}
    assert kernel.cgroups == []


async def clean_up(world: FakeWorld) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for child in world.children:
                nursery.start_soon(child.wait)
            for id_ in list(world.runtime.containers):
                await world.runtime.delete(ContainerSpec(id_, "/bundle"), force=True)
        await until(lambda: not world.kernel.processes)  # the reaper has taken the strangers


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_the_fake_behaves_like_runc(case, world: FakeWorld) -> None:
    """Each case that is true of runc is true in memory."""
    with trio.fail_after(3600):  # virtual seconds
        await case(world)
