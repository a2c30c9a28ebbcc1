"""Streams through a pty."""

from __future__ import annotations

import fcntl
import os
import pty
import socket
import stat
import struct
import termios
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioshim.abc import Stdio, StdioSpec
from trioshim.errors import (
    DeadlineExceededError,
    InternalError,
)
from trioshim.linux import LinuxKernel
from trioshim.linux._fd import PIPE_SIZE
from trioshim.linux._stdio import open_stdio

from . import stdio_world
from .stdio_world import (
    READY,
    Fifos,
    fd_targets,
    read_all,
    read_exactly,
    reader,
    script,
    spec,
    warnings_in,
    writer,
)

nothing_is_left = stdio_world.nothing_is_left
fifos = stdio_world.fifos


def send_to(path: str, numbers: list[int]) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [b"/dev/ptmx"], numbers)


class Terminal:
    """Both sides of a pty, as the runtime makes it."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        tty.setraw(self.slave)

    def send(self, path: str) -> None:
        """Do what the runtime does, and let go of the master."""
        send_to(path, [self.master])
        os.close(self.master)

    def size(self) -> tuple[int, int, int, int]:
        return struct.unpack("HHHH", fcntl.ioctl(self.slave, termios.TIOCGWINSZ, bytes(8)))


@asynccontextmanager
async def attached_terminal(given: StdioSpec) -> AsyncIterator[tuple[Stdio, Terminal]]:
    async with open_stdio(given, LinuxKernel()) as streams:
        terminal = Terminal()
        terminal.send(streams.console_socket)
        await streams.attach()
        streams.take_input()
        yield streams, terminal


async def test_a_terminal_carries_both_directions(fifos: Fifos, nothing_is_left: Path) -> None:
    """Input to the slave, output from it, and EIO is the end once the process has ended."""
    client = reader(fifos.stdout)
    given = spec(stdin=fifos.stdin, stdout=fifos.stdout, stderr="/ignored", terminal=True)
    async with attached_terminal(given) as (streams, terminal):
        assert os.listdir(nothing_is_left) == [], "the socket is not needed any more"
        assert dict(streams.fds) == {}
        masters = [int(fd) for fd, target in fd_targets().items() if target.endswith("ptmx")]
        assert [os.get_inheritable(fd) for fd in masters] == [False]
        keys = await writer(fifos.stdin)
        await keys.send_all(b"ls\n")
        slave = trio.lowlevel.FdStream(terminal.slave)
        assert await read_exactly(slave, 3) == b"ls\n"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slave.send_all, b"y" * 300_000)
            assert await read_exactly(client, 300_000) == b"y" * 300_000
        await slave.send_all(b"bye")
        await slave.aclose()
        await streams.drain()
        assert await read_all(client) == b"bye"
        await keys.aclose()
    await client.aclose()


async def test_the_console_socket_is_private_and_short(fifos: Fifos) -> None:
    """As the runtime expects it: pty*/pty.sock, sticky, only for us."""
    client = reader(fifos.stdout)
    given = spec(stdout=fifos.stdout, terminal=True)
    async with open_stdio(given, LinuxKernel()) as streams:
        directory, name = os.path.split(streams.console_socket)
        assert name == "pty.sock"
        assert os.path.basename(directory).startswith("pty")
        assert stat.S_IMODE(os.stat(streams.console_socket).st_mode) == 0o1755
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    await client.aclose()


async def test_a_long_runtime_directory_is_an_error(
    tmp_path: Path, nothing_is_left: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel would cut the path; the text says what to do."""
    long = nothing_is_left / ("x" * 90)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with pytest.raises(OSError, match="set XDG_RUNTIME_DIR to a shorter"):
        async with open_stdio(spec(terminal=True), LinuxKernel()):
            pytest.fail("it must not open")
    long.rmdir()


async def test_a_size_given_early_is_the_first_size() -> None:
    """The last one before the terminal came; numbers are cut to 16 bits."""
    async with open_stdio(spec(terminal=True), LinuxKernel()) as streams:
        streams.resize(1, 1)
        streams.resize(132, 50)
        terminal = Terminal()
        terminal.send(streams.console_socket)
        await streams.attach()
        streams.take_input()
        assert terminal.size() == (50, 132, 0, 0)
        streams.resize(65536 + 80, 24)
        assert terminal.size() == (24, 80, 0, 0)
        os.close(terminal.slave)


async def test_a_terminal_may_be_opened_late(fifos: Fifos, autojump_clock: MockClock) -> None:
    """EIO before the process has ended is not the end of the output."""
    client = reader(fifos.stdout)
    given = spec(stdin=fifos.stdin, stdout=fifos.stdout, terminal=True)
    async with attached_terminal(given) as (streams, terminal):
        # The line discipline's settings outlive the last close as long as the master is open.
        name = os.ttyname(terminal.slave)
        os.close(terminal.slave)
        keys = await writer(fifos.stdin)
        await keys.send_all(b"k")
        await trio.sleep(5)
        slave = trio.lowlevel.FdStream(os.open(name, os.O_RDWR | os.O_NOCTTY))
        assert await read_exactly(slave, 1) == b"k"
        await slave.send_all(b"late")
        assert await read_exactly(client, 4) == b"late"
        await slave.aclose()
        await trio.sleep(5)
        start = trio.current_time()
        await streams.drain()
        assert trio.current_time() == start, "with the process gone EIO is the end, at once"
        await keys.aclose()
    await client.aclose()


