"""The client: each call gets its own answer, or an error that says why not, and in time."""

import contextlib

import pytest
import trio
import trio.testing

from trioshim.errors import (
    Code,
    DeadlineExceededError,
    NotFoundError,
    ResourceExhaustedError,
    ShimError,
    StatusError,
)
from trioshim.ttrpc import MAX_LENGTH, Request, Response, open_client, serve_connection
from trioshim.ttrpc._frames import Frame, FrameType

from .ttrpc_world import calling, connected, echo


async def test_a_call_whose_caller_is_cancelled_already_is_not_made() -> None:
    """Not even its frame is written, which would take no waiting."""
    asked = []

    async def dispatch(request):
        asked.append(request.payload)
        return b""

    async with connected(dispatch) as client:
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.call("s", "m", b"unwanted")
        await client.call("s", "m", b"wanted")
    assert asked == [b"wanted"]


async def test_many_calls_at_a_time_each_get_their_own_answer():
    """Whatever the order of the answers."""
    answers = {}

    async def dispatch(request):
        for _ in range(int(request.payload) % 7):
            await trio.lowlevel.checkpoint()
        return request.payload

    async def call(client, number):
        answers[number] = await client.call("s", "m", b"%d" % number)

    async with connected(dispatch) as client, trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(call, client, number)
    assert answers == {number: b"%d" % number for number in range(100)}


async def test_the_whole_request_reaches_the_dispatch():
    """Names, payload, the time limit and the metadata."""
    seen = []

    async def dispatch(request):
        seen.append(request)
        return b""

    async with connected(dispatch) as client:
        await client.call("svc", "Do", b"p", timeout=1.5, metadata=[("k", "v"), ("k", "w")])
        await client.call("svc", "Do", b"")
    assert seen == [
        Request(1, "svc", "Do", b"p", 1_500_000_000, (("k", "v"), ("k", "w"))),
        Request(3, "svc", "Do"),
    ]


async def test_the_class_raised_in_the_server_is_the_class_caught():
    """With the same text."""

    async def dispatch(request):
        if request.payload:
            raise StatusError("cannot start a running process")
        raise NotFoundError("container c")

    async with connected(dispatch) as client:
        with pytest.raises(NotFoundError, match=r"^container c: not found$"):
            await client.call("s", "m", b"")
        with pytest.raises(StatusError, match="cannot start"):
            await client.call("s", "m", b"x")


async def test_a_deadline_that_passes(autojump_clock):
    """On time, with containerd's text, and the connection goes on; the late answer is ignored."""

    async def dispatch(request):
        await trio.sleep(float(request.payload))
        return request.payload

    async with connected(dispatch) as client:
        with pytest.raises(DeadlineExceededError, match=r"^context deadline exceeded$"):
            await client.call("s", "m", b"3", timeout=2)
        assert trio.current_time() == 2
        assert await client.call("s", "m", b"5", timeout=6) == b"5"
        assert client._connection.open_streams == 0


@pytest.mark.parametrize("timeout", [0, -1.5])
async def test_a_deadline_that_has_passed(timeout):
    """Nothing is sent."""
    async with calling() as (client, _):
        with pytest.raises(DeadlineExceededError):
            await client.call("s", "m", b"", timeout=timeout)
        assert client._connection.next_stream_id == 1


@pytest.mark.parametrize(("timeout", "nano"), [(1e-12, 1), (1e300, 2**63 - 1), (float("inf"), 0)])
async def test_strange_deadlines_fit_into_the_wire(mock_clock, timeout, nano):
    """No limit is 0, so a tiny one must not become that."""
    async with calling() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: client.call("s", "m", b"", timeout=timeout))
        assert (await server.receive()).timeout_nano == nano
        nursery.cancel_scope.cancel()


async def test_faults_of_one_answer_hurt_one_call():
    """Undecodable, or not what a unary call gets."""
    async with calling() as (client, server):
        for type_, code in ((FrameType.RESPONSE, Code.INTERNAL), (FrameType.DATA, Code.INTERNAL)):
            stream_id = client._connection.next_stream_id
            async with trio.open_nursery() as nursery:
                nursery.start_soon(expect_code, client, code)
                await server.receive()
                await server.stream.send_all(Frame(stream_id, type_, 0, b"\xff\xff").encode())
        assert not client.closed


async def expect_code(client, code):
    with pytest.raises(ShimError) as caught:
        await client.call("s", "m", b"")
    assert caught.value.code == code


async def test_frames_for_nobody_are_ignored():
    """Answers to calls that were never made, and bad frames, from a confused server."""
    async with calling() as (client, server), trio.open_nursery() as nursery:
        await server.stream.send_all(Frame(9, 2).encode() + Frame(4, 3).encode())
        nursery.start_soon(answer_one, server)
        assert await client.call("s", "m", b"x") == b"x"


async def answer_one(server):
    request = await server.receive()
    await server.send(Response(request.stream_id, request.payload))


async def test_a_request_that_is_too_long_is_not_sent():
    """The call fails, its id is not used up."""
    async with connected(echo) as client:
        with pytest.raises(ResourceExhaustedError):
            await client.call("s", "m", bytes(MAX_LENGTH))
        assert client._connection.next_stream_id == 1
        assert await client.call("s", "m", b"x") == b"x"


async def test_the_blocks_own_error_comes_out_as_it_is():
    """Not in an ExceptionGroup."""
    with pytest.raises(ValueError, match="mine"):
        async with connected_bare():
            raise ValueError("mine")


@contextlib.asynccontextmanager
async def connected_bare():
    ours, _theirs = trio.testing.memory_stream_pair()
    async with open_client(ours) as client:
        yield client


async def test_a_call_inside_of_a_shield_survives_the_cancellation_around():
    """The last Delete of a block that is being cancelled gets through."""
    ours, theirs = trio.testing.memory_stream_pair()
    answer = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, ours, echo)
        with trio.CancelScope() as outer:
            async with open_client(theirs) as client:
                outer.cancel()
                with trio.CancelScope(shield=True):
                    answer = await client.call("s", "m", b"delete")
                await trio.lowlevel.checkpoint()
        assert outer.cancelled_caught
    assert answer == b"delete"
