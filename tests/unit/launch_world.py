"""A shim's program that does as it is told, and the service that answers for it in this process.

The program is a small script: what its verbs do stands in a file of its bundle.  Its server is two
things: a process that `start` leaves behind, which can be killed, and a Task service here, which
says that it is that process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from google.protobuf.empty_pb2 import Empty

from trioshim.client import LaunchedShim, LaunchError, launch
from trioshim.errors import NotFoundError, ShimError
from trioshim.proto import task_v2_pb2 as v2
from trioshim.proto import task_v3_pb2 as v3
from trioshim.rpc import Service, serve_rpc

from .fds import open_fds

ID = "c1"
PATIENCE = 60  # seconds; whoever hangs, fails

PROGRAM = """#!{python} -IS
import json, os, signal, socket, sys, time
verb = sys.argv[-1]
with open("calls", "a") as file:
    stdin = sys.stdin.buffer.read().decode("latin-1")
    print(json.dumps([verb, sys.argv[1:], dict(os.environ), os.getcwd(), stdin]), file=file)
with open("does") as file:
    does = json.load(file).get(verb, {{}})
if "gate" in does:
    with open(does["gate"], "rb", buffering=0) as file:
        file.read(1)
if "listen" in does:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(does["listen"])
    listener.listen()
if "leave" in does:
    pid = os.fork()
    if not pid:
        if not does.get("kin"):
            os.setpgid(0, 0)
        if not does.get("holds"):
            for fd in range(3):
                os.dup2(os.open("/dev/null", os.O_RDWR), fd)
        if does["leave"] == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        else:
            signal.signal(signal.SIGTERM, lambda *_: (open("last-words", "w"), os._exit(0)))
        while True:
            signal.pause()
    with open("pid", "w") as file:
        file.write(str(pid))
if "log" in does:
    with open("log", "w") as file:
        file.write(does["log"])
if "note" in does:
    with open("address", "w") as file:
        file.write(does["note"])
sys.stdout.buffer.write(does.get("say", "").encode("latin-1"))
sys.stdout.flush()
sys.stderr.write(does.get("complain", ""))
if does.get("hang"):
    open("hangs", "w").close()
    time.sleep(1000)
sys.exit(does.get("status", 0))
"""


@dataclass
class FakeShim:
    """A program, its bundle, and what the Task service says.

    Attributes:
        holds: State finds the container.
        deaf: State and Connect are never answered.
        obeys: its process ends at Shutdown.
        fails: what Connect is answered instead of a pid.
        pids: what Connect tells, one after the other; the last one stays.  None: the process
            that `start` left.
        asked: the methods that were called.
    """

    base: Path
    holds: bool = False
    deaf: bool = False
    obeys: bool = True
    fails: ShimError | None = None
    pids: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @property
    def bundle(self) -> Path:
        return self.base / ID

    @property
    def program(self) -> Path:
        return self.base / "fake-shim"

    @property
    def socket(self) -> Path:
        return self.base / "s"

    def does(self, **verbs: dict[str, Any]) -> None:
        """What its verbs do; without this they do nothing and succeed."""
        (self.bundle / "does").write_text(json.dumps(verbs))

    def starts(self, answer: str = "", *, leave: str = "willing", **more: Any) -> None:
        """`start` leaves a process, and answers; `delete` succeeds."""
        start = {"say": answer or f"unix://{self.socket}", "leave": leave, **more}
        reply = v2.DeleteResponse(pid=7, exit_status=137).SerializeToString().decode("latin-1")
        self.does(start=start, delete={"say": reply})

    def calls(self) -> list[list[Any]]:
        """Verb, arguments, environment, directory and standard input of each run."""
        path = self.bundle / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def verbs(self) -> list[str]:
        return [call[0] for call in self.calls()]

    def left(self) -> int:
        """The process that `start` left behind; 0: none."""
        path = self.bundle / "pid"
        return int(path.read_text()) if path.exists() else 0

    def lives(self) -> bool:
        """Whether that process runs."""
        return bool(self.left()) and runs(self.left())

    # ------------------------------------------------------------ the Task service

    async def connect(self, request: v2.ConnectRequest) -> v2.ConnectResponse:
        self.asked.append("Connect")
        if self.deaf:
            await trio.sleep_forever()
        if self.fails:
            raise self.fails
        told = self.pids.pop(0) if len(self.pids) > 1 else [*self.pids, self.left()][0]
        return v2.ConnectResponse(shim_pid=told)

    async def state(self, request: v2.StateRequest) -> v2.StateResponse:
        self.asked.append("State")
        if self.deaf:
            await trio.sleep_forever()
        if not self.holds:
            raise NotFoundError("container not created")
        return v2.StateResponse(id=request.id)

    async def wait(self, request: v2.WaitRequest) -> v2.WaitResponse:
        self.asked.append("Wait")
        await trio.lowlevel.checkpoint()
        return v2.WaitResponse()

    async def shutdown(self, request: v2.ShutdownRequest) -> Empty:
        self.asked.append("Shutdown")
        await trio.lowlevel.checkpoint()
        if self.obeys:
            os.kill(self.left(), signal.SIGKILL)
        return Empty()

    @asynccontextmanager
    async def serving(self, *versions: int, name: str = "") -> AsyncIterator[None]:
        """Answer on the socket, with these versions of the service.

        Args:
            name: of an abstract socket instead.
        """
        sock = trio.socket.socket(trio.socket.AF_UNIX)
        await sock.bind(f"\0{name}" if name else str(self.socket))
        sock.listen()
        modules = {2: v2, 3: v3}
        services = [
            Service(modules[version].DESCRIPTOR.services_by_name["Task"], self, reads=("State",))
            for version in versions or (2,)
        ]
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_rpc, trio.SocketListener(sock), services)
            try:
                yield
            finally:
                server.stop(grace=0)
                nursery.cancel_scope.cancel()


def runs(pid: int) -> bool:
    """Whether it is there, and no zombie that waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def open_fake() -> Iterator[FakeShim]:
    """A fake shim; no log of its bundle and no descriptor of ours may be left at the end.

    If its process still runs then, it is killed.
    """
    before = open_fds()
    # Short: pytest's own directories have names that are too long for a unix socket.
    with tempfile.TemporaryDirectory(prefix="ts-") as directory:
        fake = FakeShim(Path(directory).resolve())
        fake.bundle.mkdir()
        fake.program.write_text(PROGRAM.format(python=sys.executable))
        fake.program.chmod(0o755)
        fake.starts()
        try:
            yield fake
        finally:
            if fake.lives():
                os.kill(fake.left(), signal.SIGKILL)
        assert not (fake.bundle / "log").exists()
    assert open_fds() == before


@asynccontextmanager
async def launched(fake: FakeShim, **options: Any) -> AsyncIterator[LaunchedShim]:
    with trio.fail_after(PATIENCE):
        async with launch(fake.program, fake.bundle, id=ID, **options) as shim:
            yield shim


async def refused(fake: FakeShim, **options: Any) -> LaunchError:
    """The error of a launch whose block is never entered."""
    with pytest.raises(LaunchError) as caught:
        async with launched(fake, **options):
            raise AssertionError
    return caught.value
