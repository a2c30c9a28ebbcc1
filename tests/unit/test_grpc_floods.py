"""gRPC peers that send much of what asks for nothing: they are cut off, and others do not wait."""

from __future__ import annotations

import logging
import struct

import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from trioshim import errors
from trioshim.rpc._grpc_frames import BURST, MAX_FRAME, FrameError, Frames
from trioshim.rpc._grpc_wire import open_connection

from .grpc_world import TASK_PATH as TASK
from .grpc_world import World, open_world
from .test_grpc import raising

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = 4
PING = b"\0\0\x08\6\0\0\0\0\0" + bytes(8)
IDLE = {
    "PING (CVE-2019-9512)": PING,
    "SETTINGS (CVE-2019-9515)": b"\0\0\0\4\0\0\0\0\0",
    "settings that nobody knows": b"\0\x0c\0\4\0\0\0\0\0" + b"\x77\x77\0\0\0\1" * 512,
    "DATA without data (CVE-2019-9518)": b"\0\0\0\0\0\0\0\0\1",
    "PRIORITY (CVE-2019-9513)": b"\0\0\5\2\0\0\0\0\1\0\0\0\0\1",
    "WINDOW_UPDATE": b"\0\0\4\x08\0\0\0\0\0\0\0\0\1",
    "RST_STREAM (CVE-2019-9514)": b"\0\0\4\3\0\0\0\0\1\0\0\0\0",
    "GOAWAY": b"\0\0\x08\7\0\0\0\0\0" + bytes(8),
    "what nobody knows": b"\0\0\0\x77\0\0\0\0\0",
}


async def flood(world: World, piece: bytes, most: int) -> int:
    """Send it until the server hangs up, at most so often; how often it was."""
    for count in range(most):
        try:
            await world.peer.stream.send_all(piece)
        except trio.BrokenResourceError:
            return count
        await trio.testing.wait_all_tasks_blocked()
    return most


