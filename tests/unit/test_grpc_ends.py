"""gRPC on our own stream: flow control, shutdown, and every way in which a connection ends."""

from __future__ import annotations

import random
import subprocess
import sys
from contextlib import suppress

import h2.connection
import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from trioshim import errors
from trioshim.proto import task_v2_pb2 as api
from trioshim.rpc import Dispatcher, _grpc_writer
from trioshim.rpc._grpc import serve_grpc

from .grpc_world import TASK_PATH as TASK
from .grpc_world import World, open_world

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def large(world: World) -> None:
    world.peer.opens_window = False
    world.tasks.answer = lambda: api.StateResponse(id="x" * 100_000)


async def test_a_reply_larger_than_the_window_waits_for_it_to_open() -> None:
    """Not a byte more than allowed, and all of it in the end; others are served meanwhile."""
    async with open_world() as world:
        large(world)
        stream_id = await world.peer.call(f"{TASK}/State")
        reply = world.peer.replies[stream_id]
        await world.peer.receive_until(lambda: len(reply.body) == 65535)
        waiting = await world.peer.call(f"{TASK}/Dance")  # no body: needs no window
        assert (await world.peer.reply(waiting)).code == errors.Code.UNIMPLEMENTED
        assert not reply.ended
        world.peer.h2.increment_flow_control_window(50_000)
        world.peer.h2.increment_flow_control_window(50_000, stream_id)
        await world.peer.flush()
        assert (await world.peer.reply(stream_id)).code == 0
        assert len(api.StateResponse.FromString(reply.message).id) == 100_000


async def test_new_settings_open_the_window_too() -> None:
    """A larger INITIAL_WINDOW_SIZE counts for the streams that wait."""
    async with open_world() as world:
        large(world)
        world.peer.h2.increment_flow_control_window(2**20)
        stream_id = await world.peer.call(f"{TASK}/State")
        reply = world.peer.replies[stream_id]
        await world.peer.receive_until(lambda: len(reply.body) == 65535)
        world.peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**20})
        await world.peer.flush()
        assert (await world.peer.reply(stream_id)).code == 0


async def test_a_reset_ends_a_reply_that_waits_for_the_window() -> None:
    """Also when the window opens in the same packet."""
    async with open_world() as world:
        large(world)
        stream_id = await world.peer.call(f"{TASK}/State")
        await world.peer.receive_until(lambda: len(world.peer.replies[stream_id].body) == 65535)
        world.peer.h2.increment_flow_control_window(50_000)
        world.peer.h2.increment_flow_control_window(50_000, stream_id)
        world.peer.h2.reset_stream(stream_id, ErrorCodes.CANCEL)
        await world.peer.flush()
        assert await world.peer.still_served()


async def test_a_client_that_vanishes_takes_its_waiting_reply_along() -> None:
    """Nothing is left that waits for a window that nobody will open."""
    async with open_world() as world:
        large(world)
        stream_id = await world.peer.call(f"{TASK}/State")
        await world.peer.receive_until(lambda: len(world.peer.replies[stream_id].body) == 65535)
        await world.peer.stream.aclose()
        await world.ended.wait()


async def test_a_late_window_update_is_not_the_end() -> None:
    """grpc-go sends it for a stream that is closed, when the application reads."""
    async with open_world() as world:
        first = await world.peer.call()
        await world.peer.reply(first)
        assert await world.peer.still_served()  # a new stream makes h2 forget the closed one
        frame = h2.connection.WindowUpdateFrame(first)
        frame.window_increment = 1000
        await world.peer.stream.send_all(frame.serialize())
        assert await world.peer.still_served()


# ---------------------------------------------------------------- ends of a connection


