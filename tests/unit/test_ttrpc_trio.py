"""What is written to a trio stream: whole frames, a few at a time, and none after a torn one."""

import pytest
import trio
import trio.testing

from trioshim.ttrpc._outbox import Outbox

from .ttrpc_world import calling, echo, serving


async def test_after_a_write_that_was_cut_short_nothing_is_written(autojump_clock):
    """Whatever is put: a torn frame is the last one (law 10)."""
    writes = []
    ours, _theirs = trio.testing.lockstep_stream_pair()
    send_all = ours.send_all

    async def recorded(data):
        writes.append(data)
        await send_all(data)

    ours.send_all = recorded
    outbox = Outbox(ours, 1)
    outbox.put(b"one")
    with pytest.raises(trio.TooSlowError):
        await outbox.flush()
    outbox.put(b"two")
    await outbox.flush()
    assert writes == [b"one"]


async def test_small_replies_that_wait_go_out_together():
    """While one is written the next ones gather."""
    writes = []
    ours, theirs = trio.testing.lockstep_stream_pair()
    send_all = ours.send_all

    async def counted(data):
        writes.append(len(data))
        await send_all(data)

    ours.send_all = counted
    async with serving(echo, (ours, theirs)) as peer:
        for _ in range(5):
            await peer.request()
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(5):
            await peer.receive()
    assert writes == [10, 40]


async def test_one_write_does_not_gather_without_end():
    """Each write has its time limit, so a slow reader must not get megabytes in one."""
    writes = []
    ours, _theirs = trio.testing.memory_stream_pair()

    async def recorded(data):
        writes.append(len(data))

    ours.send_all = recorded
    outbox = Outbox(ours, 1)
    for _ in range(5):
        outbox.put(bytes(40_000))
    await outbox.flush()
    assert writes == [80_000, 80_000, 40_000]


async def test_a_call_cancelled_inside_of_its_frame_leaves_the_framing_intact():
    """The frame that was begun is finished, the next one follows."""
    streams = trio.testing.lockstep_stream_pair()
    async with calling(streams) as (client, server), trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_after_ten_bytes, server, scope)
            await client.call("s", "m", b"one" * 1000)
        assert scope.cancelled_caught
        nursery.start_soon(client.call, "s", "m", b"two")
        assert (await server.receive()).payload == b"one" * 1000
        assert (await server.receive()).payload == b"two"
        nursery.cancel_scope.cancel()


async def cancel_after_ten_bytes(server, scope):
    server.connection.receive_data(await server.stream.receive_some(10))
    scope.cancel()


async def test_a_call_cancelled_before_its_frame_is_never_sent():
    """What has not begun to be written is taken back."""
    streams = trio.testing.lockstep_stream_pair()
    async with calling(streams) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.call, "s", "m", b"one")
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as leaving:
            leaving.start_soon(client.call, "s", "m", b"two")
            await trio.testing.wait_all_tasks_blocked()  # its frame waits behind the first
            leaving.cancel_scope.cancel()
        nursery.start_soon(client.call, "s", "m", b"three")
        await trio.testing.wait_all_tasks_blocked()
        received = [await server.receive(), await server.receive()]
        assert [request.payload for request in received] == [b"one", b"three"]
        nursery.cancel_scope.cancel()
