"""The socket of both wires: who gets in, and that one wire's start does not hold up the other."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest
import trio
import trio.testing

from trioshim.rpc import _listener
from trioshim.testing import MemoryListener

from .both_wires import (
    answers_on_grpc,
    answers_on_ttrpc,
    connections,
    no_errors_logged,
    on_a_socket,
    serving,
)
from .grpc_world import Tasks
from .malformed import GRPC, TTRPC, Wire

NOBODY = 65534
# Becomes somebody else, says what a good client says, and prints what it hears.
STRANGER = """
import os, socket, sys
path, uid, gid, said = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), bytes.fromhex(sys.argv[4])
os.setgroups([])
os.setgid(gid)
os.setuid(uid)
sock = socket.socket(socket.AF_UNIX)
try:
    sock.connect(path)
    sock.sendall(said)
    print(len(sock.recv(1)))
except OSError as error:
    print(type(error).__name__)
"""


async def told_to_a_stranger(path: Path, said: bytes, uid: int, gid: int) -> str:
    """What another process of this uid and gid gets for its words."""
    argv = [sys.executable, "-Ic", STRANGER, str(path), str(uid), str(gid), said.hex()]
    done = await trio.run_process(argv, capture_stdout=True)
    return done.stdout.decode().strip()


@asynccontextmanager
async def open_path() -> AsyncIterator[Path]:
    """A path that everybody may reach; pytest's own directories are private."""
    with tempfile.TemporaryDirectory(prefix="trioshim-test-") as name:
        os.chmod(name, 0o755)
        yield Path(name) / "s"


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
WIRES = pytest.mark.parametrize("wire", [GRPC, TTRPC], ids=["grpc", "ttrpc"])


@needs_root
@WIRES
@pytest.mark.parametrize(
    ("uid", "gid"), [(NOBODY, NOBODY), (NOBODY, 0), (0, NOBODY)], ids=["both", "uid", "gid"]
)
async def test_a_stranger_gets_no_byte(
    wire: Wire, uid: int, gid: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Even one who gets past the mode of the socket; uid and gid both count (CVE-2020-15257)."""
    said = wire.preface + b"".join(wire.frames)
    tasks = Tasks()
    async with open_path() as path, on_a_socket(path, tasks) as server:
        os.chmod(path, 0o666)
        # A socket that was closed says so in one of three ways, as the moment has it.
        heard = await told_to_a_stranger(path, said, uid, gid)
        assert heard in ("0", "ConnectionResetError", "BrokenPipeError")
        assert await told_to_a_stranger(path, said, 0, 0) == "1"
        await connections(server, 0)
        tasks.go_on.set()
        assert len(tasks.started) <= 2  # those of the second one
        assert f"refused a connection of uid {uid}, gid {gid}" in caplog.text


@needs_root
async def test_the_mode_of_the_socket_keeps_strangers_out() -> None:
    """0600 whatever the umask: they cannot even connect."""
    umask = os.umask(0)
    try:
        async with open_path() as path, on_a_socket(path, Tasks()):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            refused = await told_to_a_stranger(path, b"P", NOBODY, NOBODY)
            assert refused == "PermissionError"
    finally:
        os.umask(umask)


# ---------------------------------------------------------------- the import of purerpc


class SlowImport:
    """Stands for the import of purerpc and h2.

    Attributes:
        threads: who has imported.
        go_on: lets the import end.
    """

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.go_on = threading.Event()
        self._import = _listener._import_grpc

    def is_done(self) -> bool:
        return self.go_on.is_set() and bool(self.threads)

    def __call__(self) -> ModuleType:
        self.threads.append(threading.current_thread())
        assert self.go_on.wait(30)
        return self._import()


@pytest.fixture
def slow_import(monkeypatch: pytest.MonkeyPatch) -> SlowImport:
    slow = SlowImport()
    monkeypatch.setattr(_listener, "_import_grpc", slow)
    monkeypatch.setattr(_listener, "_is_imported", slow.is_done)
    return slow


async def test_ttrpc_is_served_while_grpc_is_imported(slow_import: SlowImport) -> None:
    """It takes 100 ms and more, and the first client of gRPC may come at any moment."""
    listener = MemoryListener()
    answered: list[str] = []

    async def call_in_grpc() -> None:
        assert await answers_on_grpc(listener.connect())
        answered.append("grpc")

    async with serving(listener, Tasks()):
        async with trio.open_nursery() as nursery:
            for _ in range(3):  # one import for all of them
                nursery.start_soon(call_in_grpc)
            await trio.testing.wait_all_tasks_blocked()
            assert await answers_on_ttrpc(listener.connect())
            answered.append("ttrpc")
            slow_import.go_on.set()
        assert answered == ["ttrpc", "grpc", "grpc", "grpc"]
        first, *later = slow_import.threads
        assert first is not threading.main_thread()
        assert set(later) == {threading.main_thread()}


async def test_a_stop_during_the_import_is_no_error(slow_import: SlowImport) -> None:
    """The client is gone, or we are, before there is anything to say to it."""
    listener = MemoryListener()
    with no_errors_logged():
        async with serving(listener, Tasks()) as server:
            stream = listener.connect()
            await stream.send_all(GRPC.preface)
            await trio.testing.wait_all_tasks_blocked()
            await stream.aclose()
            server.stop(grace=5)
            slow_import.go_on.set()


async def test_what_is_imported_needs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schedule of the simulator can be repeated: no thread has a say in it."""

    def no_thread(*args: object) -> None:
        raise AssertionError("a thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", no_thread)
    listener = MemoryListener()
    async with serving(listener, Tasks()):
        assert await answers_on_grpc(listener.connect())