async def test_a_client_that_vanishes_cancels_its_reads_only() -> None:
    """The end of the connection is the end of every call on it; changes go on (law 8)."""
    async with open_world() as world:
        for method in ("Wait", "Wait", "Kill"):
            await world.peer.call(f"{TASK}/{method}")
        await trio.testing.wait_all_tasks_blocked()
        await world.peer.stream.aclose()
        await world.ended.wait()
        assert world.tasks.cancelled == ["wait", "wait"]
        world.tasks.go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        assert world.tasks.finished == ["kill"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0" * 9 + b"\xff" * 40,
        b"\0\x40\x01\0\0\0\0\0\1" + bytes(0x4001),
        b"\0\0\1\1\5\0\0\0\1\xff",  # headers that HPACK cannot read
        b"\0\0\4\x08\0\0\0\0\0\0\0\0\0",  # a window update by nothing
    ],
    ids=["data on stream 0", "huge frame", "bad headers", "no increment"],
)
async def test_garbage_after_the_preface_ends_the_connection(garbage: bytes) -> None:
    """The peer is told with GOAWAY, its calls are cancelled, the server returns."""
    async with open_world() as world:
        await world.peer.call(f"{TASK}/Wait")
        await trio.testing.wait_all_tasks_blocked()
        await world.peer.stream.send_all(garbage)
        await world.ended.wait()
        assert world.tasks.cancelled == ["wait"]
        await world.peer.receive_rest()
        assert world.peer.goaway not in (None, ErrorCodes.NO_ERROR)


@pytest.mark.parametrize("seed", range(60))
async def test_no_bytes_raise(seed: int) -> None:
    """Random damage to a good conversation: the server returns, that is all."""
    rng = random.Random(seed)
    async with open_world() as world:
        world.peer.holds = True
        for path in ("Connect", "State", "Wait"):
            await world.peer.call(f"{TASK}/{path}", b"\n\1a")
        sent = bytearray(world.peer.h2.data_to_send())
        for _ in range(rng.randrange(1, 4)):
            sent[rng.randrange(len(PREFACE), len(sent))] = rng.randrange(256)
        cut = rng.randrange(len(sent))
        await world.peer.stream.send_all(sent[:cut])
        await trio.testing.wait_all_tasks_blocked()
        with suppress(trio.BrokenResourceError):  # closed already
            await world.peer.stream.send_all(sent[cut:] + rng.randbytes(rng.randrange(30)))
        await trio.testing.wait_all_tasks_blocked()


