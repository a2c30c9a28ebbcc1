"""The gRPC client: every way in which a connection ends, and that nothing is left of its calls."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import tracemalloc
from contextlib import suppress

import h2.connection
import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from trioshim import errors
from trioshim.rpc import GrpcClient, _grpc_client, open_grpc_client

from .grpc_client_world import (
    HEAD,
    OK,
    SERVICE,
    answers,
    calling,
    connected,
    expect_closed,
    framed,
)
from .grpc_world import Tasks


async def test_when_the_connection_ends_every_call_learns_it() -> None:
    """Those that wait, those that wait for their turn, and those that come later."""
    async with calling() as (client, server):
        server.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
        await server.flush()
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(expect_closed, client)
            await trio.testing.wait_all_tasks_blocked()
            assert not client.closed
            await server.stream.aclose()
            await client.wait_closed()
        assert client.closed
        assert client._connection.open_calls == 0
        await expect_closed(client)


async def test_leaving_the_block_ends_the_calls() -> None:
    """A call that outlives the client is told so, and so is a later one."""
    ours, _theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        async with open_grpc_client(ours) as client:
            nursery.start_soon(expect_closed, client)
            await trio.testing.wait_all_tasks_blocked()
        await expect_closed(client)
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"x")


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\0",  # data on stream 0
        b"\0\x40\x01\0\0\0\0\0\1" + bytes(0x4001),
        b"\0\0\1\1\4\0\0\0\1\xff",  # headers that HPACK cannot read
        b"\0\0\4\5\4\0\0\0\1\0\0\0\2",  # a pushed stream
    ],
    ids=["HTTP/1", "data on stream 0", "huge frame", "bad headers", "push"],
)
async def test_garbage_ends_the_connection(garbage: bytes) -> None:
    """The calls are told, and so is the server, with GOAWAY."""
    async with calling() as (client, server), answers(client) as calls:
        await calls.start("one")
        await server.request()
        await server.stream.send_all(garbage)
        await client.wait_closed()
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(calls.came["one"], errors.UnavailableError)
        server.take(await server.stream.receive_some())
        assert server.goaway not in (None, ErrorCodes.NO_ERROR)


async def test_what_came_before_the_garbage_is_good() -> None:
    """Even in the same packet."""
    async with calling() as (client, server), answers(client) as calls:
        for name in ("one", "two"):
            await calls.start(name)
        await server.until(lambda: 3 in server.asked)
        server.h2.send_headers(1, list(HEAD.items()))
        server.h2.send_data(1, framed(b"x"))
        server.h2.send_headers(1, list(OK.items()), end_stream=True)
        await server.stream.send_all(server.h2.data_to_send() + bytes(100))
        await client.wait_closed()
        await trio.testing.wait_all_tasks_blocked()
        assert calls.came["one"] == b"x"
        assert isinstance(calls.came["two"], errors.UnavailableError)


async def test_headers_without_a_limit_end_the_connection() -> None:
    """64 KiB of them are all that is kept."""
    async with calling() as (client, server), answers(client) as calls:
        await calls.start("one")
        server.h2.max_outbound_frame_size = 16384
        many = {f"x-{number}": "y" * 1000 for number in range(70)}
        await server.say(await server.request(), {**HEAD, **many})
        await client.wait_closed()
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(calls.came["one"], errors.UnavailableError)


@pytest.mark.parametrize("seed", range(60))
async def test_no_bytes_raise(seed: int) -> None:
    """Random damage to good replies: every call ends with an answer or an error."""
    rng = random.Random(seed)
    async with calling() as (client, server), answers(client) as calls:
        for number in range(4):
            await calls.start(str(number))
        await server.until(lambda: 7 in server.asked)
        for stream_id in (1, 3, 5):
            server.h2.send_headers(stream_id, list(HEAD.items()))
            server.h2.send_data(stream_id, framed(b"abc"))
            server.h2.send_headers(stream_id, list(OK.items()), end_stream=True)
        sent = bytearray(server.h2.data_to_send())
        for _ in range(rng.randrange(1, 4)):
            sent[rng.randrange(len(sent))] = rng.randrange(256)
        cut = rng.randrange(len(sent))
        await server.stream.send_all(sent[:cut])
        await trio.testing.wait_all_tasks_blocked()
        with suppress(trio.BrokenResourceError):
            await server.stream.send_all(sent[cut:] + rng.randbytes(rng.randrange(30)))
        await server.stream.aclose()
        await client.wait_closed()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(calls.came) == ["0", "1", "2", "3"]


# ---------------------------------------------------------------- a server that goes away


async def test_a_server_that_goes_away_answers_what_it_has_begun() -> None:
    """Nobody else: neither who came too late, nor who waited, nor who comes now."""
    async with calling() as (client, server):
        server.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 2})
        await server.flush()
        await trio.testing.wait_all_tasks_blocked()
        async with answers(client) as calls:
            for name in ("begun", "too late", "waits"):
                await calls.start(name)
            stream_id = await server.request()
            goaway = h2.connection.GoAwayFrame(0, last_stream_id=stream_id)
            await server.stream.send_all(goaway.serialize())
            await trio.testing.wait_all_tasks_blocked()
            assert client.closed
            assert sorted(calls.came) == ["too late", "waits"]
            await calls.start("now")
            for name in ("too late", "waits", "now"):
                assert isinstance(calls.came[name], errors.UnavailableError)
            await server.answer(stream_id, b"x")
        assert calls.came["begun"] == b"x"


async def test_our_server_goes_away_politely() -> None:
    """Stopped, it answers the call that runs; the next one is not begun."""
    tasks, reading = Tasks(), trio.CancelScope()
    async with connected(tasks, reading) as client, trio.open_nursery() as nursery:
        replies: list[bytes] = []

        async def wait() -> None:
            replies.append(await client.call(SERVICE, "Wait", b""))

        nursery.start_soon(wait)
        await tasks.until(lambda: tasks.started)
        reading.cancel()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(errors.UnavailableError):
            await client.call(SERVICE, "Connect", b"")
        tasks.go_on.set()
        await client.wait_closed()
        await trio.testing.wait_all_tasks_blocked()
        assert replies == [b"\x08\x03"]


async def test_used_up_ids_close_the_connection() -> None:
    """2**30 calls fit into one connection; the next one needs another."""
    async with connected(Tasks()) as client:
        client._connection._h2.highest_outbound_stream_id = 2**31 - 3
        assert await client.call(SERVICE, "State", b"") == b""
        await expect_closed(client)
        assert client.closed


# ---------------------------------------------------------------- a server that takes nothing


async def test_a_server_that_does_not_read_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A write has a time limit; a torn frame is followed by nothing (law 10)."""
    async with calling(trio.testing.lockstep_stream_pair, send_timeout=5) as (client, _):
        await expect_closed(client)
        assert trio.current_time() == 5


