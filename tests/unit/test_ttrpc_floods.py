"""Peers that say much and read little: nobody waits for them without end, nothing fills up."""

import contextlib
import socket

import pytest
import trio
import trio.testing

from trioshim.errors import DeadlineExceededError, NotFoundError
from trioshim.ttrpc import ConnectionClosed, Response, Role, serve_connection
from trioshim.ttrpc._frames import Frame

from .ttrpc_world import Gates, Peer, calling, connected, echo, expect_closed, serving


async def test_cancelling_the_server_does_not_wait_for_a_deaf_peer(autojump_clock):
    """The connection dies with the frame, so nothing has to be finished."""
    streams = trio.testing.lockstep_stream_pair()
    with trio.move_on_after(1):
        async with serving(echo, streams) as peer:
            await peer.request(b"x")
            await trio.sleep_forever()
    assert trio.current_time() == 1
    with pytest.raises(trio.ClosedResourceError):
        await streams[0].send_all(b"x")


async def test_a_peer_that_does_not_read_is_cut_off(autojump_clock, caplog):
    """After the time limit of one write; its other calls are cancelled."""
    gates = Gates()
    streams = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        peer = Peer(streams[1], Role.CLIENT)
        nursery.start_soon(lambda: serve_connection(streams[0], gates.dispatch, send_timeout=30))
        await peer.request(b"a")
        await peer.request(b"b")
        await trio.testing.wait_all_tasks_blocked()
        gates.opened[b"a"].set()
    assert trio.current_time() == 30
    assert gates.cancelled == [b"b"]
    assert "does not read" in caplog.text


async def test_the_time_limit_is_for_one_write_not_for_all(autojump_clock):
    """A slow reader that reads is served."""
    async with serving(echo, trio.testing.lockstep_stream_pair(), send_timeout=30) as peer:
        for _ in range(5):
            await peer.request(bytes(100_000))
        for number in range(5):
            await trio.sleep(20)
            assert (await peer.receive()).stream_id == 2 * number + 1
    assert trio.current_time() == 100


async def test_the_reader_does_not_wait_for_the_writer():
    """Requests are taken while a reply is stuck (containerd/ttrpc#72)."""
    gates = Gates()
    async with serving(gates.dispatch, trio.testing.lockstep_stream_pair()) as peer:
        await peer.request(b"a")
        await trio.testing.wait_all_tasks_blocked()
        gates.opened[b"a"].set()
        await trio.testing.wait_all_tasks_blocked()
        await peer.stream.send_all(Frame(2, 1).encode())
        await peer.request(b"b")
        await trio.testing.wait_all_tasks_blocked()
        assert set(gates.opened) == {b"a", b"b"}


async def test_a_peer_with_too_many_open_calls_is_cut_off(caplog):
    """The limit itself is allowed."""
    gates = Gates()
    async with serving(gates.dispatch, max_in_flight=3) as peer:
        for payload in (b"a", b"b", b"c"):
            await peer.request(payload)
        await trio.testing.wait_all_tasks_blocked()
        assert gates.cancelled == []
        await peer.request(b"d")
        assert await peer.receive() == ConnectionClosed()
    assert {b"a", b"b", b"c"} <= set(gates.cancelled)
    assert "unanswered" in caplog.text


async def test_calls_that_have_ended_do_not_count():
    """The limit is for what is unanswered now."""
    async with serving(echo, max_in_flight=2) as peer:
        for number in range(10):
            await peer.request(b"x")
            assert await peer.receive() == Response(2 * number + 1, b"x")


async def test_answers_to_bad_frames_count_as_open_calls(caplog):
    """A peer that only sends garbage and reads nothing cannot fill the memory."""
    streams = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_connection(streams[0], echo, max_in_flight=10))
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await streams[1].send_all(Frame(2, 1).encode())
    assert "unanswered" in caplog.text


async def test_a_deaf_server_does_not_hold_a_caller(autojump_clock, caplog):
    """The caller leaves on time; the connection is given up after the time limit of a write."""
    async with calling(trio.testing.lockstep_stream_pair()) as (client, _):
        with pytest.raises(DeadlineExceededError):
            await client.call("s", "m", b"", timeout=1)
        assert trio.current_time() == 1
        await expect_closed(client)
        assert trio.current_time() == 30
    assert "does not read" in caplog.text


def narrow_socketpair() -> tuple[trio.SocketStream, trio.SocketStream]:
    pair = trio.socket.socketpair()
    for end in pair:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return trio.SocketStream(pair[0]), trio.SocketStream(pair[1])


async def test_floods_in_both_directions_do_not_deadlock():
    """512 calls of 64 KiB each way through buffers of 4 KiB (containerd/ttrpc#72, #168)."""
    done = 0

    async def call(client, number):
        nonlocal done
        payload = number.to_bytes(2, "big") * 32768
        assert await client.call("s", "m", payload) == payload
        done += 1

    async with connected(echo, narrow_socketpair()) as client, trio.open_nursery() as nursery:
        for number in range(512):
            nursery.start_soon(call, client, number)
    assert done == 512


async def test_nothing_is_left_of_calls_that_have_ended(autojump_clock):
    """Answered, refused, cancelled or late: no table grows (containerd/ttrpc#241)."""

    async def dispatch(request):
        if request.payload == b"late":
            await trio.sleep(2)
        elif request.payload == b"fail":
            raise NotFoundError
        return b""

    async with connected(dispatch) as client:
        for _ in range(100):
            await client.call("s", "m", b"")
            with pytest.raises(NotFoundError):
                await client.call("s", "m", b"fail")
            with pytest.raises(DeadlineExceededError):
                await client.call("s", "m", b"late", timeout=1)
            async with trio.open_nursery() as nursery:
                for payload in (b"late", b"never", b"never"):
                    nursery.start_soon(client.call, "s", "m", payload)
                await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        await trio.sleep(3)
        assert client._connection.open_streams == 0
        assert (len(client._calls), len(client._outbox), len(client._tasks.child_tasks)) == (
            0,
            0,
            1,
        )
