"""`trioshim run` by a ready process: signals that come before it is there, and after."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from types import FrameType

import pytest

from trioshim.cli import _ready

from .ready_world import GUARD, hand_over, open_place


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where a template would listen; nobody does."""
    with open_place(monkeypatch) as path:
        yield path


@pytest.fixture
def asked() -> list[int]:
    """The signals that a fake of the ready process was sent."""
    return []


class Fake:
    """The ready process, as far as signals go."""

    def __init__(self, sent: list[int]) -> None:
        self.signal = sent.append


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """What reaches us as if there were no ready process."""
    signums: list[int] = []

    def note(signum: int, _frame: FrameType | None) -> None:
        signums.append(signum)

    before = {signum: signal.signal(signum, note) for signum in _ready._FORWARDED}
    yield signums
    for signum, handler in before.items():
        signal.signal(signum, handler)


def test_what_nobody_has_taken_is_ours(heard: list[int]) -> None:
    """Signals that came before there was somebody come again, in order, and all of them."""
    came = [signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP]
    with _ready._Signals():
        for signum in came:
            signal.raise_signal(signum)
        assert heard == []
    assert heard == came


def test_what_came_before_is_sent_on_first(heard: list[int], asked: list[int]) -> None:
    """Then the rest; nothing of it is for us."""
    early, late = [signal.SIGUSR2, signal.SIGINT], [signal.SIGINT, signal.SIGWINCH]
    with _ready._Signals() as signals:
        for signum in early:
            signal.raise_signal(signum)
        signals.send_to(Fake(asked))  # type: ignore[arg-type]
        assert asked == early
        for signum in late:
            signal.raise_signal(signum)
    assert asked == early + late
    assert heard == []


def test_what_is_ignored_stays_ignored(heard: list[int], asked: list[int]) -> None:
    """nohup: the hang-up is neither kept nor sent on."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with _ready._Signals() as signals:
        signal.raise_signal(signal.SIGHUP)
        signals.send_to(Fake(asked))  # type: ignore[arg-type]
        signal.raise_signal(signal.SIGHUP)
    assert (asked, heard) == ([], [])


def test_signals_go_to_the_process_that_answers(path: str) -> None:
    """By a name that no later process has; here one that ends by it."""
    sleeper = subprocess.Popen(["sleep", str(GUARD)])

    def answer(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(b"+%d" % sleeper.pid)
        connection.recv(1)
        os.kill(os.getpid(), signal.SIGTERM)
        connection.sendall(b"%d" % (128 - sleeper.wait(GUARD)))

    try:
        assert hand_over(path, answer) == 143
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_signal_for_one_that_has_ended_is_dropped(path: str) -> None:
    """Its status is on the way."""
    ended = subprocess.Popen(["sleep", str(GUARD)])

    def answer(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(b"+%d" % ended.pid)
        connection.recv(1)
        ended.kill()
        ended.wait(GUARD)
        os.kill(os.getpid(), signal.SIGTERM)
        connection.sendall(b"5")

    assert hand_over(path, answer) == 5


def test_a_signal_that_comes_while_it_says_no_is_ours(path: str, heard: list[int]) -> None:
    """We do the command, so we are to hear it."""

    def answer(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        os.kill(os.getpid(), signal.SIGUSR1)
        connection.sendall(b"-no")

    assert hand_over(path, answer) is None
    assert heard == [signal.SIGUSR1]
