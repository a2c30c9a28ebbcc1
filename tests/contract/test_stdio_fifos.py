"""Streams to a client's fifos."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioshim.errors import (
    DeadlineExceededError,
)
from trioshim.linux import LinuxKernel
from trioshim.linux._fd import PIPE_SIZE
from trioshim.linux._stdio import open_stdio

from . import stdio_world
from .stdio_world import (
    BIG,
    Fifos,
    container_end,
    digest,
    read_all,
    read_exactly,
    reader,
    spec,
    warnings_in,
    writer,
)

nothing_is_left = stdio_world.nothing_is_left
fifos = stdio_world.fifos


async def test_large_streams_arrive_whole_in_both_directions(fifos: Fifos) -> None:
    """8 MiB of input and 8 MiB of output at the same time, byte for byte."""
    data, back = os.urandom(BIG), os.urandom(BIG)
    out = reader(fifos.stdout)
    async with (
        open_stdio(spec(stdin=fifos.stdin, stdout=fifos.stdout), LinuxKernel()) as streams,
        trio.open_nursery() as nursery,
    ):
        read_end, write_end = container_end(streams, 0), container_end(streams, 1)
        await streams.attach()
        streams.take_input()
        into = await writer(fifos.stdin)
        got: dict[str, str] = {}

        async def send(stream: trio.lowlevel.FdStream, content: bytes) -> None:
            await stream.send_all(content)
            await stream.aclose()
            streams.close_stdin()

        async def receive(name: str, stream: trio.lowlevel.FdStream) -> None:
            got[name] = digest(await read_all(stream))
            await stream.aclose()

        nursery.start_soon(send, into, data)
        nursery.start_soon(send, write_end, back)
        nursery.start_soon(receive, "in", read_end)
        await receive("out", out)
        await streams.drain()
    assert got == {"in": digest(data), "out": digest(back)}


async def test_both_outputs_may_share_one_fifo(fifos: Fifos) -> None:
    """The client sees the end when both have ended, and not before."""
    client = reader(fifos.stdout)
    both = spec(stdout=fifos.stdout, stderr=fifos.stdout)
    async with open_stdio(both, LinuxKernel()) as streams:
        out, err = container_end(streams, 1), container_end(streams, 2)
        await streams.attach()
        streams.take_input()
        await out.send_all(b"out.")
        await out.aclose()
        assert await read_exactly(client, 4) == b"out."
        async with trio.open_nursery() as nursery:
            nursery.start_soon(err.send_all, os.urandom(BIG))
            assert len(await read_exactly(client, BIG)) == BIG
        await err.aclose()
        assert await read_all(client) == b""
        await streams.drain()
    await client.aclose()


async def test_two_full_outputs_on_one_fifo_wait_side_by_side(fifos: Fifos) -> None:
    """Both pumps wait for room in the same fifo, and both go on."""
    client = reader(fifos.stdout)
    both = spec(stdout=fifos.stdout, stderr=fifos.stdout)
    async with open_stdio(both, LinuxKernel()) as streams, trio.open_nursery() as nursery:
        for number in (1, 2):
            end = container_end(streams, number)

            async def fill(end: trio.lowlevel.FdStream = end) -> None:
                await end.send_all(bytes(BIG))
                await end.aclose()

            nursery.start_soon(fill)
        await streams.attach()
        streams.take_input()
        await wait_all_tasks_blocked()
        assert await read_all(client) == bytes(2 * BIG)
    await client.aclose()


@pytest.mark.parametrize("name", ["stdout", "stderr"])
async def test_one_output_alone_is_enough(fifos: Fifos, name: str) -> None:
    """An empty path is /dev/null for the container, not an error."""
    path = getattr(fifos, name)
    number = {"stdout": 1, "stderr": 2}[name]
    client = reader(path)
    async with open_stdio(spec(**{name: f"fifo://{path}"}), LinuxKernel()) as streams:
        assert set(streams.fds) == {number}
        end = container_end(streams, number)
        await streams.attach()
        streams.take_input()
        await end.send_all(b"hello")
        await end.aclose()
        await streams.drain()
    assert await read_all(client) == b"hello"
    await client.aclose()


async def test_entering_waits_for_a_late_client(fifos: Fifos, autojump_clock: MockClock) -> None:
    """The block is entered when the client has opened its end, and the loop runs meanwhile."""
    entered, leave = trio.Event(), trio.Event()

    async def shim() -> None:
        async with open_stdio(spec(stdout=fifos.stdout), LinuxKernel()):
            entered.set()
            await leave.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shim)
        await trio.sleep(20)
        assert not entered.is_set()
        client = reader(fifos.stdout)
        await entered.wait()
        leave.set()
    await client.aclose()


async def test_stdin_is_opened_when_the_process_runs(fifos: Fifos) -> None:
    """Not before: a quick client would be through with it before it knows its container."""
    async with open_stdio(spec(stdin=fifos.stdin), LinuxKernel()) as streams:
        await streams.attach()
        await wait_all_tasks_blocked()
        with pytest.raises(OSError, match="No such device"):  # ENXIO: nobody reads
            os.open(fifos.stdin, os.O_WRONLY | os.O_NONBLOCK)
        streams.take_input()
        await (await writer(fifos.stdin)).aclose()


async def test_a_client_that_never_comes_is_an_error(
    fifos: Fifos, autojump_clock: MockClock
) -> None:
    """30 seconds for all streams together, and the path in the text."""
    client = reader(fifos.stdout)
    start = trio.current_time()
    with pytest.raises(DeadlineExceededError, match=f"stderr '{fifos.stderr}'"):
        async with open_stdio(
            spec(stdin=fifos.stdin, stdout=fifos.stdout, stderr=fifos.stderr), LinuxKernel()
        ):
            pytest.fail("it must not open")
    assert trio.current_time() - start == pytest.approx(30)
    await client.aclose()


async def test_a_new_client_goes_on_where_the_old_one_left(fifos: Fifos) -> None:
    """What was not read stays; the container notices nothing."""
    first = reader(fifos.stdout)
    async with open_stdio(spec(stdout=fifos.stdout), LinuxKernel()) as streams:
        end = container_end(streams, 1)
        await streams.attach()
        streams.take_input()
        await end.send_all(b"one,")
        assert await read_exactly(first, 4) == b"one,"
        await first.aclose()
        await end.send_all(b"two,")
        await wait_all_tasks_blocked(0.01)
        second = reader(fifos.stdout)
        await end.send_all(b"three")
        await end.aclose()
        await streams.drain()
    assert await read_all(second) == b"two,three"
    await second.aclose()


async def test_output_waits_for_a_client_after_its_end(fifos: Fifos) -> None:
    """Nobody reads when the process ends; who comes before the block ends still gets it all."""
    await_reader = reader(fifos.stdout)
    async with open_stdio(spec(stdout=fifos.stdout), LinuxKernel()) as streams:
        end = container_end(streams, 1)
        await streams.attach()
        streams.take_input()
        await await_reader.aclose()
        await end.send_all(b"last words")
        await end.aclose()
        await streams.drain()
        client = reader(fifos.stdout)
    assert await read_all(client) == b"last words"
    await client.aclose()


def fill(path: str) -> None:
    end = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while os.write(end, bytes(4096)):
            pass
    os.close(end)


async def test_a_full_fifo_does_not_hide_the_end(fifos: Fifos, autojump_clock: MockClock) -> None:
    """The container writes nothing more, so there is nothing to wait for."""
    client = reader(fifos.stdout)
    async with open_stdio(spec(stdout=fifos.stdout), LinuxKernel()) as streams:
        end = container_end(streams, 1)
        fill(fifos.stdout)
        await streams.attach()
        streams.take_input()
        await wait_all_tasks_blocked()
        await end.aclose()
        start = trio.current_time()
        await streams.drain()
        assert trio.current_time() == start
    await client.aclose()


async def test_a_client_that_leaves_its_stdin_is_not_its_end(fifos: Fifos) -> None:
    """Two clients one after the other; CloseIO ends it, after all has been delivered."""
    async with open_stdio(spec(stdin=fifos.stdin), LinuxKernel()) as streams:
        container = container_end(streams, 0)
        await streams.attach()
        streams.take_input()
        for word in (b"first", b"again"):
            client = await writer(fifos.stdin)
            await client.send_all(word)
            await client.aclose()
            assert await read_exactly(container, 5) == word
            await wait_all_tasks_blocked()
        client = await writer(fifos.stdin)
        await client.send_all(b"the rest")
        streams.close_stdin()
        streams.close_stdin()
        await client.aclose()
        assert await read_all(container) == b"the rest"
        await container.aclose()


async def test_closing_stdin_before_the_process_runs_loses_nothing(fifos: Fifos) -> None:
    """A client that waits in its open is let through, writes, and is heard to the end."""
    async with open_stdio(spec(stdin=fifos.stdin), LinuxKernel()) as streams:
        streams.close_stdin()
        container = container_end(streams, 0)
        await streams.attach()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_write_early, fifos.stdin)
            streams.take_input()
            assert await read_all(container) == b"early"
        await container.aclose()


async def _write_early(path: str) -> None:
    client = await writer(path)
    await client.send_all(b"early")
    await client.aclose()


async def test_a_container_that_closes_its_stdin_ends_the_copying(
    fifos: Fifos, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets EPIPE and does not wait for ever; nothing is worth a warning."""
    async with open_stdio(spec(stdin=fifos.stdin), LinuxKernel()) as streams:
        await container_end(streams, 0).aclose()
        await streams.attach()
        streams.take_input()
        client = await writer(fifos.stdin)
        with pytest.raises(trio.BrokenResourceError):
            await client.send_all(bytes(BIG))
        await client.aclose()
    assert warnings_in(caplog) == []


