"""Both neighbours of the standard streams: the client with its fifos, and the container.

The container is played with copies of `fds`, which is what a runtime's child has.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from trioshim.abc import Stdio, StdioSpec

BIG = 8 * 1024 * 1024


def fd_targets() -> dict[str, str]:
    """Every open fd and what it is; the listing's own fd is gone when it is looked at."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
    return found


def children() -> str:
    """The pids of our children, zombies included."""
    return Path("/proc/thread-self/children").read_text()


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Each test closes all fds, collects all children and removes all console directories."""
    runtime_dir = tmp_path / "run"
    runtime_dir.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime_dir))
    before = fd_targets(), children()
    yield runtime_dir
    after = fd_targets(), children()
    assert after == before, f"left: {after}, not {before}"
    assert list(runtime_dir.iterdir()) == [], "the console's directory is left"


class Fifos:
    """A client's directory of fifos."""

    def __init__(self, directory: Path) -> None:
        self.stdin, self.stdout, self.stderr = (
            str(directory / name) for name in ("stdin", "stdout", "stderr")
        )
        for path in (self.stdin, self.stdout, self.stderr):
            os.mkfifo(path)


@pytest.fixture
def fifos(tmp_path: Path) -> Fifos:
    return Fifos(tmp_path)


def reader(path: str) -> trio.lowlevel.FdStream:
    return trio.lowlevel.FdStream(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


async def writer(path: str) -> trio.lowlevel.FdStream:
    """The client's end of stdin; like a client, it waits until the shim has opened the other."""
    while True:
        try:
            return trio.lowlevel.FdStream(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        await trio.lowlevel.checkpoint()


def container_end(streams: Stdio, number: int) -> trio.lowlevel.FdStream:
    """A copy of the container's end, as the runtime's child has it."""
    return trio.lowlevel.FdStream(os.dup(streams.fds[number]))


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def read_exactly(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = await stream.receive_some(count - len(data))
        assert chunk, f"the end after {data!r}"
        data += chunk
    return data


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def spec(**fields: object) -> StdioSpec:
    return StdioSpec(id="c1", namespace="ns", **fields)  # type: ignore[arg-type]  # test shorthand


async def write_both(streams: Stdio) -> None:
    out, err = container_end(streams, 1), container_end(streams, 2)
    await streams.attach()
    streams.take_input()
    await out.send_all(b"out\n")
    await err.send_all(b"err\n")
    await out.aclose()
    await err.aclose()
    await streams.drain()


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)
    return str(path)


READY = "echo >&5; exec 5>&-\n"
