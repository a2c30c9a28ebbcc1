"""A template of commands that answers what it is told to, on a socket that nobody else has."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from trioshim.bootstrap import _template
from trioshim.cli import _ready

Answer = Callable[[socket.socket], object]
WORDS = ["run", "echo", "hello"]
GUARD = 60  # seconds; only against a hanging process


@contextmanager
def open_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where a template would listen; nobody does."""
    monkeypatch.setattr(_template, "TEMPLATE_TIMEOUT", 0.2)
    monkeypatch.setattr(_ready, "_has_standard_streams", lambda: True)  # pytest's are its own
    with tempfile.TemporaryDirectory(prefix="ts-") as directory:
        path = f"{directory}/x.sock"
        monkeypatch.setattr(_ready, "_path", lambda _: path)
        yield path


def hand_over(path: str, answer: Answer) -> int | None:
    """Ask a template that answers so."""

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            answer(connection)

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        return _ready.hand_over(WORDS, {"A": "1"})
    finally:
        thread.join()


def say(*words: bytes) -> Answer:
    """Say something for each thing that is heard, and hang up."""

    def answer(connection: socket.socket) -> None:
        for word in words:
            connection.recv(1 << 16)
            connection.sendall(word)

    return answer


def take(*later: bytes, pid: int = 0) -> Answer:
    """Take the command, and when the last word has come say the rest."""
    return say(b"+%d" % (pid or os.getpid()), *later)