async def test_a_descendant_with_the_pipe_does_not_hold_drain(
    fifos: Fifos, autojump_clock: MockClock
) -> None:
    """Half a second without a byte is enough (containerd#7802)."""
    client = reader(fifos.stdout)
    async with open_stdio(spec(stdout=fifos.stdout), LinuxKernel()) as streams:
        descendant = container_end(streams, 1)
        await streams.attach()
        streams.take_input()
        await descendant.send_all(b"x" * 1000)
        start = trio.current_time()
        await streams.drain()
        assert 0.5 <= trio.current_time() - start <= 1.0
        assert await read_exactly(client, 1000) == b"x" * 1000
    await descendant.aclose()
    await client.aclose()


async def test_drain_goes_on_while_bytes_come(fifos: Fifos, autojump_clock: MockClock) -> None:
    """Idle means idle: a descendant that keeps talking is heard until the cap."""
    client = reader(fifos.stdout)
    said_all = False
    async with open_stdio(spec(stdout=fifos.stdout), LinuxKernel()) as streams:
        descendant = container_end(streams, 1)
        await streams.attach()
        streams.take_input()
        async with trio.open_nursery() as nursery:

            async def talk() -> None:
                nonlocal said_all
                for _ in range(9):
                    await trio.sleep(0.4)
                    await descendant.send_all(b"word")
                said_all = True
                await descendant.aclose()

            nursery.start_soon(talk)
            await streams.drain()
            assert said_all
    assert await read_all(client) == b"word" * 9
    await client.aclose()


