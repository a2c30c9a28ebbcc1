"""`delete` cleans up after a shim that is gone, whatever is missing, and tells how init ended."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from trioshim import _exit_record
from trioshim.bootstrap._sockets import is_listening

from .verb_world import (
    GUARD,
    ID,
    NOISE,
    NS,
    World,
    answer,
    end_server,
    fake_runc,
    needs_root,
    open_world,
)

pytestmark = needs_root


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world; afterwards no server of it is left."""
    with open_world(tmp_path) as world:
        yield world


def test_delete_tells_how_init_ended(world: World) -> None:
    """The recorded status and time, although the shim was killed (and no made-up 137)."""
    bundle = world.bundle()
    fake_runc(world, bundle)
    (bundle / "exit").write_bytes(_exit_record.encode(4711, 42, 1_700_000_000_000_000_007))
    done = world.run("delete", bundle=bundle)
    response = answer(done)
    assert (response.pid, response.exit_status, done.stderr) == (4711, 42, b"")
    assert (response.exited_at.seconds, response.exited_at.nanos) == (1_700_000_000, 7)


def test_delete_kills_what_has_not_ended(world: World) -> None:
    """Without a record the status is that of SIGKILL, and the pid is init's."""
    bundle = world.bundle()
    log = fake_runc(world, bundle)
    (bundle / "init.pid").write_text(str(os.getpid()))
    done = world.run("delete", bundle=bundle)
    response = answer(done)
    assert (response.pid, response.exit_status, done.stderr) == (os.getpid(), 137, b"")
    assert response.exited_at.seconds > 1_700_000_000
    prefix = f"--root /run/containerd/runc/{NS} --log {bundle}/log.json --log-format json"
    assert log.read_text() == f"{prefix} delete --force {ID}\n"


def test_delete_says_when_it_does_not_know(world: World) -> None:
    """Init has ended by itself while nobody looked: 137 comes with a warning."""
    bundle = world.bundle()
    fake_runc(world, bundle)
    with subprocess.Popen(["true"]) as gone:
        gone.wait(GUARD)
    (bundle / "init.pid").write_text(str(gone.pid))
    (bundle / "exit").write_bytes(b"garbage")
    done = world.run("delete", bundle=bundle)
    assert (answer(done).pid, answer(done).exit_status) == (gone.pid, 137)
    assert b"137 stands for its unknown exit status" in done.stderr


def test_delete_of_a_container_that_never_was(world: World) -> None:
    """An empty bundle is cleaned up too, with pid 0; and again."""
    bundle = world.bundle()
    fake_runc(world, bundle)
    for _ in range(2):
        done = world.run("-bundle", str(bundle), "delete", bundle=Path("/"))
        assert (answer(done).pid, answer(done).exit_status, done.stderr) == (0, 137, b"")


@pytest.mark.parametrize(
    ("ended", "known", "asked"),
    [(True, [], False), (True, [ID], True), (False, [], True), (True, None, True)],
    ids=["it has ended and is gone", "its state is there", "nobody saw its end", "another place"],
)
def test_delete_asks_the_runtime_only_if_it_may_know_something(
    world: World, ended: bool, known: list[str] | None, asked: bool
) -> None:
    """The runtime takes longer than all the rest, and after every Delete there is nothing left."""
    bundle = world.bundle()
    log = fake_runc(world, bundle)
    root = bundle / "root"
    (bundle / "options.json").write_text(json.dumps({"root": str(root)}))
    if ended:
        (bundle / "exit").write_bytes(_exit_record.encode(4711, 42, 7))
    if known is not None:
        (root / NS).mkdir(parents=True)
        for name in known:
            (root / NS / name).mkdir()
    response = answer(world.run("delete", bundle=bundle))
    assert response.exit_status == (42 if ended else 137)
    assert log.exists() is asked


def test_delete_uses_the_noted_options(world: World) -> None:
    """The runtime's root and name are what Create was told."""
    bundle = world.bundle()
    log = fake_runc(world, bundle)
    noted = {"root": "/run/mine", "binary_name": (bundle / "runtime").read_text()}
    (bundle / "options.json").write_text(json.dumps(noted))
    (bundle / "runtime").unlink()
    assert answer(world.run("delete", bundle=bundle)).exit_status == 137
    assert log.read_text().startswith(f"--root /run/mine/{NS} ")


