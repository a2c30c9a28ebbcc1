"""Standing for a process: signals, input, the end; with a process that lives in this program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import cast

import pytest
import trio
import trio.testing

from trioshim.cli import _attend
from trioshim.cli._attend import attend
from trioshim.cli._terminal import is_deaf_foreground, raw_terminal, terminal_size, would_drop
from trioshim.containers import ContainerProcess
from trioshim.errors import NotFoundError


class FakeInput(trio.abc.SendStream):
    """What a process has been given."""

    def __init__(self) -> None:
        self.data = b""
        self.closed = trio.Event()
        self.broken = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise trio.BrokenResourceError("ended")
        self.data += bytes(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed.set()


class FakeProcess:
    """A process in a container that ends when it is told to.

    Attributes:
        signals: what it was sent; it ends at KILL with 137, at what `ends_at` has with that.
        sizes: of its terminal.
    """

    def __init__(self, exec_id: str = "") -> None:
        self.id, self.exec_id, self.pid = "box", exec_id, os.getpid()
        self.stdin = FakeInput()
        self.signals: list[int] = []
        self.sizes: list[tuple[int, int]] = []
        self.ends_at: dict[int, int] = {}
        self.gone = False
        self._ended = trio.Event()
        self._status = 0

    def end(self, status: int) -> None:
        self._status = status
        self._ended.set()

    async def wait(self) -> int:
        await self._ended.wait()
        return self._status

    async def send_signal(self, signum: int) -> None:
        await trio.lowlevel.checkpoint()
        self.signals.append(signum)
        if self.gone:
            raise NotFoundError("process")
        if signum in self.ends_at:
            self.end(self.ends_at[signum])

    async def kill(self) -> None:
        self.ends_at[signal.SIGKILL] = 137
        await self.send_signal(signal.SIGKILL)

    async def resize(self, width: int, height: int) -> None:
        await trio.lowlevel.checkpoint()
        self.sizes.append((width, height))


class Scene:
    """A process that is attended, and what has become of that."""

    def __init__(self, process: FakeProcess) -> None:
        self.process = process
        self.entering = trio.Event()
        self.may_enter = trio.Event()
        self.may_enter.set()
        self.left = False
        self.status: int | None = None

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[ContainerProcess]:
        self.entering.set()
        await self.may_enter.wait()
        try:
            yield cast(ContainerProcess, self.process)
        finally:
            self.left = True

    async def run(
        self,
        *,
        interactive: bool = False,
        terminal: bool = False,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        begun: Callable[[object], object] = lambda _: task_status.started()  # noqa: E731
        self.status = await attend(
            self.opening(), interactive=interactive, terminal=terminal, begun=begun
        )


async def obeyed(signum: int) -> None:
    """A signal to ourselves, and all that follows from it."""
    os.kill(os.getpid(), signum)
    await trio.testing.wait_all_tasks_blocked(0.01)


@pytest.fixture
def hears(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Whether the first process of the container has handlers."""

    def set_(handler: bool) -> None:
        monkeypatch.setattr(_attend, "would_drop", lambda *_: not handler)

    set_(True)
    return set_


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize("signum", [1, 2, 3, 10, 12, 15])
async def test_signals_are_passed_on(
    signum: int, hears: Callable[[bool], None], nursery: trio.Nursery
) -> None:
    """The process decides what they mean, and its status is the answer."""
    scene = Scene(FakeProcess())
    scene.process.ends_at[signum] = 42
    await nursery.start(scene.run)
    await obeyed(signum)
    assert (scene.process.signals, scene.status, scene.left) == ([signum], 42, True)


@pytest.mark.parametrize("signum", [1, 2, 3, 15])
async def test_what_linux_would_drop_ends_it(
    signum: int, hears: Callable[[bool], None], nursery: trio.Nursery
) -> None:
    """With the status that any other process would have."""
    hears(False)
    scene = Scene(FakeProcess())
    await nursery.start(scene.run)
    await obeyed(signum)
    assert (scene.process.signals, scene.status) == ([signal.SIGKILL], 128 + signum)


async def test_the_third_interrupt_kills(
    hears: Callable[[bool], None], nursery: trio.Nursery
) -> None:
    """And says so: 137."""
    scene = Scene(FakeProcess())
    await nursery.start(scene.run)
    for _ in range(3):
        await obeyed(signal.SIGINT)
    assert (scene.process.signals, scene.status) == ([2, 2, 9], 137)


async def test_a_signal_that_comes_too_late_is_no_error(
    hears: Callable[[bool], None], nursery: trio.Nursery
) -> None:
    """The process has just ended: its status counts."""
    scene = Scene(FakeProcess("exec-1"))
    scene.process.gone = True
    await nursery.start(scene.run)
    await obeyed(signal.SIGTERM)
    assert scene.status is None
    scene.process.end(3)
    await trio.testing.wait_all_tasks_blocked()
    assert scene.status == 3


async def test_a_signal_before_it_runs_ends_the_start(nursery: trio.Nursery) -> None:
    """There is nobody yet to pass it on to."""
    scene = Scene(FakeProcess())
    scene.may_enter = trio.Event()
    nursery.start_soon(scene.run)
    await scene.entering.wait()
    await obeyed(signal.SIGINT)
    assert (scene.status, scene.left) == (130, False)


