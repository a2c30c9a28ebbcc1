"""The conformance suite on the shim in memory: all of it holds, and each lie is caught by name."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import pytest
import trio

from tests.sim import requests as ask
from tests.sim.lies import LIES, Liar, Lie
from trioshim.abc import Child, ContainerSpec
from trioshim.client import Caller
from trioshim.proto import task_v2_pb2 as api
from trioshim.proto.types_pb2 import Envelope
from trioshim.testing import (
    CASES,
    Case,
    FakeRuntime,
    Program,
    PromiseBrokenError,
    World,
    check_task_service,
    open_shim,
)
from trioshim.ttrpc import open_client

BY_NAME = {case.name: case for case in CASES}


@dataclass
class ShimInMemory:
    """`ShimUnderTest` over an `open_shim` world."""

    world: World
    programs: dict[tuple[str, str], Program]

    @property
    def envelopes(self) -> Sequence[Envelope]:
        return self.world.publisher.envelopes

    def connection(self) -> AbstractAsyncContextManager[Caller]:
        return open_client(self.world.listener.connect())

    def create_request(self, id_: str, program: Program) -> api.CreateTaskRequest:
        self.programs[id_, ""] = program
        return ask.create(id_)

    def exec_request(self, id_: str, exec_id: str, program: Program) -> api.ExecProcessRequest:
        self.programs[id_, exec_id] = program
        return ask.exec_(id_, exec_id)


@asynccontextmanager
async def shim_in_memory() -> AsyncIterator[ShimInMemory]:
    """What a case leaves behind is a failure."""
    programs: dict[tuple[str, str], Program] = {}
    async with open_shim(program=lambda *ids: programs[ids]) as world:
        yield ShimInMemory(world, programs)
        with trio.fail_after(60):
            await world.stopped.wait()
        world.check_nothing_left()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_shim_keeps_its_promise(autojump_clock: trio.abc.Clock, case: Case) -> None:
    """Each case of the suite passes, and leaves nothing."""
    await case.check(shim_in_memory)


# ---------------------------------------------------------------- shims that lie


@dataclass
class LyingShim(ShimInMemory):
    """A good shim behind a bad wire."""

    lie: Lie

    def __post_init__(self) -> None:
        self._answer = self.lie.answer()

    @property
    def envelopes(self) -> Sequence[Envelope]:
        return self.lie.events(super().envelopes)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Caller]:
        async with super().connection() as caller:
            yield Liar(caller, self._answer)


@asynccontextmanager
async def lying_shim(lie: Lie) -> AsyncIterator[LyingShim]:
    programs: dict[tuple[str, str], Program] = {}
    async with open_shim(program=lambda *ids: programs[ids]) as world:
        yield LyingShim(world, programs, lie)


@pytest.mark.parametrize(
    ("lie", "name"),
    [
        pytest.param(lie, name, id=f"{said}: {name}")
        for said, lie in LIES.items()
        for name in lie.caught_by
    ],
)
async def test_a_lie_is_caught(autojump_clock: trio.abc.Clock, lie: Lie, name: str) -> None:
    """The case fails, says what came, and names itself, its promise and the reason for it."""
    case = BY_NAME[name]
    with pytest.raises(PromiseBrokenError) as caught:
        await case.check(partial(lying_shim, lie))
    assert re.search(r"must|expected|law", str(caught.value))
    told = "\n".join(caught.value.__notes__)
    assert told.startswith(f"case: {name}\npromise: {case.promise}\nwhy: {case.reason}")


def test_every_case_can_fail() -> None:
    """For each of them there is a lie that it does not believe."""
    assert {name for lie in LIES.values() for name in lie.caught_by} == set(BY_NAME)


def test_every_case_has_a_promise_and_a_reason() -> None:
    """Its name is its own; the promise is one sentence, and somebody relies on it."""
    assert len(BY_NAME) == len(CASES)
    for case in CASES:
        assert re.fullmatch(r".*[^.]\.", case.promise), case.name
        assert case.reason.endswith("."), case.name


# ---------------------------------------------------------------- all of it


class Deaf(FakeRuntime):
    """A runtime that never kills."""

    async def kill(self, spec: ContainerSpec, init: Child, signum: int, *, all: bool) -> None:  # noqa: A002 (the port's name)
        await trio.lowlevel.checkpoint()


async def test_a_whole_shim_is_checked(autojump_clock: trio.abc.Clock) -> None:
    """`check_task_service` is content with a good shim."""
    await check_task_service(shim_in_memory)


async def test_all_that_is_broken_is_told(autojump_clock: trio.abc.Clock) -> None:
    """It raises one error for each case that failed, and these are the ones that kill."""

    @asynccontextmanager
    async def deaf() -> AsyncIterator[ShimInMemory]:
        programs: dict[tuple[str, str], Program] = {}
        async with open_shim(program=lambda *ids: programs[ids], runtime_class=Deaf) as world:
            yield ShimInMemory(world, programs)

    with pytest.raises(ExceptionGroup, match=rf"of {len(CASES)} cases failed") as caught:
        await check_task_service(deaf)
    failed = {error.__notes__[-1].split("\n")[0] for error in caught.value.exceptions}
    assert "case: a_killed_container_ends_with_137" in failed
    assert "case: exit_status_of_the_program" not in failed


async def test_a_world_that_does_not_open_is_told_as_it_is(
    autojump_clock: trio.abc.Clock,
) -> None:
    """What `connect` raises is no broken promise of the shim."""

    @asynccontextmanager
    async def closed() -> AsyncIterator[ShimInMemory]:
        raise FileNotFoundError("no such shim")
        yield

    with pytest.raises(FileNotFoundError) as caught:
        await CASES[0].check(closed)
    assert caught.value.__notes__[0].startswith(f"case: {CASES[0].name}")


async def test_without_a_listener_events_are_not_missed(autojump_clock: trio.abc.Clock) -> None:
    """A world that hears no events passes all the same."""

    class Unheard(ShimInMemory):
        envelopes = None  # type: ignore[assignment]  # what the protocol allows

    @asynccontextmanager
    async def unheard() -> AsyncIterator[Unheard]:
        programs: dict[tuple[str, str], Program] = {}
        async with open_shim(program=lambda *ids: programs[ids]) as world:
            yield Unheard(world, programs)

    await check_task_service(unheard)
