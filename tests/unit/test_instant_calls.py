"""Calls that cannot wait: answered by whoever reads them, and still everybody has his turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from trioshim.errors import Code, NotFoundError, ShimError, to_status
from trioshim.proto import task_v2_pb2 as api
from trioshim.rpc import Dispatcher, Service, instant, serve_rpc
from trioshim.testing import MemoryListener, open_shim, run_schedule
from trioshim.ttrpc import (
    Connection,
    Request,
    Response,
    Role,
)

from .ttrpc_world import Gates, Peer, Spawned, echo, payload_or_none, response, serving, sockets

TASK = api.DESCRIPTOR.services_by_name["Task"]
NAME = TASK.full_name
INSTANT = {"State", "Pids", "Connect"}


class Tasks:
    """State and Connect are instant, Kill is not; `look` is what State does."""

    def __init__(self, look: Callable[[], object] = object) -> None:
        self.look = look

    @instant
    def state(self, request: api.StateRequest) -> api.StateResponse:
        self.look()
        return api.StateResponse(id=request.id)

    @instant
    def connect(self, request: api.ConnectRequest) -> api.ConnectResponse:
        return api.ConnectResponse(version=request.id)

    async def kill(self, request: api.KillRequest) -> Empty:
        await trio.lowlevel.checkpoint()
        self.look()
        return Empty()


def state_of(id_: str) -> bytes:
    return api.StateRequest(id=id_).SerializeToString()


@asynccontextmanager
async def open_dispatcher(*objects: object) -> AsyncIterator[Dispatcher]:
    async with trio.open_nursery() as lasting:
        services = [Service(TASK, each, name=f"s{n}") for n, each in enumerate(objects)]
        yield Dispatcher(services, lasting)


# ---------------------------------------------------------------- which methods


async def test_the_task_service_has_three() -> None:
    """They are plain functions, so they cannot wait (law 7); the others may."""
    async with open_shim() as world:
        methods = Service(TASK, world.service).methods.values()
        assert {method.name for method in methods if method.instant} == INSTANT
        await world.service.shutdown(api.ShutdownRequest())
        await world.stopped.wait()


async def test_awaited_they_do_not_wait_either() -> None:
    """One step, and the answer is there: no other task has run."""
    asked = Tasks().state(api.StateRequest(id="x"))
    with pytest.raises(StopIteration) as answered:
        asked.send(None)
    assert answered.value.value == api.StateResponse(id="x")


async def test_what_is_made_of_an_instant_method_is_what_it_says() -> None:
    """A subclass whose method waits is asked in a task, whatever it has inherited."""

    class Slow(Tasks):
        async def state(self, request: api.StateRequest) -> api.StateResponse:
            await trio.lowlevel.checkpoint()
            return api.StateResponse(id="slow " + request.id)

    async with open_dispatcher(Tasks(), Slow()) as dispatcher:
        assert dispatcher.call_at_once("s0", "State", state_of("x")) == state_of("x")
        assert dispatcher.call_at_once("s1", "State", state_of("x")) is None
        assert dispatcher.call_at_once("s1", "Connect", b"") == b""
        assert await dispatcher.call("s1", "State", state_of("x")) == state_of("slow x")


@pytest.mark.parametrize(
    ("service", "method"), [("s0", "Kill"), ("s0", "Dance"), ("s9", "State"), ("", "")]
)
async def test_what_is_not_instant_is_for_others(service: str, method: str) -> None:
    """Also names that nobody knows: there is one place that says so."""
    async with open_dispatcher(Tasks()) as dispatcher:
        assert dispatcher.call_at_once(service, method, b"") is None


@pytest.mark.parametrize("raised", [NotFoundError("x"), KeyError(), OSError(28, "full")], ids=repr)
async def test_errors_are_the_same_on_both_ways(
    raised: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """The same status, and the same lines in the log."""

    def look() -> None:
        raise raised

    said = []
    async with open_dispatcher(Tasks(look)) as dispatcher:
        with pytest.raises(ShimError) as caught:
            dispatcher.call_at_once("s0", "State", b"")
        said.append((to_status(caught.value), [r.getMessage() for r in caplog.records]))
        caplog.clear()
        with pytest.raises(ShimError) as caught:
            await dispatcher.call("s0", "State", b"")
        said.append((to_status(caught.value), [r.getMessage() for r in caplog.records]))
    assert said[0] == said[1]


async def test_a_payload_that_cannot_be_read_is_told() -> None:
    """As it is for every other method."""
    async with open_dispatcher(Tasks()) as dispatcher:
        with pytest.raises(ShimError, match="cannot read the payload of State"):
            dispatcher.call_at_once("s0", "State", b"\xff")


# ---------------------------------------------------------------- on the wire


@asynccontextmanager
async def serving_tasks(tasks: Tasks) -> AsyncIterator[Peer]:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_rpc, listener, [Service(TASK, tasks, reads={"State"})])
        async with listener.connect() as theirs:
            yield Peer(theirs, Role.CLIENT)
        server.stop(grace=0)


async def ask(peer: Peer, method: str, request: Message, *, timeout_nano: int = 0) -> Response:
    payload = request.SerializeToString()
    await peer.send(Request(peer.connection.next_stream_id, NAME, method, payload, timeout_nano))
    return await response(peer)


async def test_an_instant_call_starts_no_task() -> None:
    """On a socket its answer needs none either; another call has one task."""
    spawned = Spawned()
    async with serving(echo, sockets(), at_once=payload_or_none) as peer:
        trio.lowlevel.add_instrument(spawned)
        for _ in range(10):
            await peer.request(b"x")
            assert (await response(peer)).payload == b"x"
        assert spawned.names == []
        await peer.request(b"")
        assert (await response(peer)).payload == b""
        trio.lowlevel.remove_instrument(spawned)
        assert spawned.names == ["m"]


async def test_a_time_limit_that_is_over_is_kept() -> None:
    """Nobody waits for such a call, so it is not even begun."""
    seen: list[None] = []
    async with serving_tasks(Tasks(lambda: seen.append(None))) as peer:
        over = await ask(peer, "State", api.StateRequest(), timeout_nano=-1)
        assert (over.code, seen) == (Code.DEADLINE_EXCEEDED, [])
        in_time = await ask(peer, "State", api.StateRequest(), timeout_nano=1)
        assert (in_time.code, seen) == (Code.OK, [None])


async def test_an_error_is_answered_and_the_next_call_too(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in a method ends neither the reader nor the connection (law 9)."""

    def look() -> None:
        raise ValueError("odd")

    async with serving_tasks(Tasks(look)) as peer:
        failed = await ask(peer, "State", api.StateRequest())
        assert (failed.code, failed.message) == (Code.UNKNOWN, "odd")
        assert (await ask(peer, "Connect", api.ConnectRequest(id="x"))).code == Code.OK
    [record] = caplog.records
    assert record.exc_info is not None