@pytest.mark.parametrize("frame", IDLE.values(), ids=IDLE)
async def test_a_flood_of_frames_that_ask_for_nothing_is_cut_off(
    frame: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    """ENHANCE_YOUR_CALM; the calls of that connection end with it."""
    async with open_world() as world:
        await world.peer.call(f"{TASK}/Wait", body=b"\0\0\0\0\0")
        await world.peer.call(body=b"\0", end=False)
        piece = frame.replace(b"\0\0\0\1", b"\0\0\0\3") * 100  # the second call's stream
        most = BURST // 100 // (10 if frame[3] == SETTINGS else 1)
        assert await flood(world, piece, 2 * BURST // 100) <= most
        await world.ended.wait()
        await world.peer.receive_rest()
        assert world.peer.goaway == ErrorCodes.ENHANCE_YOUR_CALM
        assert world.tasks.cancelled == ["wait"]


@pytest.mark.parametrize("method", ["Wait", "Kill"])
async def test_rapid_resets_are_cut_off(
    method: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Requests and their resets: no limit of streams sees them (CVE-2023-44487)."""
    async with open_world() as world:
        try:
            for _ in range(BURST):
                world.peer.holds = True
                for _ in range(100):
                    stream_id = await world.peer.call(f"{TASK}/{method}")
                    world.peer.h2.reset_stream(stream_id, ErrorCodes.CANCEL)
                world.peer.holds = False
                await world.peer.flush()
                await trio.testing.wait_all_tasks_blocked()
        except trio.BrokenResourceError:
            pass
        await world.ended.wait()
        await world.peer.receive_rest()
        assert world.peer.goaway == ErrorCodes.ENHANCE_YOUR_CALM
        assert len(world.tasks.started) <= BURST // 2
        world.tasks.go_on.set()


async def test_a_client_that_pings_now_and_then_is_no_flood(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A thousand each second, for three times as long as a burst would last."""
    async with open_world() as world:
        assert await world.peer.still_served()
        for _ in range(3 * BURST // 1000):
            assert await flood(world, PING * 1000, 1) == 1
            await trio.sleep(1)
        assert await world.peer.still_served()


async def test_a_client_that_calls_may_ping_with_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """grpc-go measures the bandwidth with pings: so many as there are calls, without a limit."""
    async with open_world() as world:
        assert await world.peer.still_served()
        for _ in range(BURST // 10 + 100):
            await world.peer.stream.send_all(PING * 10)
            assert await world.peer.still_served()


async def test_two_thousand_calls_may_be_cancelled_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A client that leaves its Waits is no rapid reset."""
    async with open_world() as world:
        ids = [await world.peer.call(f"{TASK}/Wait") for _ in range(2000)]
        await world.tasks.until(lambda: len(world.tasks.started) == 2000)
        for stream_id in ids:
            world.peer.h2.reset_stream(stream_id, ErrorCodes.CANCEL)
        assert await world.peer.still_served()
        assert len(world.tasks.cancelled) == 2000


async def test_others_have_their_turn_during_a_flood() -> None:
    """A chunk of 64 KiB can be 7000 frames: they are not read at one go."""
    async with open_world() as world:
        assert await world.peer.still_served()
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            await world.peer.stream.send_all(PING * 3000 + b"\0\0\4\3\0\0\0\0\1\0\0\0\0")
            nursery.start_soon(count)
            assert await world.peer.still_served()
            nursery.cancel_scope.cancel()
        assert turns > 3000 / 64


async def test_what_a_stop_interrupts_is_read_afterwards() -> None:
    """A stop in the middle of a chunk: no frame of it is lost, or the headers made no sense."""
    async with open_world() as world:
        running = await world.peer.call(f"{TASK}/Wait")
        await world.tasks.until(lambda: world.tasks.started)
        world.peer.holds = True
        for _ in range(300):
            world.peer.h2.ping(b"12345678")
        late = [await world.peer.call(f"{TASK}/Wait") for _ in range(50)]
        world.peer.holds = False
        await world.peer.flush()
        await trio.lowlevel.checkpoint()
        world.reading.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not world.ended.is_set()
        for stream_id in late:
            assert (await world.peer.reply(stream_id)).reset == ErrorCodes.REFUSED_STREAM
        world.tasks.go_on.set()
        assert (await world.peer.reply(running)).code == 0
        await world.ended.wait()


async def test_a_peer_does_not_decide_how_much_we_remember_of_our_headers() -> None:
    """HPACK's table of the replies stays at 4 KiB, whatever HEADER_TABLE_SIZE it sends."""
    async with open_world() as world:
        assert await world.peer.still_served()
        for size in (2**32 - 1, 2**32 - 1, 0, 100_000, 2**32 - 1, 4096, 50, 2**31):
            world.peer.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: size})
            for number in range(5):
                text = f"{size} {number} " + "x" * 500
                world.tasks.answer = raising(errors.NotFoundError(text))
                reply = await world.peer.called(f"{TASK}/State")
                assert reply.text == f"{text}: not found"
            decoder = world.peer.h2.decoder.header_table  # in step with the server's encoder
            assert decoder._current_size <= 4096


def test_settings_that_nobody_knows_are_not_collected() -> None:
    """65,536 of them would be 45 MiB for each connection."""
    connection = open_connection().h2_connection
    connection.receive_data(PREFACE)
    for start in range(0, 2**16, 2000):
        known = range(1, 9)
        codes = [code for code in range(start, min(start + 2000, 2**16)) if code not in known]
        body = b"".join(struct.pack(">HI", code, 7) for code in codes)
        connection.receive_data(len(body).to_bytes(3, "big") + b"\4\0\0\0\0\0" + body)
    assert len(connection.remote_settings) < 10


async def test_changes_of_the_table_are_not_collected() -> None:
    """Many SETTINGS without a reply between them: two sizes are told, not all."""
    async with open_world() as world:
        assert await world.peer.still_served()
        for size in range(100, 300):
            world.peer.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: size})
        await world.peer.flush()
        await trio.testing.wait_all_tasks_blocked()
        world.peer.take(await world.peer.stream.receive_some())
        await world.peer.call()
        await trio.testing.wait_all_tasks_blocked()
        reply = await world.peer.stream.receive_some()
        assert len(reply) < 200
        world.peer.take(reply)
        assert await world.peer.still_served()


async def test_a_flood_is_told_in_the_log(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """Once, as a warning: it is the peer's fault."""
    async with open_world() as world:
        assert await world.peer.still_served()
        await flood(world, PING * 1000, 20)
        await world.ended.wait()
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.levelno for record in records] == [logging.WARNING]
    assert "ask for nothing" in records[0].message


# ---------------------------------------------------------------- the portions


def test_portions_are_whole_frames_in_any_pieces() -> None:
    """Byte by byte or at once: the same frames come out, and no part of one."""
    said = PREFACE + PING * 200 + b"\0\0\3\0\1\0\0\0\1abc"
    for size in (1, 7, 9, 17, 100, len(said)):
        frames, read, portions = Frames(), b"", []
        for start in range(0, len(said), size):
            frames.feed(said[start : start + size])
            while portion := frames.portion(0):
                read += portion
                portions.append(portion)
        assert read == said
        assert max(len(portion) for portion in portions) <= 64 * len(PING)


def test_what_came_before_an_overlong_frame_is_still_read() -> None:
    """It was right."""
    frames = Frames()
    frames.feed(PREFACE + PING + (MAX_FRAME + 1).to_bytes(3, "big") + bytes(6))
    assert (frames.portion(0), frames.portion(0)) == (PREFACE, PING)
    with pytest.raises(FrameError, match="frame of 16385 bytes") as caught:
        frames.portion(0)
    assert caught.value.code == ErrorCodes.FRAME_SIZE_ERROR


def test_a_frame_of_the_largest_size_is_taken() -> None:
    """The limit itself is allowed."""
    frames = Frames()
    data = MAX_FRAME.to_bytes(3, "big") + b"\0\0\0\0\0\1" + bytes(MAX_FRAME)
    frames.feed(PREFACE + data)
    assert (frames.portion(0), frames.portion(0), frames.portion(0)) == (PREFACE, data, b"")


def test_the_allowance_is_never_more_than_a_burst() -> None:
    """Who was silent for an hour may not flood for an hour."""
    frames = Frames()
    frames.feed(PREFACE)
    frames.portion(0)
    frames.earn(10**9)
    frames.feed(PING * (BURST + 1))
    with pytest.raises(FrameError) as caught:
        while frames.portion(3600):
            pass
    assert caught.value.code == ErrorCodes.ENHANCE_YOUR_CALM
