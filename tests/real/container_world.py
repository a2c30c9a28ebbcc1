"""A place of its own for the containers of one test; when the test is over, nothing may be there.

Everything is below one short directory in /tmp, where there is room for a socket's name.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.unit.fds import open_fds
from trioshim.client import EventSink
from trioshim.containers import Container
from trioshim.proto import task_v2_pb2 as api

from . import leaks
from .conformance_world import find
from .requirements import TRIO, missing_shim

OURS = "containerd-shim-trio-v1"
GO_V2 = "containerd-shim-runc-v2"
GO_V1 = "containerd-shim-runc-v1"
SHIMS = (OURS, GO_V2, GO_V1)
SLEEP = ("sleep", "1000")
KILLED = 137


@dataclass
class Place:
    """Where the bundles and sockets of one test are.

    Attributes:
        base: a directory; its name is the namespace.
        rootfs: of busybox.
    """

    base: Path
    rootfs: Path
    _scripts: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def where(self) -> dict[str, Any]:
        """For `open_container`: whose it is.  A bundle takes no more than this."""
        return {"namespace": self.base.name, "state_dir": self.base / "st"}

    @property
    def box(self) -> dict[str, Any]:
        """For `open_container`: busybox, whose processes `leaks` knows by a variable."""
        return self.where | {"rootfs": self.rootfs, "env": self.env}

    @property
    def env(self) -> dict[str, str]:
        return {"WORLD": str(self.base)}

    def traces(self) -> list[str]:
        """What is there of any container or shim."""
        namespace = self.base.name
        sockets = [*self.base.glob("s/*"), *self._go_sockets()]
        return [
            *(f"process {pid}: {argv}" for pid, argv in leaks.processes(self.base)),
            *(f"mount {target}" for target in leaks.mounts(self.base)),
            *(f"cgroup {path}" for path in self._cgroups()),
            *(f"socket {path}" for path in sockets),
            *(f"runc state {path}" for path in (leaks.RUNC / namespace).glob("*")),
            *(f"bundle {path}" for path in self.base.glob("st/*/*")),
        ]

    def _cgroups(self) -> list[Path]:
        name = self.base.name
        return [path for root in leaks._cgroup_roots() for path in root.glob(f"{name}@*")]

    def _go_sockets(self) -> list[Path]:
        """Those of containers that have the usual names."""
        sink = self.base / "st" / self.base.name / "box" / "events"
        return leaks.sockets(sink, self.base.name, ["box"])

    def script(self, body: str, *args: str, **more: Any) -> subprocess.Popen[bytes]:
        """Start a program of its own: `body` is in an async function, with `where` and `box`."""
        text = _SCRIPT.format(
            where={key: str(value) for key, value in self.where.items()},
            box={"rootfs": str(self.rootfs), "env": self.env},
            body=textwrap.indent(textwrap.dedent(body), "    "),
        )
        argv = [sys.executable, "-c", text, *args]
        more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0} | more
        process = subprocess.Popen(argv, **more)
        self._scripts.append(process)
        return process

    def end_scripts(self) -> None:
        for process in self._scripts:
            process.kill()
            process.wait()
            for pipe in filter(None, (process.stdout, process.stderr)):
                pipe.close()

    def sweep(self) -> None:
        """After the asserts: remove all there is."""
        self.end_scripts()
        for pid, _ in leaks.processes(self.base):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        leaks.sweep(self.base, self.base.name)
        for path in self._cgroups():
            with suppress(OSError):
                path.rmdir()
        shutil.rmtree(self.base)


_SCRIPT = """
import os, sys
import trio
from trioshim.containers import *
where = {where!r}
box = where | {box!r}
def say(text):
    os.write(1, (str(text) + chr(10)).encode())
async def main():
{body}
trio.run(main)
"""


@contextmanager
def open_place(rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Lend it; then nothing may be left, not even a file descriptor or a zombie."""
    base = Path(f"/tmp/tc{secrets.token_hex(4)}")
    base.mkdir(0o700)
    monkeypatch.setenv("TRIOSHIM_SOCKET_DIR", str(base / "s"))
    place = Place(base, rootfs)
    before = open_fds(), children()
    try:
        yield place
        assert place.traces() == []
        place.end_scripts()
        assert (open_fds(), children()) == before
    finally:
        place.sweep()


@pytest.fixture
def place(
    machine: None,
    rootfs: Path,
    give_up: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Place]:
    """For a test module to import."""
    give_up(missing_shim(TRIO))
    with open_place(rootfs, monkeypatch) as place:
        yield place


def need(shim: str) -> None:
    """Skip the test if that shim is not here; ours always is."""
    if shim != OURS and find(shim) is None:
        pytest.skip(f"no {shim} in PATH")


def children() -> list[str]:
    """The pids of our children, zombies too."""
    files = Path("/proc/self/task").glob("*/children")
    return sorted(pid for file in files for pid in file.read_text().split())


async def shim_pid(container: Container) -> int:
    return (await container.task.connect(api.ConnectRequest(id=container.id))).shim_pid


async def said_by(stream: trio.abc.ReceiveStream | None) -> bytes:
    """All that comes, to the end."""
    assert stream is not None
    said = b""
    async for chunk in stream:
        said += chunk
    return said


async def said_until(stream: trio.abc.ReceiveStream | None, end: bytes) -> bytes:
    """What comes, until these bytes have."""
    assert stream is not None
    said = b""
    while end not in said:
        chunk = await stream.receive_some()
        assert chunk, f"{end!r} has not come: {said!r}"
        said += chunk
    return said


async def until_true(probe: Callable[[], Awaitable[bool]]) -> None:
    """Ask until the answer is true.

    Raises:
        TooSlowError: it never was.
    """
    with trio.fail_after(15):
        while not await probe():  # noqa: ASYNC110 (it happens in the container)
            await trio.sleep(0.02)


async def topics(sink: EventSink, events: trio.MemoryReceiveChannel[Any]) -> list[str]:
    """What was told, to the end: "create" for `/tasks/create`."""
    sink.close()
    return [event.topic.removeprefix("/tasks/") async for event in events]
