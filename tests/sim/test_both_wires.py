"""The simulator over gRPC: what a client sees, and what a shim does, does not depend on the wire.

`TRIOSHIM_ALL_STEPS=1`: cut the calls short at all of their steps, and not at some.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable
from functools import partial
from types import ModuleType
from typing import get_args

import pytest
import trio
import trio.testing

from tests.sim import blows, test_callers, test_life, test_linger
from tests.sim import requests as ask
from tests.sim.amount import SCHEDULES
from tests.sim.blows import BLOWS, Kind, cut_short
from tests.sim.rpcs import RPCS
from tests.sim.worlds import run_day
from trioshim.client import TaskClient, Wire, open_caller
from trioshim.errors import Code, NotFoundError, ShimError, from_status
from trioshim.proto import task_v2_pb2 as api
from trioshim.rpc import open_grpc_client
from trioshim.testing import Program, Trace, World, open_shim, run_schedule

WIRES: tuple[Wire, ...] = get_args(Wire)
FOREVER = Program(after=None)
DAYS = SCHEDULES // 5
BLOCKS = 8
EVERY = 1 if os.environ.get("TRIOSHIM_ALL_STEPS") else 7

Life = Callable[..., Awaitable[None]]


def lives(module: ModuleType) -> list[Life]:
    """The tests of a module that ask for the clock and perhaps for the log."""
    found = [test for name, test in vars(module).items() if name.startswith("test_")]
    wanted = {"autojump_clock", "caplog"}
    return [test for test in found if {*inspect.signature(test).parameters} <= wanted]


@pytest.mark.parametrize(
    "life",
    [*lives(test_life), *lives(test_callers), *lives(test_linger)],
    ids=lambda life: life.__name__,
)
async def test_lives_are_the_same(
    life: Life,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What holds over ttrpc holds over gRPC."""
    module = inspect.getmodule(life)
    assert module is not None
    monkeypatch.setattr(module, "open_shim", partial(open_shim, protocol="grpc"))
    fixtures = {"autojump_clock": autojump_clock, "caplog": caplog}
    await life(**{name: fixtures[name] for name in inspect.signature(life).parameters})


# ---------------------------------------------------------------- transcripts

CALLS: list[Callable[[TaskClient], Awaitable[object]]] = [
    lambda s: s.connect(api.ConnectRequest(id="c1")),
    lambda s: s.state(ask.state("nobody")),
    lambda s: s.delete(ask.delete("nobody")),
    lambda s: s.create(ask.create("")),
    lambda s: s.create(ask.create("ü 100 % \n wrong")),
    lambda s: s.create(ask.create("x" * 77)),
    lambda s: s.create(ask.create("c1", bundle="relative")),
    lambda s: s.create(ask.create("c1")),
    lambda s: s.create(ask.create("c1")),
    lambda s: s.pause(api.PauseRequest(id="c1")),
    lambda s: s.start(ask.start("c1")),
    lambda s: s.start(ask.start("c1")),
    lambda s: s.delete(ask.delete("c1")),
    lambda s: s.update(api.UpdateTaskRequest(id="c1")),
    lambda s: s.exec(api.ExecProcessRequest(id="c1", exec_id="e1")),
    lambda s: s.exec(ask.exec_("c1", "../../x")),
    lambda s: s.exec(ask.exec_("c1", "e1")),
    lambda s: s.exec(ask.exec_("c1", "e1")),
    lambda s: s.start(ask.start("c1", "e2")),
    lambda s: s.start(ask.start("c1", "e1")),
    lambda s: s.state(ask.state("c1", "e1")),
    lambda s: s.pids(api.PidsRequest(id="c1")),
    lambda s: s.stats(api.StatsRequest(id="c1")),
    lambda s: s.pause(api.PauseRequest(id="c1")),
    lambda s: s.resume(api.ResumeRequest(id="c1")),
    lambda s: s.resize_pty(api.ResizePtyRequest(id="c1", width=80, height=24)),
    lambda s: s.close_io(api.CloseIORequest(id="c1", stdin=True)),
    lambda s: s.checkpoint(api.CheckpointTaskRequest(id="c1")),
    lambda s: s.wait(ask.wait("c1"), timeout=3),
    lambda s: s.kill(ask.kill("c1", signal=99)),
    lambda s: s.kill(ask.kill("c1")),
    lambda s: s.wait(ask.wait("c1")),
    lambda s: s.kill(ask.kill("c1")),
    lambda s: s.delete(ask.delete("c1", "e1")),
    lambda s: s.delete(ask.delete("c1")),
    lambda s: s.delete(ask.delete("c1")),
    lambda s: s.connect(api.ConnectRequest(id="c1")),
]


async def transcript_of(shim: TaskClient) -> list[object]:
    """What came of each call, and when."""
    said: list[object] = []
    for call in CALLS:
        try:
            answer: object = await call(shim)
        except ShimError as error:
            answer = (type(error), error.code, error.message, str(error))
        said.append((trio.current_time(), answer))
    return said


