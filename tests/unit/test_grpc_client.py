"""The gRPC client: each call gets its own answer, or an error that says why not, and in time."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from trioshim import errors
from trioshim.proto import task_v2_pb2 as api
from trioshim.rpc import open_grpc_client
from trioshim.rpc._grpc_wire import MAX_MESSAGE

from .grpc_client_world import HEAD, SERVICE, Server, answers, calling, connected, framed
from .grpc_world import ONE_OF_EACH, Tasks, raising

# ---------------------------------------------------------------- calls


async def test_many_calls_at_a_time_each_get_their_own_answer() -> None:
    """Whatever the order of the answers."""
    async with calling() as (client, server):
        async with answers(client) as calls:
            for number in range(20):
                await calls.start(f"call {number}", b"%d" % number)
            await server.until(lambda: sum(asked.ended for asked in server.asked.values()) == 20)
            for stream_id, asked in reversed(list(server.asked.items())):
                await server.answer(stream_id, b"to " + asked.body[5:])
        assert calls.came == {f"call {n}": b"to %d" % n for n in range(20)}


async def test_a_request_is_one_of_grpc() -> None:
    """Path, headers, one message."""
    async with calling() as (client, server), answers(client) as calls:
        await calls.start("one", b"abc", 1.5)
        asked = server.asked[stream_id := await server.request()]
        assert asked.headers == {
            ":method": "POST",
            ":scheme": "http",
            ":path": f"/{SERVICE}/State",
            ":authority": "localhost",
            "te": "trailers",
            "content-type": "application/grpc",
            "grpc-timeout": "1500000u",
            "grpc-accept-encoding": "identity",
            "user-agent": "trioshim",
        }
        assert asked.body == framed(b"abc")
        await server.answer(stream_id)


@pytest.mark.parametrize(
    "error",
    [
        *ONE_OF_EACH,
        errors.StatusError("", errors.Code.ABORTED),
        errors.StatusError("100 % wrong:\n“é”, a/b %41"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_the_class_raised_in_the_server_is_the_class_caught(error: errors.ShimError) -> None:
    """With the same code and text."""
    tasks = Tasks()
    tasks.answer = raising(error)
    async with connected(tasks) as client:
        with pytest.raises(type(error)) as caught:
            await client.call(SERVICE, "State", b"")
        assert errors.to_status(caught.value) == errors.to_status(error)


async def test_a_deadline_that_passes(autojump_clock: trio.testing.MockClock) -> None:
    """On time, with containerd's text; the server is told, the connection goes on."""
    async with calling() as (client, server):
        with pytest.raises(errors.DeadlineExceededError, match=r"^context deadline exceeded$"):
            await client.call(SERVICE, "State", b"", timeout=2)
        assert trio.current_time() == 2
        await server.until(lambda: server.asked and server.asked[1].reset is not None)
        assert server.asked[1].reset == ErrorCodes.CANCEL
        del server.asked[1]
        async with answers(client) as calls:
            await calls.start("next")
            await server.answer(await server.request(), b"x")
        assert calls.came == {"next": b"x"}


@pytest.mark.parametrize("timeout", [0, -1.5])
async def test_a_deadline_that_has_passed(timeout: float) -> None:
    """Nothing is sent."""
    async with calling() as (client, server):
        with pytest.raises(errors.DeadlineExceededError):
            await client.call(SERVICE, "State", b"", timeout=timeout)
        await trio.testing.wait_all_tasks_blocked()
        server.take(await server.stream.receive_some())
        assert server.asked == {}


@pytest.mark.parametrize(
    ("timeout", "said"),
    [
        (1e-12, "1u"),
        (0.25, "250000u"),
        (2, "2S"),
        (98.999999, "98999999u"),
        (120.25, "121S"),
        (1e300, "99999999S"),
        (math.inf, None),
    ],
)
async def test_strange_deadlines_fit_into_the_wire(
    mock_clock: trio.testing.MockClock, timeout: float, said: str | None
) -> None:
    """Eight digits, and never less than nothing."""
    async with calling() as (client, server), answers(client) as calls:
        scope = await calls.start("one", b"", timeout)
        stream_id = await server.request()
        assert server.asked[stream_id].headers.get("grpc-timeout") == said
        scope.cancel()


@pytest.mark.parametrize(
    ("service", "method"), [("s", "a b"), ("s\n", "m"), ("ü", "m"), ("s" * 5000, "m")]
)
async def test_names_that_cannot_be_sent(service: str, method: str) -> None:
    """The call fails, and nothing else."""
    async with connected(Tasks()) as client:
        with pytest.raises(errors.InvalidArgumentError):
            await client.call(service, method, b"")
        assert await client.call(SERVICE, "State", b"") == b""


async def test_calls_inside_of_a_shield_survive_the_cancellation() -> None:
    """The connection lasts as long as the block."""
    async with connected(Tasks()) as client:
        with trio.CancelScope() as scope:
            scope.cancel()
            with trio.CancelScope(shield=True):
                assert await client.call(SERVICE, "State", b"") == b""
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    """Not in a group; the stream is closed."""
    ours, theirs = trio.testing.memory_stream_pair()
    with pytest.raises(ZeroDivisionError):
        async with open_grpc_client(ours):
            raise ZeroDivisionError
    while await theirs.receive_some():
        pass


# ---------------------------------------------------------------- callers that leave


async def test_a_cancelled_call_ends_in_the_server() -> None:
    """RST_STREAM: a read there is cancelled at once, a change is not (law 8)."""
    tasks = Tasks()
    async with connected(tasks) as client:
        for count, method in ((1, "Wait"), (2, "Kill")):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.call, SERVICE, method, b"")
                    await tasks.until(lambda count=count: len(tasks.started) == count)
                    scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert tasks.cancelled == ["wait"]
        tasks.go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        assert tasks.finished == ["kill"]
        assert client._connection.open_calls == 0


