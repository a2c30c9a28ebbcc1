"""The end of a connection, however it comes: every call learns it, the stream is closed."""

import pytest
import trio
import trio.testing

from trioshim.ttrpc import Connection, Response, Role, open_client, serve_connection
from trioshim.ttrpc._frames import Frame

from .ttrpc_world import Gates, Peer, calling, connected, echo, expect_closed, serving

# ---------------------------------------------------------------- the server's side


@pytest.mark.parametrize("last", [b"", b"\0\0", Frame(5, 1, 0, b"body").encode()[:12]])
async def test_when_the_peer_is_gone_its_calls_are_cancelled(last):
    """Whether it stops between frames or inside of one; that is a normal return."""
    gates = Gates()
    async with serving(gates.dispatch) as peer:
        await peer.request(b"a")
        await peer.request(b"b")
        await trio.testing.wait_all_tasks_blocked()
        await peer.stream.send_all(last)
        await peer.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(gates.cancelled) == [b"a", b"b"]


async def test_the_stream_is_closed_when_the_peer_is_gone():
    """A connection leaks nothing, whatever the peer did."""
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"\0")
    await theirs.aclose()
    await serve_connection(ours, echo)
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"x")


async def test_a_peer_that_takes_no_reply_is_gone():
    """It could still send, but its calls cannot be answered: they are cancelled."""
    gates = Gates()
    ours, theirs = trio.testing.memory_stream_pair()

    async def send_all(data):
        raise trio.BrokenResourceError

    ours.send_all = send_all
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, ours, gates.dispatch)
        peer = Peer(theirs, Role.CLIENT)
        await peer.request(b"a")
        await peer.request(b"b")
        await trio.testing.wait_all_tasks_blocked()
        gates.opened[b"a"].set()
    assert gates.cancelled == [b"b"]


async def test_a_peer_that_left_a_reply_unread_is_gone():
    """The kernel says ECONNRESET then, not EOF."""
    gates = Gates()
    ours, theirs = map(trio.SocketStream, trio.socket.socketpair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, ours, gates.dispatch)
        peer = Peer(theirs, Role.CLIENT)
        await peer.request(b"a")
        await peer.request(b"b")
        while len(gates.opened) < 2:
            await trio.lowlevel.checkpoint()
        gates.opened[b"a"].set()
        await trio.lowlevel.wait_readable(theirs.socket)
        await theirs.aclose()
    assert gates.cancelled == [b"b"]


# ---------------------------------------------------------------- the client's side


async def test_when_the_connection_ends_every_call_learns_it():
    """Those that wait, and those that come later."""
    async with calling() as (client, server):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(expect_closed, client)
            await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope() as waiting:
                waiting.cancel()
                await client.wait_closed()
            assert waiting.cancelled_caught
            assert not client.closed
            await server.stream.aclose()
            await client.wait_closed()
        assert client.closed
        await expect_closed(client)


async def test_leaving_the_block_ends_the_calls():
    """A call that outlives the client is told so, and so is a later one."""
    ours, _theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        async with open_client(ours) as client:
            nursery.start_soon(expect_closed, client)
            await trio.testing.wait_all_tasks_blocked()
        await expect_closed(client)
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"x")


async def test_a_server_that_ends_in_a_frame_is_gone():
    """A torn frame is the end of the connection."""
    async with calling() as (client, server):
        await server.stream.send_all(b"\0\0")
        await server.stream.aclose()
        await client.wait_closed()
        await expect_closed(client)


async def test_used_up_ids_close_the_connection():
    """2**31 calls fit into one connection; the next one needs another."""
    async with connected(echo) as client:
        client._connection._last_id = 2**32 - 3
        assert await client.call("s", "m", b"last") == b"last"
        await expect_closed(client)
        assert client.closed


async def test_what_the_server_said_before_it_left_is_heard():
    """A write fails, but the answer to an earlier call is there to be read."""
    to_client, from_server = trio.testing.memory_stream_one_way_pair()
    to_server, _ = trio.testing.memory_stream_one_way_pair()
    broken = trio.Event()

    async def send_all(data):
        if broken.is_set():
            raise trio.BrokenResourceError

    to_server.send_all = send_all
    stream = trio.StapledStream(to_server, from_server)
    async with open_client(stream) as client, trio.open_nursery() as nursery:
        nursery.start_soon(expect_answer, client, b"farewell")
        await trio.testing.wait_all_tasks_blocked()
        broken.set()
        nursery.start_soon(expect_closed, client)
        await trio.testing.wait_all_tasks_blocked()
        answer = Connection(Role.SERVER)
        answer.receive_data(Frame(1, 1).encode())
        answer.next_event()
        await to_client.send_all(answer.send(Response(1, b"farewell")))
        await to_client.aclose()


async def expect_answer(client, payload):
    assert await client.call("s", "m", b"") == payload


async def test_a_server_that_takes_nothing_and_says_nothing_is_gone(autojump_clock):
    """It has a second for its last words."""
    async with calling() as (client, _):

        async def send_all(data):
            raise trio.BrokenResourceError

        client._stream.send_all = send_all
        await expect_closed(client)
        assert trio.current_time() == 1


async def test_a_server_that_left_a_request_unread_is_gone():
    """The kernel says ECONNRESET then, not EOF."""
    streams = tuple(map(trio.SocketStream, trio.socket.socketpair()))
    async with calling(streams) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(expect_closed, client)
        await trio.lowlevel.wait_readable(server.stream.socket)
        await server.stream.aclose()
