"""`start` for a group, whatever happens at the same time: a shim is where its answer says."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from tests.unit.bootstrap_world import params
from trioshim.bootstrap._group import ANNOTATIONS
from trioshim.client import TaskClient, connect
from trioshim.client._shim_answer import Answer, read_answer
from trioshim.errors import InvalidArgumentError, NotFoundError, UnavailableError
from trioshim.proto import task_v2_pb2 as api

from .requirements import TRIO, missing_from_machine, missing_shim
from .shim_parts import until
from .shim_world import Shim, ShimWorld, open_shim_world
from .template_world import was_forked
from .verb_world import ID, NS, ask, open_world

reason = missing_from_machine() or missing_shim(TRIO)
pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(reason), reason=reason)]

FIRST, SECOND = "first", "second"


@pytest.fixture
async def pods(rootfs: Path) -> AsyncIterator[ShimWorld]:
    """A world whose containers are all of one group."""
    async with open_shim_world(rootfs) as world:
        yield world


def make_member(world: ShimWorld, container: str) -> Path:
    """A bundle that says which group it is of."""
    bundle = world.make_bundle(container, "sleep", "1000")
    config = json.loads((bundle / "config.json").read_text())
    config["annotations"] = {ANNOTATIONS[0]: "pod"}
    (bundle / "config.json").write_text(json.dumps(config))
    return bundle


async def start_first(world: ShimWorld) -> Shim:
    make_member(world, FIRST)
    return await world.start(FIRST)


async def answer(world: ShimWorld, container: str) -> str:
    """What `start` says for a member."""
    if not (world.base / container).exists():
        make_member(world, container)
    return (await world.verb("start", container)).stdout.decode()


async def is_served(address: str, container: str) -> int:
    """Send its Create, which is refused without trouble for anybody; the pid of the shim."""
    async with connect(address) as client:
        with pytest.raises(InvalidArgumentError):
            await client.create(api.CreateTaskRequest(id=container, bundle="relative"))
        return (await client.connect(api.ConnectRequest(id=container))).shim_pid


async def leave(address: str, pause: float) -> None:
    """Shutdown, some time from now."""
    async with connect(address) as client:
        await trio.sleep(pause)
        await shut_down(client, "whoever")


async def shut_down(client: TaskClient, container: str) -> None:
    with suppress(UnavailableError):  # as good as an answer
        await client.shutdown(api.ShutdownRequest(id=container))


@pytest.mark.parametrize("template", ["on", "off"])
async def test_two_of_a_group(
    pods: ShimWorld, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second `start` makes no server; the verb `delete` removes one and no more."""
    monkeypatch.setenv("TRIOSHIM_TEMPLATE", template)
    shim = await start_first(pods)
    if template == "off":
        assert not was_forked(shim.pid)
    await shim.run(FIRST)
    assert await answer(pods, SECOND) == shim.address
    bundle = pods.base / SECOND
    assert (bundle / "address").read_text() == shim.address
    assert int((bundle / "shim.pid").read_text()) == shim.pid
    await shim.run(SECOND, bundle=bundle)

    assert (await pods.verb("delete", SECOND)).returncode == 0

    assert await shim.wait(SECOND) == 137
    assert (await shim.state(FIRST)).exit_status == 0
    assert len(list(pods.sockets.glob("*"))) == 1
    assert await answer(pods, SECOND) == shim.address
    await shim.remove(SECOND)
    assert await is_served(shim.address, SECOND) == shim.pid  # who has joined must have come


async def test_twenty_starts_make_one_server(pods: ShimWorld) -> None:
    """Whoever is first makes it; all have its address, and each is served there."""
    names = [f"c{number}" for number in range(20)]
    for name in names:
        make_member(pods, name)
    answers: dict[str, str] = {}

    async def run_start(name: str) -> None:
        answers[name] = await answer(pods, name)

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(run_start, name)
    pids = {await is_served(answers[name], name) for name in names}
    assert len(set(answers.values())) == len(pids) == 1
    async with connect(answers["c0"]) as client:
        await shut_down(client, "c0")


async def test_who_joins_while_the_last_one_goes(pods: ShimWorld) -> None:
    """200 times at random moments: served by the shim that goes on, or by a new one."""
    draw = random.Random(7)
    pids = []
    address, goes, comes = await answer(pods, FIRST), FIRST, SECOND
    for _ in range(200):
        pids.append(await is_served(address, goes))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave, address, draw.uniform(0, 0.04))
            address = await answer(pods, comes)
        goes, comes = comes, goes
    pids.append(await is_served(address, goes))
    await leave(address, 0)
    assert 1 < len(set(pids)) < len(pids), "always the start, or never, was the quicker one"


async def test_who_joins_while_the_shim_is_told_to_end(pods: ShimWorld) -> None:
    """SIGTERM is obeyed; `start` sees that and makes another one."""
    make_member(pods, SECOND)
    for _ in range(10):
        shim = int(await is_served(await answer(pods, FIRST), FIRST))
        os.kill(shim, signal.SIGTERM)
        assert await is_served(await answer(pods, SECOND), SECOND) != shim
        pid = int((pods.base / SECOND / "shim.pid").read_text())
        async with ending(pid):
            os.kill(pid, signal.SIGTERM)