async def test_drain_waits_ten_seconds_for_a_client_that_does_not_read(
    fifos: Fifos, autojump_clock: MockClock
) -> None:
    """Bytes that wait for the client are not idleness, but there is an end to it."""
    client = reader(fifos.stdout)
    async with open_stdio(spec(stdout=fifos.stdout), LinuxKernel()) as streams:
        end = container_end(streams, 1)
        await streams.attach()
        streams.take_input()
        with trio.move_on_after(60):
            await end.send_all(bytes(BIG))
        await end.aclose()
        start = trio.current_time()
        await streams.drain()
        assert trio.current_time() - start == pytest.approx(10)
    await client.aclose()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a pipe away")
async def test_the_containers_ends_belong_to_its_user(fifos: Fifos) -> None:
    """A process in a user namespace may open its own /dev/stdout."""
    clients = [reader(fifos.stdout), reader(fifos.stderr)]
    async with open_stdio(
        spec(stdin=fifos.stdin, stdout=fifos.stdout, stderr=fifos.stderr, uid=123, gid=456),
        LinuxKernel(),
    ) as streams:
        owners = {(os.fstat(fd).st_uid, os.fstat(fd).st_gid) for fd in streams.fds.values()}
        assert set(streams.fds) == {0, 1, 2}
        assert owners == {(123, 456)}
        assert not any(os.get_inheritable(fd) for fd in streams.fds.values())
        assert all(os.get_blocking(fd) for fd in streams.fds.values())
        sizes = {fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) for fd in streams.fds.values()}
        assert sizes == {PIPE_SIZE}
    for client in clients:
        await client.aclose()
