"""The streams of a container's process, without one: fifos, and what is copied from them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from trioshim.containers import (
    DEVNULL,
    PIPE,
)
from trioshim.containers._fifos import FifoWriter, open_fifos
from trioshim.containers._outputs import Copy, Streams
from trioshim.proto import task_v2_pb2 as api

from .fds import open_fds

# ---------------------------------------------------------------- copying


@contextmanager
def open_pipe() -> Iterator[tuple[int, int]]:
    """Both ends; a test may close them."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            try:
                os.close(end)
            except OSError:
                continue


def fill(pipe: int) -> int:
    """Write until it is full; returns how much that was."""
    os.set_blocking(pipe, False)
    size = 0
    with suppress(BlockingIOError):
        while True:
            size += os.write(pipe, bytes(4096))
    return size


@pytest.mark.parametrize("blocking", [True, False])
async def test_all_is_copied(blocking: bool) -> None:
    """Also more than a pipe holds, and to one that somebody has set to non-blocking."""
    send, receive = trio.testing.memory_stream_one_way_pair()
    data = os.urandom(300_000)
    with open_pipe() as (reading, writing):
        full = fill(writing)
        os.set_blocking(writing, blocking)
        copy = Copy(receive, writing, pytest.fail)
        said = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy.run)
            await send.send_all(data)
            await send.aclose()
            await trio.testing.wait_all_tasks_blocked()
            while len(said) < full + len(data):
                said += await trio.to_thread.run_sync(os.read, reading, 65536)
            await copy.done.wait()
    assert bytes(said[full:]) == data
    assert copy.error is None


async def test_what_cannot_be_written_is_dropped() -> None:
    """It is told once, and read on, so that the process can go on to its end."""
    send, receive = trio.testing.memory_stream_one_way_pair()
    failed = []
    with open_pipe() as (reading, writing):
        os.close(reading)
        copy = Copy(receive, writing, lambda: failed.append(True))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy.run)
            for _ in range(3):
                await send.send_all(b"x")
                await trio.testing.wait_all_tasks_blocked()
            await send.aclose()
    assert isinstance(copy.error, BrokenPipeError)
    assert failed == [True]


async def test_a_write_that_stands_still_can_be_stopped() -> None:
    """Its thread is left behind, the task is not."""
    send, receive = trio.testing.memory_stream_one_way_pair()
    with open_pipe() as (_, writing):
        copy = Copy(receive, writing, pytest.fail)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy.run)
            await send.send_all(bytes(1 << 20))
            with trio.move_on_after(0.05) as scope:
                await copy.finish(0.01)  # somebody may read it yet
            assert scope.cancelled_caught
            await copy.stop()
    assert copy.done.is_set()


async def test_nobody_waits_for_output_that_does_not_come(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A descendant holds the stream, and says nothing."""
    _send, receive = trio.testing.memory_stream_one_way_pair()
    copy = Copy(receive, 1, pytest.fail)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy.run)
        await copy.finish(2)
        assert trio.current_time() == 2
        await copy.stop()


# ---------------------------------------------------------------- fifos


async def nothing() -> None:
    """A CloseIO that is not asked."""
    pytest.fail("a terminal is not closed")


async def test_fifos_are_there_for_the_block(tmp_path: Path) -> None:
    """Only those that are wanted; afterwards nothing is left, not even what was never read."""
    before = open_fds()
    with open_fifos(tmp_path, "init", Streams(PIPE, PIPE, DEVNULL, terminal=False)) as fifos:
        assert sorted(os.listdir(tmp_path)) == ["init-stdin", "init-stdout"]
        request = api.CreateTaskRequest()
        fifos.put_into(request)
        assert (request.stdin, request.stdout) == (fifos.stdin, fifos.stdout)
        assert request.stderr == ""
        assert fifos.err is None
    assert os.listdir(tmp_path) == []
    assert open_fds() == before


async def test_stdin_waits_for_its_reader_and_closes(tmp_path: Path) -> None:
    """It is opened when it is used, and its end is told to the shim too."""
    path = str(tmp_path / "stdin")
    os.mkfifo(path)
    closed = trio.Event()

    async def close_io() -> None:
        closed.set()
        await trio.lowlevel.checkpoint()

    stdin = FifoWriter(path, lambda: False, close_io)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stdin.send_all, b"said")
        await trio.testing.wait_all_tasks_blocked()
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(reader, 100) == b"said"
    await stdin.aclose()
    assert closed.is_set()
    assert os.read(reader, 100) == b""
    os.close(reader)
    with pytest.raises(trio.ClosedResourceError):
        await stdin.send_all(b"more")
    await stdin.aclose()


async def test_stdin_of_a_process_that_has_ended_is_broken(tmp_path: Path) -> None:
    """Nobody will ever read it; so with a fifo that is gone."""
    path = str(tmp_path / "stdin")
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            await FifoWriter(path, lambda: True, nothing).send_all(b"said")
        if not os.path.exists(path):  # noqa: ASYNC240 (a test's own file)
            os.mkfifo(path)


@pytest.mark.parametrize(
    ("sent", "typed"), [([], b"\x04"), ([b"a\n", b""], b"a\n\x04"), ([b"a\nb"], b"a\nb\x04\x04")]
)
async def test_a_terminals_end_is_typed(tmp_path: Path, sent: list[bytes], typed: bytes) -> None:
    """Ctrl-D, twice where a line has begun; to close it would be to hang up."""
    path = str(tmp_path / "stdin")
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    stdin = FifoWriter(path, lambda: False, nothing, terminal=True)
    for data in sent:
        await stdin.send_all(data)
    await stdin.aclose()
    assert os.read(reader, 100) == typed
    with pytest.raises(BlockingIOError):  # our end is open still
        os.read(reader, 100)
    with pytest.raises(trio.ClosedResourceError):
        await stdin.send_all(b"more")
    stdin.close()
    assert os.read(reader, 100) == b""
    os.close(reader)


async def test_unread_output_is_dropped(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """If nobody reads; who does is not robbed."""
    streams = Streams(DEVNULL, PIPE, PIPE, terminal=False)
    with open_fifos(tmp_path, "init", streams) as fifos:
        writers = [os.open(path, os.O_WRONLY) for path in (fifos.stdout, fifos.stderr)]
        for writer in writers:
            os.write(writer, bytes(100))
        assert fifos.out is not None
        assert fifos.err is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: fifos.drop_unread(idle=1.0))
            for _ in range(5):
                await trio.sleep(0.9)
                assert await fifos.out.receive_some(10)
            nursery.cancel_scope.cancel()
        assert await fifos.out.receive_some(100) == bytes(50)
        with trio.move_on_after(1) as scope:
            await fifos.err.receive_some()
        assert scope.cancelled_caught
        for writer in writers:
            os.close(writer)
