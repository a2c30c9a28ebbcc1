"""What no machine should ever do to a shim: bad mounts, bad runtimes, full disks.

Each test promises three things: the client is told what was wrong, the shim goes on and still
knows its container, and it has no more fds and children than before.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from trioshim.client import connect
from trioshim.errors import AlreadyExistsError, NotFoundError, StatusError
from trioshim.proto import task_v2_pb2 as api
from trioshim.proto.task_types_pb2 import Status
from trioshim.proto.types_pb2 import Mount

from .shim_parts import open_fifo, until, write_to
from .shim_world import BOX, OBEDIENT, SLEEP, Shim, ShimWorld


async def test_a_rootfs_that_cannot_be_mounted(shim: Shim) -> None:
    """Which mount it was and why; the mounts before it are undone."""
    source = str(shim.world.rootfs)
    rootfs = [
        Mount(type="bind", source=source, options=["rbind", "ro"]),
        Mount(type="nosuchfs", source="none"),
    ]
    with pytest.raises(StatusError, match="failed to mount rootfs component nosuchfs 'none'"):
        await shim.create("other", rootfs=rootfs)
    assert not [trace for trace in shim.world.traces() if trace.startswith("mount")]


async def test_a_runtime_that_is_not_there(shim: Shim) -> None:
    """What to do about it is said too."""
    options = shim.world.options(binary_name="/nowhere/runc")
    text = 'exec: "/nowhere/runc": executable file not found in $PATH; install it'
    with pytest.raises(StatusError, match=re.escape(f"OCI runtime create failed: {text}")):
        await shim.create("other", options=options)


async def test_a_runtime_that_does_nothing(shim: Shim) -> None:
    """It says that all is well and there is no container."""
    with pytest.raises(StatusError, match="failed to retrieve OCI runtime container pid"):
        await shim.create("other", options=shim.world.runc("exit 0"))


@pytest.mark.parametrize("streams", ["none", "fifo", "terminal"])
async def test_a_runtime_that_says_too_much(shim: Shim, streams: str) -> None:
    """2 MiB of errors on stderr and 2 MiB in its log: no hang, and an answer of a sane length."""
    loud = """
    flood() { yes '{"level": "error", "msg": "alas alas alas"}' | head -c 2097152; }
    case "$*" in *" create "*) flood >&2; flood > "$log"; exit 1;; esac
    real "$@"
    """
    fifo = shim.world.fifo("out")
    with (
        open_fifo(fifo),
        trio.fail_after(10),
        pytest.raises(StatusError, match="alas") as failure,
    ):
        await shim.create(
            "other",
            stdout=fifo if streams != "none" else "",
            stderr=fifo if streams == "fifo" else "",
            terminal=streams == "terminal",
            options=shim.world.runc(loud),
        )
    assert len(str(failure.value)) < 128 * 1024


async def test_checkpoint_without_criu(shim: Shim) -> None:
    """The container goes on; where criu's log would be is said."""
    await shim.run("other", options=shim.world.options(criu_path="/nowhere/criu"))
    request = api.CheckpointTaskRequest(id="other", path=str(shim.world.base / "image"))
    with pytest.raises(StatusError, match=r"criu(.|\n)*path= .*/other/criu-dump.log"):
        await shim.client.checkpoint(request)
    assert (await shim.state("other")).status == Status.RUNNING


@contextmanager
def small_disk(path: Path, fill: str) -> Iterator[Callable[[], None]]:
    """A tmpfs with little room; the function that is yielded takes all that is left of it."""
    path.mkdir()
    limits = "size=64k,nr_inodes=40"
    subprocess.run(["mount", "-t", "tmpfs", "-o", limits, "tmpfs", path], check=True)

    def take_all() -> None:
        with pytest.raises(OSError, match="No space left"):
            for number in range(1000):
                (path / f"filler{number}").write_bytes(bytes(4096 if fill == "bytes" else 0))

    try:
        yield take_all
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("fill", ["bytes", "inodes"])
async def test_a_disk_that_is_full_when_init_ends(shim: Shim, fill: str) -> None:
    """The exit is told all the same, with the right status, and Delete works."""
    stdin = shim.world.fifo("in")
    bundle = shim.world.base / "other"
    with small_disk(bundle, fill) as take_all:
        shim.world.write_config(bundle, *OBEDIENT)
        await shim.run("other", bundle=bundle, stdin=stdin)
        take_all()
        write_to(stdin)
        assert await shim.wait("other") == 42
        assert await shim.delete("other") == 42
        assert not (bundle / "exit").exists()
    await until(lambda: shim.world.daemon.exits("other"), "the event")
    assert shim.world.daemon.exits("other") == [("other", 42)]
    assert "cannot record its exit" in shim.said()


async def test_a_disk_that_is_full_does_not_stop_kill(shim: Shim) -> None:
    """Not even one that takes no new file: what fills it has to be stopped somehow."""
    bundle = shim.world.base / "other"
    with small_disk(bundle, "inodes") as take_all:
        shim.world.write_config(bundle, *SLEEP)
        await shim.run("other", bundle=bundle)
        take_all()
        await shim.kill("other")
        assert await shim.wait("other") == 137


async def test_a_disk_that_is_full_at_create(shim: Shim) -> None:
    """The reason is told; with room again the same Create works."""
    bundle = shim.world.base / "other"
    with small_disk(bundle, "bytes") as take_all:
        shim.world.write_config(bundle, *SLEEP)
        take_all()
        with pytest.raises(StatusError, match="No space left on device"):
            await shim.create("other", bundle=bundle)
        for filler in bundle.glob("filler*"):
            filler.unlink()
        assert await shim.create("other", bundle=bundle)
        await shim.remove("other")


HANGING = """
case "$*" in *" create "*) echo $$ > hanging; sleep 1000;; esac
real "$@"
"""


async def test_a_runtime_that_hangs_holds_up_nobody_else(world: ShimWorld) -> None:
    """Reads and other containers' calls are answered; SIGTERM ends the shim and the runtime."""
    shim = await world.start(BOX)
    await shim.run(BOX)
    bundle = world.make_bundle("other", *SLEEP)
    request = api.CreateTaskRequest(id="other", bundle=str(bundle), options=world.runc(HANGING))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(create_on_its_own, shim, request)
        await until((shim.bundle / "hanging").exists, "the runtime to hang")
        assert (await shim.state(BOX)).status == Status.RUNNING
        await shim.client.connect(api.ConnectRequest(id=BOX), timeout=5)
        with pytest.raises(NotFoundError):
            await shim.state("other")
        with pytest.raises(AlreadyExistsError):
            await shim.client.create(request, timeout=5)
        await shim.run("third", *SLEEP)
        for container in ("third", BOX):
            await shim.remove(container)
        nursery.cancel_scope.cancel()  # the client is killed
    os.kill(shim.pid, signal.SIGTERM)
    await shim.wait_ended(within=8)


async def create_on_its_own(shim: Shim, request: api.CreateTaskRequest) -> None:
    async with connect(shim.address) as client:
        await client.create(request)


async def test_a_killed_runtime_is_a_failed_create(shim: Shim) -> None:
    """The OOM killer may take runc: Create says so, and nothing is left of it."""
    options = shim.world.runc('case "$*" in *" create "*) kill -9 $$;; esac; real "$@"')
    with pytest.raises(StatusError, match=r"exit status 137 \(SIGKILL\)"):
        await shim.create("other", options=options)
