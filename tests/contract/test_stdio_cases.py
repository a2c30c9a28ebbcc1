"""The streams in memory and those of Linux: one contract."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from trioshim.abc import Stdio, StdioSpec
from trioshim.linux import LinuxKernel
from trioshim.testing import FakeKernel, FakeStdio

from . import stdio_cases, stdio_world
from .stdio_world import Fifos, container_end, fd_targets, reader
from .test_stdio_terminals import Terminal

nothing_is_left = stdio_world.nothing_is_left


@dataclass
class FakeWorld:
    """Nobody is at either end; the fake writes down what it was told."""

    kernel: FakeKernel = field(default_factory=FakeKernel)

    def spec(self, *streams: str, terminal: bool = False) -> StdioSpec:
        return StdioSpec(**{name: f"/{name}" for name in streams}, terminal=terminal)

    def begin(self, stdio: FakeStdio) -> None:
        stdio.console_sent = stdio.spec.terminal

    async def end(self) -> None:
        await trio.lowlevel.checkpoint()

    async def reads_end_of_input(self, stdio: FakeStdio) -> None:
        assert stdio.attached
        assert stdio.takes_input
        assert stdio.stdin_closed

    def size(self, stdio: FakeStdio) -> tuple[int, int] | None:
        return stdio.size

    def nothing_is_open(self) -> bool:
        return self.kernel.stdios == []


@dataclass
class LinuxWorld:
    """A client with fifos, and a process that is a few fds of ours."""

    fifos: Fifos
    kernel: LinuxKernel = field(default_factory=LinuxKernel)
    client: list[trio.lowlevel.FdStream] = field(default_factory=list)
    ends: dict[int, trio.lowlevel.FdStream] = field(default_factory=dict)
    terminal: Terminal | None = None
    before: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.client = [reader(path) for path in (self.fifos.stdout, self.fifos.stderr)]
        self.before = fd_targets()

    def spec(self, *streams: str, terminal: bool = False) -> StdioSpec:
        paths = {name: getattr(self.fifos, name) for name in streams}
        return StdioSpec(id="c1", namespace="ns", terminal=terminal, **paths)

    def begin(self, stdio: Stdio) -> None:
        if stdio.console_socket:
            self.terminal = Terminal()
            self.terminal.send(stdio.console_socket)
        self.ends = {number: container_end(stdio, number) for number in stdio.fds}

    async def end(self) -> None:
        for end in self.ends.values():
            await end.aclose()
        self.ends.clear()
        if self.terminal is not None:
            os.close(self.terminal.slave)
            self.terminal = None

    async def reads_end_of_input(self, stdio: Stdio) -> None:
        assert await self.ends[0].receive_some(1) == b""

    def size(self, stdio: Stdio) -> tuple[int, int] | None:
        if self.terminal is None:
            return None
        rows, columns, _, _ = self.terminal.size()
        return columns, rows

    def nothing_is_open(self) -> bool:
        return fd_targets() == self.before


@pytest.fixture
async def linux(tmp_path: Path, nothing_is_left: Path) -> AsyncIterator[LinuxWorld]:
    world = LinuxWorld(Fifos(tmp_path))
    yield world
    for stream in world.client:
        await stream.aclose()


@pytest.mark.parametrize("case", stdio_cases.CASES, ids=lambda case: case.__name__)
async def test_the_streams_in_memory_keep_the_promises(case) -> None:
    """So what a simulation shows of them is true."""
    await case(FakeWorld())


@pytest.mark.parametrize("case", stdio_cases.CASES, ids=lambda case: case.__name__)
async def test_the_streams_of_linux_keep_the_same_promises(case, linux: LinuxWorld) -> None:
    """With fifos and ptys."""
    with trio.fail_after(60):
        await case(linux)


@pytest.mark.parametrize("case", stdio_cases.TIMED, ids=lambda case: case.__name__)
async def test_the_streams_in_memory_give_up_in_time(case, autojump_clock) -> None:
    """Virtual time: to the second."""
    await case(FakeWorld())


@pytest.mark.parametrize("case", stdio_cases.TIMED, ids=lambda case: case.__name__)
async def test_the_streams_of_linux_give_up_in_time(case, linux, autojump_clock) -> None:
    """The same second."""
    await case(linux)
