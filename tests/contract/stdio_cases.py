"""What every `Stdio` promises, as cases that know only the port and both of its neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pytest
import trio

from trioshim.abc import Kernel, Stdio, StdioSpec
from trioshim.errors import DeadlineExceededError, InvalidArgumentError


class World(Protocol):
    """A client that has opened its ends, and a process that uses the others."""

    @property
    def kernel(self) -> Kernel: ...

    def spec(self, *streams: str, terminal: bool = False) -> StdioSpec:
        """Of "stdin", "stdout", "stderr" those that the client has opened."""
        ...

    def begin(self, stdio: Stdio) -> None:
        """The runtime makes the process: it takes the container's ends or sends the terminal."""
        ...

    async def end(self) -> None:
        """The process ends, and its ends are closed."""
        ...

    async def reads_end_of_input(self, stdio: Stdio) -> None:
        """Return when the process reads the end of its stdin."""
        ...

    def size(self, stdio: Stdio) -> tuple[int, int] | None:
        """Width and height of the terminal as the process sees them."""
        ...

    def nothing_is_open(self) -> bool: ...


ALL = ("stdin", "stdout", "stderr")


async def check_the_ends_are_those_asked_for(world: World) -> None:
    """Before `attach`; afterwards they are the container's alone."""
    for streams, numbers in ((), []), (("stdout",), [1]), (ALL, [0, 1, 2]):
        async with world.kernel.open_stdio(world.spec(*streams)) as stdio:
            assert sorted(stdio.fds) == numbers
            assert stdio.console_socket == ""
            world.begin(stdio)
            await stdio.attach()
            assert dict(stdio.fds) == {}
            await world.end()
            await stdio.drain()
        assert world.nothing_is_open()


async def check_a_terminal_comes_over_its_socket(world: World) -> None:
    """There are no ends, and the last size given before is the first that the process sees."""
    async with world.kernel.open_stdio(world.spec("stdout", terminal=True)) as stdio:
        assert dict(stdio.fds) == {}
        assert stdio.console_socket.endswith("/pty.sock")
        stdio.resize(1, 1)
        stdio.resize(132, 50)
        world.begin(stdio)
        await stdio.attach()
        assert world.size(stdio) == (132, 50)
        stdio.resize(80, 24)
        assert world.size(stdio) == (80, 24)
        await world.end()
        await stdio.drain()
        stdio.resize(81, 25)
    assert world.nothing_is_open()


async def check_a_size_without_a_terminal_is_nothing(world: World) -> None:
    """Before, while and after."""
    async with world.kernel.open_stdio(world.spec("stdout")) as stdio:
        stdio.resize(80, 24)
        world.begin(stdio)
        await stdio.attach()
        stdio.resize(80, 24)
        assert world.size(stdio) is None
        await world.end()
        await stdio.drain()
        stdio.resize(80, 24)


async def check_closing_stdin_twice(world: World) -> None:
    """Whenever it is asked for, the process reads the end of its input once it runs."""
    for early in (True, False):
        async with world.kernel.open_stdio(world.spec(*ALL)) as stdio:
            if early:
                stdio.close_stdin()
                stdio.close_stdin()
            world.begin(stdio)
            await stdio.attach()
            stdio.take_input()
            stdio.take_input()
            stdio.close_stdin()
            stdio.close_stdin()
            await world.reads_end_of_input(stdio)
            await world.end()
            await stdio.drain()
            stdio.close_stdin()
            stdio.take_input()
        assert world.nothing_is_open()


async def check_calls_without_streams_are_harmless(world: World) -> None:
    """In any order, and again."""
    async with world.kernel.open_stdio(world.spec()) as stdio:
        for _ in range(2):
            stdio.take_input()
            stdio.close_stdin()
            stdio.resize(1, 2)
            await stdio.drain()
            await stdio.attach()
    assert world.nothing_is_open()


async def check_leaving_early(world: World) -> None:
    """What the block raises comes out as it is, and everything is closed."""
    for terminal in (False, True):
        for attached in (False, True):

            async def leave(*, terminal: bool = terminal, attached: bool = attached) -> None:
                spec = world.spec("stdin", "stdout", terminal=terminal)
                async with world.kernel.open_stdio(spec) as stdio:
                    world.begin(stdio)
                    if attached:
                        await stdio.attach()
                        stdio.take_input()
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await leave()
            await world.end()
            assert world.nothing_is_open()


async def check_cancelling_attach(world: World) -> None:
    """A runtime that never sends its terminal."""
    with trio.CancelScope() as scope:
        async with world.kernel.open_stdio(world.spec("stdout", terminal=True)) as stdio:
            scope.cancel()
            await stdio.attach()
    assert scope.cancelled_caught
    assert world.nothing_is_open()


async def check_an_unknown_scheme_is_refused_on_entering(world: World) -> None:
    """Asking is harmless, and nothing is open afterwards."""
    streams = world.kernel.open_stdio(StdioSpec(id="c1", stdout="http://x/"))
    with pytest.raises(InvalidArgumentError, match="unknown STDIO scheme http"):
        async with streams:
            pytest.fail("it must not open")
    assert world.nothing_is_open()


async def check_a_terminal_that_never_comes(world: World) -> None:
    """The runtime has ended, so waiting has an end too: 10 seconds."""
    start = trio.current_time()
    with pytest.raises(DeadlineExceededError, match="sent no terminal"):
        async with world.kernel.open_stdio(world.spec(terminal=True)) as stdio:
            await stdio.attach()
    assert trio.current_time() - start == 10
    assert world.nothing_is_open()


TIMED = (check_a_terminal_that_never_comes,)  # for a virtual clock; the others have real I/O
CASES: tuple[Callable[[World], object], ...] = tuple(
    case for name, case in globals().items() if name.startswith("check_") and case not in TIMED
)