async def test_a_call_cancelled_before_its_turn_is_never_sent() -> None:
    """The server takes nothing at the moment; of who left meanwhile it hears nothing."""
    async with calling(trio.testing.lockstep_stream_pair) as (client, server):
        await trio.testing.wait_all_tasks_blocked()  # in its first write, which nobody takes
        async with answers(client) as calls:
            scope = await calls.start("left")
            await calls.start("stays")
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            stream_id = await server.request()
            assert list(server.asked) == [stream_id] == [1]
            await server.answer(stream_id, b"x")
        assert calls.came == {"stays": b"x"}


async def test_a_late_answer_is_ignored() -> None:
    """It crossed the reset on its way."""
    async with calling() as (client, server), answers(client) as calls:
        scope = await calls.start("left")
        stream_id = await server.request()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        await server.answer(stream_id, b"late")
        await calls.start("next")
        await server.answer(await server.request(), b"x")
        await trio.testing.wait_all_tasks_blocked()
        assert calls.came == {"next": b"x"}


async def test_no_call_before_the_server_has_said_what_it_allows() -> None:
    """It may allow fewer than there are."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_grpc_client(ours) as client, answers(client) as calls:
        await calls.start("one", b"x")
        server = Server(theirs)
        server.take(await theirs.receive_some())
        assert server.asked == {}
        await server.answer(await server.request(), b"x")
        await trio.testing.wait_all_tasks_blocked()
        assert calls.came == {"one": b"x"}


async def test_no_more_calls_at_a_time_than_the_server_allows() -> None:
    """The others wait for their turn; who leaves meanwhile gives it up."""
    async with calling() as (client, server):
        server.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 2})
        await server.flush()
        await trio.testing.wait_all_tasks_blocked()
        async with answers(client) as calls:
            scopes = [await calls.start(str(number), b"%d" % number) for number in range(5)]
            scopes[2].cancel()
            first = await server.request()
            await trio.testing.wait_all_tasks_blocked()
            assert [asked.body[5:] for asked in server.asked.values()] == [b"0", b"1"]
            await server.answer(first, b"x")
            for _ in range(3):
                stream_id = await server.request()
                await server.answer(stream_id, server.asked[stream_id].body[5:])
        assert calls.came == {"0": b"x", "1": b"1", "3": b"3", "4": b"4"}


# ---------------------------------------------------------------- large ones


async def test_the_largest_request_and_the_largest_reply() -> None:
    """4 MiB each, several at a time, over windows that are smaller."""
    tasks = Tasks()
    tasks.answer = lambda: api.StateResponse(id="x" * (MAX_MESSAGE - 5))
    payload = api.StateRequest(id="x" * (MAX_MESSAGE - 5)).SerializeToString()
    assert len(payload) == MAX_MESSAGE
    lengths: list[int] = []
    async with connected(tasks) as client:

        async def call() -> None:
            lengths.append(len(await client.call(SERVICE, "State", payload)))

        async with trio.open_nursery() as nursery:
            for _ in range(6):  # more than both windows of the connection
                nursery.start_soon(call)
    assert lengths == [MAX_MESSAGE] * 6


async def test_no_byte_more_than_the_window() -> None:
    """The rest goes when it opens; a small call need not wait for a large one."""
    async with calling() as (client, server):
        server.opens_window = False
        server.h2.increment_flow_control_window(1000)
        async with answers(client) as calls:
            await calls.start("large", bytes(100_000))
            await server.until(lambda: server.asked and len(server.asked[1].body) == 65535)
            await calls.start("small", b"x")
            await server.until(lambda: 3 in server.asked and server.asked[3].ended)
            await server.answer(3)
            await trio.testing.wait_all_tasks_blocked()
            assert "small" in calls.came
            server.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 200_000})
            server.h2.increment_flow_control_window(100_000)
            assert await server.request() == 1
            assert server.asked[1].body == framed(bytes(100_000))
            await server.answer(1)


async def test_a_request_that_is_too_long() -> None:
    """Nothing is sent."""
    async with connected(Tasks()) as client:
        with pytest.raises(errors.ResourceExhaustedError, match="request of 4194305 bytes"):
            await client.call(SERVICE, "State", bytes(MAX_MESSAGE + 1))
        assert client._connection.open_calls == 0


async def test_an_early_refusal_ends_the_request() -> None:
    """The server does not want the rest, and does not get it."""
    async with calling() as (client, server), answers(client) as calls:
        server.opens_window = False
        await calls.start("large", bytes(100_000))
        await server.until(lambda: server.asked and len(server.asked[1].body) == 65535)
        asked = server.asked[1]
        refusal = {**HEAD, "grpc-status": "8", "grpc-message": "no%20room"}
        await server.say(1, refusal)
        server.asked[1] = asked
        await server.until(lambda: asked.reset is not None)
        assert asked.reset == ErrorCodes.NO_ERROR
        assert str(calls.came["large"]) == "no room: resource exhausted"


async def test_the_windows_are_given_back() -> None:
    """More goes over a connection than its window, also in replies that nobody waits for."""
    async with calling() as (client, server), answers(client) as calls:
        for number in range(12):
            scope = await calls.start(f"call {number}")
            stream_id = await server.request()
            if number % 2:
                scope.cancel()
                await trio.testing.wait_all_tasks_blocked()
            await server.answer(stream_id, bytes(4_000_000))
            await server.until(lambda: server.h2.outbound_flow_control_window > 5_000_000)
        await trio.testing.wait_all_tasks_blocked()
        assert [len(answer) for answer in calls.came.values()] == [4_000_000] * 6
