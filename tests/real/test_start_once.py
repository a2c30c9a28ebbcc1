"""However often and however quickly `start` is run, a container gets one living server."""

from __future__ import annotations

import fcntl
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from trioshim.bootstrap._sockets import SocketLock

from .verb_world import GUARD, World, ask, needs_root, open_world

pytestmark = needs_root


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world; afterwards no server of it is left."""
    with open_world(tmp_path) as world:
        yield world


def test_a_second_start_finds_the_first(world: World) -> None:
    """The daemon that lost its notes gets the shim that is there."""
    first, second = world.bundle("one"), world.bundle("two")
    answers = [world.run("start", bundle=bundle).stdout for bundle in (first, second)]
    assert answers[0] == answers[1] == (second / "address").read_bytes()
    assert not (second / "shim.pid").exists()


def test_concurrent_starts_make_one_server(world: World) -> None:
    """Whoever comes second waits until it is clear that there is a server."""
    bundles = [world.bundle(f"b{number}") for number in range(8)]
    helpers = [
        subprocess.Popen(
            world.argv("start"),
            cwd=bundle,
            env=world.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for bundle in bundles
    ]
    answers = {helper.communicate(timeout=GUARD)[0] for helper in helpers}
    assert answers == {f"unix://{world.path()}".encode()}
    assert len([bundle for bundle in bundles if (bundle / "shim.pid").exists()]) == 1
    assert list(world.sockets.glob("*.lock")) == []


def test_a_stale_socket_is_replaced(world: World) -> None:
    """A shim that was killed leaves its socket; it does not stop the next one."""
    world.sockets.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(world.path()))
        dead.listen()
    done = world.run("start", bundle=world.bundle())
    assert done.returncode == 0
    assert ask(world.path())["listening"] == 1


def test_a_full_backlog_is_not_stale(world: World) -> None:
    """A busy shim keeps its socket."""
    world.sockets.mkdir()
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
        busy.bind(str(world.path()))
        busy.listen(0)
        client.connect(str(world.path()))
        bundle = world.bundle()
        assert world.run("start", bundle=bundle).returncode == 0
        assert not (bundle / "shim.pid").exists()


# ---------------------------------------------------------------- the lock


def test_the_lock_keeps_others_out(tmp_path: Path) -> None:
    """Inside, nobody else gets it; afterwards nothing is left of it."""
    path = tmp_path / "socket.lock"
    with (
        SocketLock(str(tmp_path / "socket")),
        path.open() as other,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not path.exists()


def test_a_lock_without_a_name_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waited while the holder removed the file goes for the new one."""
    path = tmp_path / "socket.lock"
    flock, removals = fcntl.flock, [path.unlink, lambda: None]

    def flock_after_the_holder_left(fd: int, operation: int) -> None:
        flock(fd, operation)
        removals.pop(0)()

    monkeypatch.setattr(fcntl, "flock", flock_after_the_holder_left)
    with SocketLock(str(tmp_path / "socket")):
        assert removals == []
        assert path.exists()
    assert not path.exists()