async def test_a_terminal_that_goes_ends_the_block(nursery: trio.Nursery) -> None:
    """So the container is ended in good order, whatever it does with the signal."""
    scene = Scene(FakeProcess())
    await nursery.start(lambda task_status: scene.run(terminal=True, task_status=task_status))
    await obeyed(signal.SIGTERM)
    assert (scene.process.signals, scene.status, scene.left) == ([], 143, True)


async def test_a_status_is_kept_whatever_was_sent(
    hears: Callable[[bool], None], nursery: trio.Nursery
) -> None:
    """It ended by itself before the kill could end it."""
    hears(False)
    scene = Scene(FakeProcess())
    scene.process.gone = True
    await nursery.start(scene.run)
    await obeyed(signal.SIGTERM)
    scene.process.end(5)
    await trio.testing.wait_all_tasks_blocked()
    assert scene.status == 5


# ---------------------------------------------------------------- input and size


@contextmanager
def standard_input(fd: int) -> Iterator[None]:
    """Let it be ours while the block lasts."""
    kept = os.dup(0)
    os.dup2(fd, 0)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)


async def test_input_is_passed_on_to_its_end(nursery: trio.Nursery) -> None:
    """From a pipe, as it comes."""
    scene = Scene(FakeProcess())
    reading, writing = os.pipe()
    with standard_input(reading):
        os.close(reading)
        await nursery.start(
            lambda task_status: scene.run(interactive=True, task_status=task_status)
        )
        os.write(writing, b"one")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert scene.process.stdin.data == b"one"
        assert not scene.process.stdin.closed.is_set()
        os.close(writing)
        with trio.fail_after(10):
            await scene.process.stdin.closed.wait()
        scene.process.end(0)
        await trio.testing.wait_all_tasks_blocked()
    assert scene.status == 0


async def test_input_nobody_reads_is_no_error(nursery: trio.Nursery) -> None:
    """The process has ended: its status tells."""
    scene = Scene(FakeProcess())
    scene.process.stdin.broken = True
    reading, writing = os.pipe()
    with standard_input(reading):
        os.close(reading)
        os.write(writing, b"x" * 100)
        await nursery.start(
            lambda task_status: scene.run(interactive=True, task_status=task_status)
        )
        await trio.testing.wait_all_tasks_blocked(0.01)
        scene.process.end(4)
        await trio.testing.wait_all_tasks_blocked()
        os.close(writing)
    assert scene.status == 4


async def test_the_size_follows_ours(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    """At the beginning, and at SIGWINCH; without a terminal there is none."""
    sizes = {0: (80, 24)}
    monkeypatch.setattr(_attend, "terminal_size", sizes.get)
    scene = Scene(FakeProcess())
    await nursery.start(lambda task_status: scene.run(terminal=True, task_status=task_status))
    await trio.testing.wait_all_tasks_blocked()
    sizes[0] = (100, 30)
    await obeyed(signal.SIGWINCH)
    assert scene.process.sizes == [(80, 24), (100, 30)]
    scene.process.end(0)
    plain = Scene(FakeProcess())
    await nursery.start(plain.run)
    await obeyed(signal.SIGWINCH)
    assert plain.process.sizes == []
    plain.process.end(0)


# ---------------------------------------------------------------- the terminal, and /proc


def test_a_terminal_is_as_it_was_after_an_error() -> None:
    """Raw inside, and never left so."""
    master, slave = os.openpty()
    before = termios.tcgetattr(slave)
    try:
        with pytest.raises(ZeroDivisionError), raw_terminal(slave):
            assert not termios.tcgetattr(slave)[3] & termios.ISIG
            raise ZeroDivisionError
        assert termios.tcgetattr(slave) == before
    finally:
        os.close(master)
        os.close(slave)


def test_what_is_no_terminal_has_no_size() -> None:
    """Nor has one that nobody has given a size."""
    master, slave = os.openpty()
    with open(os.devnull) as null:
        assert terminal_size(null.fileno()) is None
    assert terminal_size(slave) is None
    os.close(master)
    os.close(slave)


@contextmanager
def child(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python that runs `code`, says a line and waits."""
    code = f"import signal, sys; {code}; print('ready', flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.communicate()


@pytest.mark.parametrize(
    ("code", "dropped"),
    [
        ("signal.signal(15, signal.SIG_DFL)", True),
        ("signal.signal(15, signal.SIG_IGN)", False),
        ("signal.signal(15, print)", False),
    ],
)
def test_who_hears_a_signal_is_in_proc(code: str, dropped: bool) -> None:
    """A handler, or the wish to ignore it: both are its own decision."""
    with child(code) as process:
        assert would_drop(process.pid, signal.SIGTERM) is dropped


def test_a_process_that_is_gone_drops_nothing() -> None:
    """Then the shim is asked, which knows."""
    assert not would_drop(2**22 + 1, signal.SIGTERM)
    assert not is_deaf_foreground(2**22 + 1, signal.SIGINT)