@pytest.mark.parametrize("text", ["{", '["root"]', '{"root": 3}', '"root"'])
def test_delete_survives_broken_options(world: World, text: str) -> None:
    """The default root is tried then."""
    bundle = world.bundle()
    log = fake_runc(world, bundle)
    (bundle / "options.json").write_text(text)
    assert answer(world.run("delete", bundle=bundle)).exit_status == 137
    assert log.read_text().startswith(f"--root /run/containerd/runc/{NS} ")


@pytest.mark.parametrize(
    ("then", "warning"),
    [
        ("echo no such thing >&2; exit 3", b"ended with status 3: no such thing"),
        ("sleep 1000", b"did not end within 3 seconds and was killed"),
        ("sleep 1000 & echo $! > sleeper; sleep 1000", b"did not end within 3 seconds"),
    ],
)
def test_a_failing_runtime_is_a_warning(world: World, then: str, warning: bytes) -> None:
    """The answer comes all the same, in time, and nothing is left running."""
    bundle = world.bundle()
    fake_runc(world, bundle, then)
    done = world.run("delete", bundle=bundle)
    assert answer(done).exit_status == 137
    assert warning in done.stderr
    if (bundle / "sleeper").exists():
        pid = int((bundle / "sleeper").read_text())
        status = Path(f"/proc/{pid}/status")
        assert not status.exists() or "State:\tZ" in status.read_text()


def test_a_missing_runtime_is_a_warning(world: World) -> None:
    """It was uninstalled: the rest is cleaned up."""
    bundle = world.bundle()
    (bundle / "runtime").write_text("/nowhere/runc")
    done = world.run("delete", bundle=bundle)
    assert answer(done).exit_status == 137
    assert b"/nowhere/runc" in done.stderr


def test_delete_does_not_pass_on_warnings(world: World) -> None:
    """The daemon would log each of them, after every container."""
    bundle = world.bundle()
    fake_runc(world, bundle)
    done = world.run(
        "delete", bundle=bundle, PRELUDE=NOISE.format(more=""), PYTHONWARNINGS="always"
    )
    assert (answer(done).exit_status, done.stderr) == (137, b"")


def mount(target: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"trioshim-test", os.fsencode(target), b"tmpfs", 0, None) != 0:
        pytest.skip(f"needs the right to mount: {os.strerror(ctypes.get_errno())}")


def unmount_all(below: Path) -> None:
    """Take back what a failed test has left."""
    libc = ctypes.CDLL(None)
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        point = line.split(" ")[4]
        if point.startswith(str(below)):
            libc.umount2(os.fsencode(point.replace("\\040", " ")), 2)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_delete_unmounts_every_layer(world: World, busy: bool) -> None:
    """On and below rootfs, stacked ones, odd names, and such as are in use; nothing else."""
    bundle, other = world.bundle(), world.bundle(ID + "2")
    fake_runc(world, bundle)
    rootfs, inner = bundle / "rootfs", bundle / "rootfs" / "a b"
    try:
        mount(other / "rootfs")
        mount(rootfs)
        inner.mkdir()
        mount(inner)
        (inner / "file").touch()
        with open(inner / "file") if busy else nullcontext():
            mount(rootfs)
            done = world.run("delete", bundle=bundle)
        assert (answer(done).exit_status, done.stderr) == (137, b"")
        assert not os.path.ismount(rootfs)
        assert list(rootfs.iterdir()) == []
        assert os.path.ismount(other / "rootfs")
    finally:
        unmount_all(world.root)


def test_delete_removes_a_dead_socket(world: World) -> None:
    """The shim was killed: its socket goes, and no lock file stays."""
    bundle = world.bundle()
    fake_runc(world, bundle)
    world.run("start", bundle=bundle)
    end_server(bundle)
    assert world.path().exists()
    assert answer(world.run("delete", bundle=bundle)).exit_status == 137
    assert list(world.sockets.iterdir()) == []


def test_delete_leaves_a_living_socket(world: World) -> None:
    """A shim that is still sending its last events removes its socket itself."""
    bundle = world.bundle()
    fake_runc(world, bundle)
    world.run("start", bundle=bundle)
    assert answer(world.run("delete", bundle=bundle)).exit_status == 137
    assert is_listening(str(world.path()))