async def test_an_error_of_who_answers_at_once_is_a_status(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is not a `ShimError` is logged, as it is for `dispatch`."""

    def at_once(request: Request) -> bytes:
        raise ValueError("odd") if request.payload else NotFoundError("x")

    async with serving(echo, at_once=at_once) as peer:
        await peer.request(b"1")
        assert await peer.receive() == Response(1, b"", Code.UNKNOWN, "odd")
        await peer.request()
        assert await peer.receive() == Response(3, b"", Code.NOT_FOUND, "x: not found")
    assert len(caplog.records) == 1


async def test_an_instant_call_passes_one_that_waits() -> None:
    """A daemon waits for the end of a container and asks for its state on one connection."""
    gates = Gates()

    def at_once(request: Request) -> bytes | None:
        return request.payload if request.payload == b"now" else None

    async with serving(gates.dispatch, sockets(), at_once=at_once) as peer:
        await peer.request(b"later")
        for _ in range(3):
            await peer.request(b"now")
            assert (await response(peer)).payload == b"now"
        gates.opened[b"later"].set()
        assert (await response(peer)).payload == b"later"


# ---------------------------------------------------------------- turns

FLOOD = 5000  # requests; some turns of 64


def flood(count: int) -> bytes:
    client = Connection(Role.CLIENT)
    ids = range(1, 2 * count, 2)
    return b"".join(client.send(Request(n, NAME, "State", state_of("f"))) for n in ids)


@pytest.mark.parametrize("seed", range(30))
def test_a_flood_of_instant_calls_leaves_others_their_turn(seed: int) -> None:
    """Whatever the order of the tasks, a second client is answered soon, and a change too."""
    answered: list[None] = []

    async def scenario() -> int:
        listener = MemoryListener()
        async with trio.open_nursery() as nursery:
            service = Service(TASK, Tasks(lambda: answered.append(None)))
            server = await nursery.start(serve_rpc, listener, [service])
            first, second = listener.connect(), Peer(listener.connect(), Role.CLIENT)
            assert (await ask(second, "Connect", api.ConnectRequest())).code == Code.OK
            nursery.start_soon(first.send_all, flood(FLOOD))
            while not answered:
                await trio.lowlevel.checkpoint()
            await ask(second, "Kill", api.KillRequest())
            meanwhile = len(answered)
            while len(answered) < FLOOD + 1:
                await trio.lowlevel.checkpoint()
            server.stop(grace=0)
            await first.aclose()
            await second.stream.aclose()
        return meanwhile

    assert run_schedule(scenario, seed=seed) < 64 * 40


async def test_a_flood_does_not_hold_up_the_stop() -> None:
    """What was read and not begun is dropped: nobody waits for the rest."""
    reading = trio.CancelScope()
    answered = 0

    def at_once(request: Request) -> bytes:
        nonlocal answered
        answered += 1
        if answered == 100:
            reading.cancel()
        return b""

    async with serving(echo, sockets(), at_once=at_once, reading=reading) as peer:
        await peer.stream.send_all(flood(1000))
        await trio.testing.wait_all_tasks_blocked()
    assert answered == 128  # two turns