async def test_what_the_server_said_before_it_left_is_heard(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A write fails, but the answer to an earlier call is there to be read, for a second."""
    async with calling() as (client, server), answers(client) as calls:
        await calls.start("one")
        await calls.start("two")
        stream_id = await server.request()

        async def send_all(data: bytes) -> None:
            raise trio.BrokenResourceError

        client._stream.send_all = send_all  # type: ignore[method-assign,assignment]
        await calls.start("three")
        await server.answer(stream_id, b"farewell")
        await client.wait_closed()
        assert trio.current_time() == 1
        await trio.testing.wait_all_tasks_blocked()
        assert calls.came.pop("one") == b"farewell"
        assert [str(error) for error in calls.came.values()] == ["gRPC: closed: unavailable"] * 2


async def test_a_server_that_left_a_request_unread_is_gone() -> None:
    """The kernel says ECONNRESET then, not EOF."""
    left, right = map(trio.SocketStream, trio.socket.socketpair())
    async with calling(lambda: (left, right)) as (client, _), trio.open_nursery() as nursery:
        nursery.start_soon(expect_closed, client)
        await trio.lowlevel.wait_readable(right.socket)
        await right.aclose()


async def test_a_server_that_only_asks_is_not_listened_to_for_ever(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Pings whose answers nobody reads do not fill the memory: the reader stops, then the rest."""
    monkeypatch.setattr(_grpc_client, "_MUCH", 1000)
    async with calling(trio.testing.lockstep_stream_pair, send_timeout=5) as (client, server):
        await server.flush()
        pings = 0
        with trio.move_on_after(20):
            while not client.closed:
                server.h2.ping(b"12345678")
                await server.flush()
                pings += 1
        assert 1000 / 17 < pings < 2 * 1000 / 17
        assert client.closed


async def test_a_server_that_asks_much_and_reads_late_is_heard_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reader waits for the writer, and goes on when it has written."""
    monkeypatch.setattr(_grpc_client, "_MUCH", 1000)
    async with calling(trio.testing.lockstep_stream_pair) as (client, server):
        for _ in range(100):
            server.h2.ping(b"12345678")
        await server.flush()
        async with answers(client) as calls:
            await calls.start("one")
            await server.answer(await server.request(), b"x")
        assert calls.came == {"one": b"x"}


# ---------------------------------------------------------------- nothing is left


async def cancel_many(client: GrpcClient, rng: random.Random, count: int) -> None:
    """Calls that their callers leave after a random number of steps."""

    async def leave(scope: trio.CancelScope, steps: int) -> None:
        for _ in range(steps):
            await trio.lowlevel.cancel_shielded_checkpoint()
        scope.cancel()

    async def call(method: str, payload: bytes) -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(leave, scope, rng.randrange(12))
                with suppress(errors.ShimError):
                    await client.call(SERVICE, method, payload)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            method = rng.choice(["Connect", "Wait", "State", "Dance"])
            nursery.start_soon(call, method, b"\n\2xy" if rng.random() < 0.8 else bytes(200_000))


async def test_nothing_is_left_of_calls_that_were_cancelled() -> None:
    """A thousand, at random points: no stream, no ticket, no task, and no memory."""
    rng = random.Random(1)
    async with connected(Tasks()) as client:
        wire = client._connection
        sizes = []
        tracemalloc.start()
        for _ in range(5):
            for _ in range(10):
                await cancel_many(client, rng, 20)
            await trio.testing.wait_all_tasks_blocked()
            assert await client.call(SERVICE, "Connect", b"") == b"\x08\x07"
            await trio.testing.wait_all_tasks_blocked()
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert (client._calls, wire._waiting, wire._streams, wire._ids) == ({}, {}, {}, {})
        assert (wire._sending, wire.answers(), wire.pending) == ({}, [], 0)
        assert len(wire._h2.streams) <= 1
        assert len(client._tasks.child_tasks) == 1  # who reads
        assert sizes[-1] - sizes[1] < 200_000  # h2 remembers how a stream was closed


async def test_a_connection_that_is_closed_half_way_leaves_nothing() -> None:
    """In the middle of requests and replies, at a random point."""
    for seed in range(30):
        rng = random.Random(seed)
        async with connected(Tasks()) as client, trio.open_nursery() as nursery:
            nursery.start_soon(cancel_many, client, rng, 20)
            for _ in range(rng.randrange(30)):
                await trio.lowlevel.checkpoint()
            await trio.aclose_forcefully(client._stream)
            await client.wait_closed()
        assert (client._calls, client._connection.open_calls) == ({}, 0)


@pytest.mark.parametrize("module", ["trioshim.rpc", "trioshim.client"])
def test_purerpc_is_not_imported_before_it_is_needed(module: str) -> None:
    """Who makes calls over ttrpc does not pay for it."""
    program = f"import {module}, sys; print(*({{'h2', 'purerpc', 'anyio'}} & {{*sys.modules}}))"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "\n", "")