def live_through(life: Callable[[World], Awaitable[object]], protocol: Wire) -> World:
    """A world of its own over one wire, from the beginning of its time."""

    async def scenario() -> World:
        with trio.fail_after(3600):
            async with open_shim(program=lambda *_: FOREVER, protocol=protocol) as world:
                await life(world)
        return world

    return run_schedule(scenario, seed=1)


def test_transcripts_are_the_same() -> None:
    """Answers, refusals with class, code and text, and events: equal over both wires."""
    said = {}
    told = {}
    for wire in WIRES:

        async def life(world: World, wire: Wire = wire) -> None:
            async with world.client() as shim:
                said[wire] = await transcript_of(shim)

        told[wire] = live_through(life, wire).publisher.envelopes
    assert said["grpc"] == said["ttrpc"]
    assert [e.topic for e in told["grpc"]] == [e.topic for e in told["ttrpc"]]
    assert [e.event for e in told["grpc"]] == [e.event for e in told["ttrpc"]]
    refused = [answer for _, answer in said["grpc"] if isinstance(answer, tuple)]
    assert len(refused) > len(CALLS) / 3


BY_NAME = [
    ("containerd.task.v2.Task", "Connect", b""),
    ("containerd.task.v3.Task", "Connect", b""),
    ("containerd.task.v2.Task", "Dance", b""),
    ("containerd.task.v4.Task", "Connect", b""),
    ("containerd.task.v2.Task", "State", b"\xff\xff"),
    ("containerd.task.v2.Task", "State", b"\n\1x"),
]


def test_calls_by_name_are_answered_the_same() -> None:
    """Both versions of the service; no such service, no such method, no such message."""
    said: dict[str, list[object]] = {}
    for wire in WIRES:

        async def life(world: World, wire: Wire = wire) -> None:
            said[wire] = []
            async with open_caller(world.listener.connect(), wire) as caller:
                for service, method, payload in BY_NAME:
                    try:
                        said[wire].append(await caller.call(service, method, payload))
                    except ShimError as error:
                        said[wire].append((type(error), error.code, str(error)))

        live_through(life, wire)
    assert said["grpc"] == said["ttrpc"]
    assert [isinstance(answer, tuple) for answer in said["grpc"]] == [False] * 2 + [True] * 4


async def test_two_clients_two_wires(autojump_clock: trio.testing.MockClock) -> None:
    """What one does over its wire the other sees over its own."""
    async with (
        open_shim(program=lambda *_: FOREVER) as world,
        world.client(protocol="ttrpc") as daemon,
        world.client(protocol="grpc") as tool,
    ):
        created = await daemon.create(ask.create("c1"))
        assert (await tool.start(ask.start("c1"))).pid == created.pid
        async with trio.open_nursery() as nursery:
            ended: list[api.WaitResponse] = []

            async def wait(shim: TaskClient) -> None:
                ended.append(await shim.wait(ask.wait("c1")))

            nursery.start_soon(wait, daemon)
            nursery.start_soon(wait, tool)
            await trio.testing.wait_all_tasks_blocked()
            await tool.kill(ask.kill("c1"))
        assert [answer.exit_status for answer in ended] == [137, 137]
        await daemon.delete(ask.delete("c1"))
        with pytest.raises(NotFoundError):
            await tool.state(ask.state("c1"))


# ---------------------------------------------------------------- many schedules


@pytest.mark.parametrize("block", range(BLOCKS))
def test_the_laws_hold_in_every_schedule(block: int) -> None:
    """Generated days, as in `test_laws`, over gRPC."""
    for seed in range(block, DAYS, BLOCKS):
        run_day(seed, protocol="grpc")


def test_a_seed_gives_one_schedule() -> None:
    """Nothing in client, server, purerpc or h2 draws lots or looks at a clock."""
    traces = []
    for seed in (7, 7, 8):
        traces.append(Trace())
        run_day(seed, traces[-1], protocol="grpc")
    first, again, other = (trace.digest for trace in traces)
    assert first == again
    assert first != other


@pytest.mark.parametrize("kind", BLOWS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", RPCS)
def test_every_step_can_be_the_last(name: str, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller leaves, the connection closes, the shim ends: nothing is left, over gRPC too."""
    monkeypatch.setattr(blows, "open_shim", partial(open_shim, protocol="grpc"))
    monkeypatch.setattr(blows, "open_client", open_grpc_client)
    done = cut_short(name, kind, every=EVERY)
    assert done.fallen == done.steps > 0


@pytest.mark.parametrize("protocol", ["ttrpc", "grpc"])
async def test_what_a_status_says_to_programs_arrives(
    protocol: Wire, autojump_clock: trio.testing.MockClock
) -> None:
    """The details of an error: the same on both wires, from one end to the other."""
    details = (("types.example/Why", b"\1\2"), ("types.example/How", b""))

    async def fail(_verb: str) -> None:
        raise from_status(Code.NOT_FOUND, "no such image", details)

    async with open_shim(step=fail) as world, world.client(protocol=protocol) as shim:
        with pytest.raises(NotFoundError, match="no such image") as caught:
            await shim.create(ask.create("c1"))
        assert caught.value.details == details