async def test_the_end_of_stdin_hangs_up_after_the_last_byte(
    fifos: Fifos, caplog: pytest.LogCaptureFixture
) -> None:
    """As the Go shim: the master is closed, so the process gets SIGHUP and then errors."""
    given = spec(stdin=fifos.stdin, terminal=True)
    async with attached_terminal(given) as (streams, terminal):
        keys = await writer(fifos.stdin)
        await keys.send_all(b"exit\n")
        slave = trio.lowlevel.FdStream(terminal.slave)
        assert await read_exactly(slave, 5) == b"exit\n"
        streams.close_stdin()
        await keys.aclose()
        assert await slave.receive_some(1) == b"", "hung up"
        streams.resize(80, 24)
        await streams.drain()
        await slave.aclose()
    assert warnings_in(caplog) == []


async def test_a_terminal_without_stdout_does_not_fill_up() -> None:
    """Nobody wants the output; the process must not notice."""
    async with attached_terminal(spec(terminal=True)) as (streams, terminal):
        slave = trio.lowlevel.FdStream(terminal.slave)
        await slave.send_all(bytes(1_000_000))
        await slave.aclose()
        await streams.drain()


async def test_a_terminal_can_feed_a_logger(
    tmp_path: Path, fifos: Fifos, caplog: pytest.LogCaptureFixture
) -> None:
    """The output comes to its fd 3, its fd 4 ends at once, and stdin works."""
    program = script(
        tmp_path / "log", READY + f"cat <&4 > {tmp_path}/err\ncat <&3 > {tmp_path}/out\n"
    )
    given = spec(stdin=fifos.stdin, stdout=f"binary://{program}", terminal=True)
    async with attached_terminal(given) as (streams, terminal):
        keys = await writer(fifos.stdin)
        await keys.send_all(b"k")
        slave = trio.lowlevel.FdStream(terminal.slave)
        assert await read_exactly(slave, 1) == b"k"
        await slave.send_all(b"z" * 200_000)
        await slave.aclose()
        await streams.drain()
        await keys.aclose()
    assert (tmp_path / "out").read_bytes() == b"z" * 200_000
    assert (tmp_path / "err").read_bytes() == b""
    assert warnings_in(caplog) == []


async def test_a_slow_logger_does_not_stop_the_shim(tmp_path: Path, fifos: Fifos) -> None:
    """The terminal waits for it, everybody else goes on."""
    go = trio.lowlevel.FdStream(os.open(fifos.stdin, os.O_RDWR | os.O_NONBLOCK))
    program = script(
        tmp_path / "log",
        f"exec 6<{fifos.stdin}\n{READY}cat <&6\nexec cat <&3 > {tmp_path}/out\n",
    )
    given = spec(stdout=f"binary://{program}", terminal=True)
    async with attached_terminal(given) as (streams, terminal):
        slave = trio.lowlevel.FdStream(terminal.slave)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slave.send_all, bytes(2 * PIPE_SIZE))
            await wait_all_tasks_blocked(0.01)
            await go.aclose()  # lets the logger read
        await slave.aclose()
        await streams.drain()
    assert (tmp_path / "out").stat().st_size == 2 * PIPE_SIZE


async def test_a_runtime_that_sends_no_terminal_is_an_error(autojump_clock: MockClock) -> None:
    """It has ended, so 10 seconds are more than enough."""
    with pytest.raises(DeadlineExceededError, match="sent no terminal"):
        async with open_stdio(spec(terminal=True), LinuxKernel()) as streams:
            await streams.attach()
            streams.take_input()


@pytest.mark.parametrize("count", [0, 1, 2, 9])
async def test_anything_but_one_terminal_is_refused(count: int) -> None:
    """No fd, one that is no terminal, two terminals, more than there is room for."""
    terminal = Terminal()
    null = os.open(os.devnull, os.O_RDONLY)
    sent = [null] if count == 1 else [terminal.master] * count

    async def attach() -> None:
        async with open_stdio(spec(terminal=True), LinuxKernel()) as streams:
            send_to(streams.console_socket, sent)
            await streams.attach()
            streams.take_input()

    with pytest.raises(InternalError, match="not one terminal"):
        await attach()
    for number in (terminal.master, terminal.slave, null):
        os.close(number)


async def test_cancelling_attach_removes_the_console() -> None:
    """`nothing_is_left` counts."""
    with trio.CancelScope() as scope:
        async with open_stdio(spec(terminal=True), LinuxKernel()) as streams:
            scope.cancel()
            await streams.attach()
            streams.take_input()
    assert scope.cancelled_caught
