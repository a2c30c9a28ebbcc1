"""Who polls says the same again to the byte: it is decoded once, and answered anew each time."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
import trio.testing
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from trioshim.errors import Code, InternalError
from trioshim.proto import task_v2_pb2 as api
from trioshim.proto import ttrpc_pb2
from trioshim.proto.task_types_pb2 import Status
from trioshim.rpc import Dispatcher, Service, instant, serve_rpc
from trioshim.testing import MemoryListener, open_shim
from trioshim.ttrpc import BadFrame, Mode, Request, Response, Role
from trioshim.ttrpc._envelope import RequestDecoder, encode_response
from trioshim.ttrpc._frames import Frame, FrameType

from .ttrpc_pair import events, pair
from .ttrpc_world import Peer, response

TASK = api.DESCRIPTOR.services_by_name["Task"]
NAME = TASK.full_name
KEPT = 64  # at most


# ---------------------------------------------------------------- requests on the wire


def frame(stream_id: int, mode: Mode = Mode.UNARY, **said: object) -> Frame:
    body = ttrpc_pb2.Request(**said).SerializeToString()
    return Frame(stream_id, FrameType.REQUEST, mode, body)


def test_the_same_bytes_are_decoded_once() -> None:
    """The second request is made of the parts of the first."""
    decoder = RequestDecoder()
    first, again = (decoder.decode(frame(n, payload=b"some bytes")) for n in (1, 3))
    assert first.payload is again.payload


@pytest.mark.parametrize("mode", Mode)
def test_the_id_and_the_mode_are_those_of_each_call(mode: Mode) -> None:
    """They are in the header of the frame, which nobody remembers."""
    decoder = RequestDecoder()
    assert decoder.decode(frame(1, service="s", method="m")) == Request(1, "s", "m")
    again = decoder.decode(frame(3, mode, service="s", method="m"))
    assert again == Request(3, "s", "m", mode=mode)
    assert decoder.remembered == 1


few = st.sampled_from(["", "a", "b"])
requests = st.builds(
    Request,
    stream_id=st.just(1),
    service=few,
    method=few,
    payload=few.map(str.encode),
    timeout_nano=st.integers(-1, 1),
    metadata=st.lists(st.tuples(few, few), max_size=1).map(tuple),
    mode=st.sampled_from(Mode),
)


@given(st.lists(requests, max_size=20))
def test_requests_that_hardly_differ_arrive_as_they_were_sent(sent: list[Request]) -> None:
    """Another payload, time limit or metadata: another request."""
    sent = [replace(request, stream_id=2 * n + 1) for n, request in enumerate(sent)]
    client, server = pair()
    assert events(server, *map(client.send, sent)) == sent


def test_few_requests_are_remembered() -> None:
    """However many come; and what is forgotten is decoded again."""
    decoder = RequestDecoder()
    for _ in range(2):
        for number in range(3 * KEPT + 1):
            payload = b"%d" % number
            assert decoder.decode(frame(1, payload=payload)) == Request(1, "", "", payload)
            assert 0 < decoder.remembered <= KEPT


@pytest.mark.parametrize(
    "said", [{"payload": b"x" * 600}, {"timeout_nano": 1}], ids=["large", "limited"]
)
def test_what_hardly_comes_again_is_not_remembered(said: dict[str, object]) -> None:
    """It would only take the place of what does."""
    decoder = RequestDecoder()
    for stream_id in (1, 3):
        request = Request(stream_id, "", "", **said)
        assert decoder.decode(frame(stream_id, **said)) == request
    assert decoder.remembered == 0


def test_what_cannot_be_read_fails_each_time() -> None:
    """As often as it comes, each under its own id."""
    decoder = RequestDecoder()
    for stream_id in (1, 3, 5):
        bad = decoder.decode(Frame(stream_id, FrameType.REQUEST, 0, b"\xff\xff"))
        assert isinstance(bad, BadFrame)
        assert (bad.stream_id, bad.code) == (stream_id, Code.INVALID_ARGUMENT)
    assert decoder.remembered == 0


# ---------------------------------------------------------------- replies on the wire


@pytest.mark.parametrize("size", [0, 1, 0x7F, 0x80, 0x3FFF, 0x4000, 100_000])
def test_a_success_is_what_protobuf_makes_of_it(size: int) -> None:
    """Whether its length takes one byte, two or more."""
    payload = bytes(n % 251 for n in range(size))
    body = ttrpc_pb2.Response(payload=payload).SerializeToString()
    made = Frame(0xFFFF_FFFF, FrameType.RESPONSE, 0, body).encode()
    assert encode_response(Response(0xFFFF_FFFF, payload)) == made


def test_a_payload_beside_a_status_is_no_success() -> None:
    """A code, a text and details each make a status."""
    for status in ({"code": 5}, {"message": "x"}, {"details": (("u", b"v"),)}):
        client, server = pair()
        events(server, client.send(Request(1, "s", "m")))
        reply = Response(1, b"x", **status)
        assert events(client, server.send(reply)) == [reply]


# ---------------------------------------------------------------- instant methods


class Tasks:
    """State and Connect are instant and say what they were asked; Kill waits for an hour."""

    @instant
    def state(self, request: api.StateRequest) -> api.StateResponse:
        return api.StateResponse(id=request.id, bundle=request.exec_id)

    @instant
    def connect(self, request: api.ConnectRequest) -> api.ConnectResponse:
        return api.ConnectResponse(version=request.id)

    async def kill(self, request: api.KillRequest) -> Empty:
        await trio.sleep(3600)
        return Empty()


@pytest.fixture
async def dispatcher() -> AsyncIterator[Dispatcher]:
    async with trio.open_nursery() as lasting:
        yield Dispatcher([Service(TASK, Tasks())], lasting)


async def test_the_same_payload_is_parsed_once(dispatcher: Dispatcher) -> None:
    """The second answer is to the same request."""
    look = dispatcher._instant[NAME, "State"]
    first, again = (look.request(api.StateRequest(id="x").SerializeToString()) for _ in range(2))
    assert first is again


async def test_each_method_reads_a_payload_in_its_own_way(dispatcher: Dispatcher) -> None:
    """The same bytes are another request for another method."""
    payload = api.ConnectRequest(id="x").SerializeToString()
    for _ in range(2):
        said = dispatcher.call_at_once(NAME, "Connect", payload)
        assert said == api.ConnectResponse(version="x").SerializeToString()
        said = dispatcher.call_at_once(NAME, "State", payload)
        assert said == api.StateResponse(id="x").SerializeToString()


async def test_each_payload_has_its_answer_and_few_are_remembered(dispatcher: Dispatcher) -> None:
    """However many come; and what is forgotten is parsed again."""
    for number in [*range(3 * KEPT + 1)] * 2:
        payload = api.StateRequest(id=f"c{number}").SerializeToString()
        answer = api.StateResponse(id=f"c{number}").SerializeToString()
        assert dispatcher.call_at_once(NAME, "State", payload) == answer
        assert 0 < dispatcher._instant[NAME, "State"].remembered <= KEPT


async def test_a_large_payload_is_not_remembered(dispatcher: Dispatcher) -> None:
    """A peer cannot fill the memory with a few."""
    for _ in range(2):
        payload = api.StateRequest(id="x" * 300).SerializeToString()
        answer = api.StateResponse(id="x" * 300).SerializeToString()
        assert dispatcher.call_at_once(NAME, "State", payload) == answer
    assert dispatcher._instant[NAME, "State"].remembered == 0


async def test_a_payload_that_cannot_be_read_is_told_each_time(dispatcher: Dispatcher) -> None:
    """And is not remembered."""
    for _ in range(3):
        with pytest.raises(InternalError, match="cannot read the payload of State"):
            dispatcher.call_at_once(NAME, "State", b"\xff")
    assert dispatcher._instant[NAME, "State"].remembered == 0


# ---------------------------------------------------------------- a shim that is polled


async def ask(peer: Peer, method: str, request: Message, timeout_nano: int = 0) -> Response:
    payload = request.SerializeToString()
    await peer.send(Request(peer.connection.next_stream_id, NAME, method, payload, timeout_nano))
    return await response(peer)


@asynccontextmanager
async def polled(tasks: object) -> AsyncIterator[Peer]:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_rpc, listener, [Service(TASK, tasks, reads={"Kill"})])
        async with listener.connect() as theirs:
            yield Peer(theirs, Role.CLIENT)
        server.stop(grace=0)


async def test_each_call_has_its_whole_time(autojump_clock: trio.testing.MockClock) -> None:
    """A time limit is counted from the arrival, whatever was asked before; one may be over."""
    async with polled(Tasks()) as peer:
        for number in range(1, 4):
            late = await ask(peer, "Kill", api.KillRequest(id="x"), timeout_nano=2 * 10**9)
            assert late.code == Code.DEADLINE_EXCEEDED
            assert trio.current_time() == pytest.approx(2 * number)
        for limit, code in ((0, Code.OK), (-1, Code.DEADLINE_EXCEEDED)) * 2:
            told = await ask(peer, "State", api.StateRequest(id="x"), timeout_nano=limit)
            assert told.code == code


async def test_answers_follow_what_happens() -> None:
    """The same three requests, from before Create to after Delete; a refusal is not kept either."""
    looks = {"State": api.StateRequest(id="x"), "Connect": api.ConnectRequest(id="x")}
    async with open_shim() as world, world.client() as client, world.listener.connect() as theirs:
        peer = Peer(theirs, Role.CLIENT)

        async def look() -> tuple[int, int, int]:
            """Code and status of State, and what Connect says is the container's pid."""
            state, connect = [await ask(peer, name, looks[name]) for name in looks]
            status = api.StateResponse.FromString(state.payload).status
            told = api.ConnectResponse.FromString(connect.payload)
            assert told.shim_pid == os.getpid()
            return state.code, status, told.task_pid

        none = (Code.NOT_FOUND, Status.UNKNOWN, 0)
        assert await look() == none
        created = await client.create(api.CreateTaskRequest(id="x", bundle="/b"))
        assert await look() == (Code.OK, Status.CREATED, created.pid)
        await client.start(api.StartRequest(id="x"))
        assert await look() == (Code.OK, Status.RUNNING, created.pid)
        await client.kill(api.KillRequest(id="x", signal=9))
        await client.wait(api.WaitRequest(id="x"))
        assert await look() == (Code.OK, Status.STOPPED, created.pid)
        await client.delete(api.DeleteRequest(id="x"))
        assert await look() == none
        await client.shutdown(api.ShutdownRequest(id="x"))


@pytest.mark.parametrize("asked", [api.StateRequest, api.PidsRequest, api.ConnectRequest])
async def test_who_looks_leaves_the_request_as_it_is(asked: type[Message]) -> None:
    """It is given to him again."""
    async with open_shim() as world, world.client() as client:
        await client.create(api.CreateTaskRequest(id="x", bundle="/b"))
        request = asked(id="x")
        before = request.SerializeToString()
        method = asked.DESCRIPTOR.name.removesuffix("Request").lower()
        await getattr(world.service, method)(request)
        assert request.SerializeToString() == before
        await client.delete(api.DeleteRequest(id="x"))
        await client.shutdown(api.ShutdownRequest(id="x"))