async def test_a_peer_that_does_not_read_is_cut_off(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A write has a time limit; a torn frame is followed by nothing (law 10)."""
    async with open_world(trio.testing.lockstep_stream_pair, send_timeout=5) as world:
        await world.peer.call(f"{TASK}/Wait")
        await world.ended.wait()
        assert trio.current_time() == 5
        assert world.tasks.cancelled == ["wait"]


async def test_a_peer_may_leave_with_a_reset() -> None:
    """The kernel says ECONNRESET to us if the peer closes with something unread."""

    def pair() -> tuple[trio.SocketStream, trio.SocketStream]:
        left, right = trio.socket.socketpair()
        return trio.SocketStream(left), trio.SocketStream(right)

    async with open_world(pair) as world:
        await world.peer.call(f"{TASK}/Wait")
        await world.tasks.until(lambda: world.tasks.started)
        await world.peer.stream.aclose()
        await world.ended.wait()
        assert world.tasks.cancelled == ["wait"]


async def test_a_peer_may_leave_in_the_middle_of_a_write() -> None:
    """The writer learns it first; the calls are cancelled all the same."""
    async with open_world(trio.testing.lockstep_stream_pair) as world:
        await world.peer.call(f"{TASK}/Wait")
        await trio.testing.wait_all_tasks_blocked()
        # Only the half that reads: what we would read stays open.
        assert isinstance(world.peer.stream, trio.StapledStream)
        await world.peer.stream.receive_stream.aclose()
        await world.ended.wait()
        assert world.tasks.cancelled == ["wait"]


async def test_a_peer_that_only_asks_is_not_listened_to_for_ever(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Pings whose answers nobody reads do not fill the memory: the reader stops, then the rest."""
    monkeypatch.setattr(_grpc_writer, "_MUCH", 1000)
    async with open_world(trio.testing.lockstep_stream_pair, send_timeout=5) as world:
        pings = 0
        with pytest.raises(trio.BrokenResourceError):
            while True:
                world.peer.h2.ping(b"12345678")
                await world.peer.flush()
                pings += 1
        assert 1000 / 17 < pings < 2 * 1000 / 17


# ---------------------------------------------------------------- shutdown


async def test_stopping_says_goaway_and_finishes_what_runs() -> None:
    """No new request is served; the reply under way still comes; then the server returns."""
    async with open_world() as world:
        running = await world.peer.call(f"{TASK}/Wait")
        half = await world.peer.call(body=b"\0\0", end=False)
        await trio.testing.wait_all_tasks_blocked()
        world.reading.cancel()
        await world.peer.receive_until(lambda: world.peer.replies[half].ended)
        assert world.peer.replies[half].reset == ErrorCodes.REFUSED_STREAM
        await trio.testing.wait_all_tasks_blocked()
        assert not world.ended.is_set()
        world.tasks.go_on.set()
        await world.ended.wait()
        await world.peer.receive_rest()
        assert world.peer.goaway == ErrorCodes.NO_ERROR
        assert world.peer.replies[running].code == 0


async def test_the_reply_after_the_goaway_is_whole() -> None:
    """It may even be larger than the window: the peer is still heard."""
    async with open_world() as world:
        large(world)
        stream_id = await world.peer.call(f"{TASK}/State")
        reply = world.peer.replies[stream_id]
        await world.peer.receive_until(lambda: len(reply.body) == 65535)
        world.reading.cancel()
        await trio.testing.wait_all_tasks_blocked()
        world.peer.h2.increment_flow_control_window(50_000)
        world.peer.h2.increment_flow_control_window(50_000, stream_id)
        await world.peer.flush()
        assert (await world.peer.reply(stream_id)).code == 0
        await world.ended.wait()


async def test_a_request_after_the_goaway_is_refused() -> None:
    """REFUSED_STREAM: nothing was done, the client may go elsewhere."""
    async with open_world() as world:
        await world.peer.call(f"{TASK}/Wait")
        await trio.testing.wait_all_tasks_blocked()
        world.reading.cancel()
        reply = await world.peer.called()
        assert reply.reset == ErrorCodes.REFUSED_STREAM
        world.tasks.go_on.set()
        await world.ended.wait()


@pytest.mark.parametrize("_again", range(20))  # trio runs the two tasks in either order
async def test_a_ping_beside_the_last_reply_is_no_error(_again: int) -> None:
    """It may find the calls' nursery closed: the server returns as if it had come later."""
    ours, theirs = trio.testing.memory_stream_pair()
    ping = b"\0\0\x08\6\0\0\0\0\0" + bytes(8)
    async with open_world(lambda: (ours, theirs)) as world:
        await world.peer.call(f"{TASK}/Wait")
        await trio.testing.wait_all_tasks_blocked()
        world.reading.cancel()
        await trio.testing.wait_all_tasks_blocked()

        async def sent() -> None:
            ours.receive_stream.put_data(ping)

        ours.send_stream.send_all_hook = sent
        world.tasks.go_on.set()
        await world.ended.wait()


async def test_stopping_an_idle_connection_is_quick() -> None:
    """Nothing runs, so nothing is waited for."""
    async with open_world() as world:
        assert await world.peer.still_served()
        world.reading.cancel()
        await world.ended.wait()


async def test_a_client_that_leaves_during_shutdown_is_not_waited_for() -> None:
    """Its calls are cancelled as ever."""
    async with open_world() as world:
        await world.peer.call(f"{TASK}/Wait")
        await trio.testing.wait_all_tasks_blocked()
        world.reading.cancel()
        await trio.testing.wait_all_tasks_blocked()
        await world.peer.stream.aclose()
        await world.ended.wait()
        assert world.tasks.cancelled == ["wait"]


async def test_a_client_that_says_goaway_still_gets_its_reply() -> None:
    """It opens no more streams, that is all it said."""
    async with open_world() as world:
        stream_id = await world.peer.call(f"{TASK}/Wait")
        await trio.testing.wait_all_tasks_blocked()
        goaway = h2.connection.GoAwayFrame(0)
        await world.peer.stream.send_all(goaway.serialize())
        await trio.testing.wait_all_tasks_blocked()
        world.tasks.go_on.set()
        assert (await world.peer.reply(stream_id)).code == 0


async def test_cancelling_the_server_ends_everything() -> None:
    """No grace was given: reads are cancelled, the stream is closed."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        dispatcher = Dispatcher([], nursery)
        scope = trio.CancelScope()

        async def serve() -> None:
            with scope:
                await serve_grpc(ours, dispatcher, reading=trio.CancelScope())

        nursery.start_soon(serve)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        while await theirs.receive_some():
            pass


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("import trioshim.rpc._grpc", ""),
        ("import trioshim.rpc, sys; print(*({'h2', 'purerpc', 'anyio'} & {*sys.modules}))", "\n"),
    ],
    ids=["without a warning", "not before it is needed"],
)
def test_purerpc_is_imported(program: str, says: str) -> None:
    """Users of ttrpc do not pay for it; users of gRPC see no warning of its old dependencies."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, says, "")