@asynccontextmanager
async def ending(pid: int) -> AsyncIterator[None]:
    """The block begins the end of a process; then it is waited for."""
    ended = os.pidfd_open(pid)
    try:
        yield
        with trio.fail_after(15):
            await trio.lowlevel.wait_readable(ended)
    finally:
        os.close(ended)


async def test_the_first_bundle_may_go(pods: ShimWorld) -> None:
    """The log and tasks.txt go on in a bundle that is there."""
    shim = await start_first(pods)
    await shim.run(FIRST)
    await answer(pods, SECOND)
    bundle = pods.base / SECOND
    os.mkfifo(bundle / "log")
    await shim.run(SECOND, bundle=bundle)
    await shim.remove(FIRST)
    await until(lambda: os.readlink(f"/proc/{shim.pid}/cwd") == str(bundle), "the shim to move")
    await trio.to_thread.run_sync(shutil.rmtree, shim.bundle)
    assert shim.log is not None
    os.close(shim.log)
    shim.log = os.open(bundle / "log", os.O_RDONLY | os.O_NONBLOCK)

    os.kill(shim.pid, signal.SIGUSR1)

    await until((bundle / "tasks.txt").exists, "the tree of tasks")
    await until(lambda: "tasks:" in shim.said(), "the log")
    await shim.exec(SECOND, "e", "true")
    await shim.start(SECOND, "e")
    assert await shim.wait(SECOND, "e") == 0
    await shim.delete(SECOND, "e")


async def test_without_any_bundle_it_goes_on(pods: ShimWorld) -> None:
    """All bundles are gone and somebody is expected: a question is no failure."""
    shim = await start_first(pods)
    make_member(pods, SECOND)
    await answer(pods, SECOND)
    await trio.to_thread.run_sync(shutil.rmtree, shim.bundle)
    os.kill(shim.pid, signal.SIGUSR1)
    await until(lambda: "cannot write tasks.txt" in shim.said(), "the complaint")
    for container in (FIRST, SECOND):
        assert await is_served(shim.address, container) == shim.pid


async def test_a_socket_of_another_is_not_removed(pods: ShimWorld) -> None:
    """Somebody has removed the socket, and another shim is there: the old one ends by itself."""
    old = await start_first(pods)
    os.unlink(old.address.removeprefix("unix://"))
    address = await answer(pods, SECOND)
    assert address == old.address
    new = int((pods.base / SECOND / "shim.pid").read_text())
    with pytest.raises(InvalidArgumentError):
        await old.client.create(api.CreateTaskRequest(id=FIRST, bundle="relative"))
    await shut_down(old.client, FIRST)
    await old.wait_ended()
    assert await is_served(address, SECOND) == new
    async with connect(address) as client:
        with pytest.raises(NotFoundError):
            await client.state(api.StateRequest(id=SECOND))
        await shut_down(client, SECOND)


@pytest.mark.parametrize(("version", "announced"), [("2.3.4", 2), ("2.4.0-rc.1", 3)])
def test_what_is_announced(tmp_path: Path, version: str, announced: int) -> None:
    """Version 3 to who can have it; the bundle's file is for any daemon that comes later."""
    told = params(instance_id=ID, namespace=NS, containerd_version=version, socket_dir="")
    with open_world(tmp_path) as world:
        bundle = world.bundle()
        (bundle / "config.json").write_text(json.dumps({"annotations": {ANNOTATIONS[2]: "pod"}}))
        done = world.run("start", bundle=bundle, stdin=told)
        (path,) = world.sockets.iterdir()
        assert (bundle / "address").read_text() == f"unix://{path}"
        assert ask(path)["argv"][-2:] == ["-group", "pod"]
        assert read_answer(done.stdout) == Answer(f"unix://{path}", version=announced)
        assert path != world.path()


def test_a_wrong_annotation_leaves_nothing(tmp_path: Path) -> None:
    """`start` says what is wrong, in one line, and has made neither server nor socket."""
    with open_world(tmp_path) as world:
        bundle = world.bundle()
        (bundle / "config.json").write_text(json.dumps({"annotations": {ANNOTATIONS[2]: "../x"}}))
        done = world.run("start", bundle=bundle)
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.startswith(b"containerd-shim-trio-v1: annotation io.kubernetes.cri.")
        assert done.stderr.count(b"\n") == 1
        assert sorted(path.name for path in bundle.iterdir()) == ["config.json", "rootfs"]
        assert not world.sockets.exists()
        assert world.run("start", bundle=bundle, TRIOSHIM_GROUP="off").returncode == 0


@asynccontextmanager
async def stopped(pid: int) -> AsyncIterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_shim_that_hangs_for_a_while_is_waited_for(pods: ShimWorld) -> None:
    """It has no time for anybody, and `start` says its address when it has."""
    shim = await start_first(pods)
    said: list[str] = []
    make_member(pods, SECOND)

    async def come() -> None:
        said.append(await answer(pods, SECOND))

    async with trio.open_nursery() as nursery, stopped(shim.pid):
        nursery.start_soon(come)
        lock = Path(f"{shim.address.removeprefix('unix://')}.lock")
        await until(lock.exists, "the lock")
        assert said == []
    assert said == [shim.address]
    for container in (FIRST, SECOND):
        assert await is_served(shim.address, container) == shim.pid
