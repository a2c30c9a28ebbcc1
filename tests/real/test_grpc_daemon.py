"""containerd 1.7 speaks gRPC to our shim, where that was asked for.

TRIOSHIM_PROTOCOL=grpc is in the daemon's environment here.  The promises are those of test_ctr.py
and test_restart.py, kept by the same functions as over ttrpc; those of this file are about the
answer of `start`, and about the daemons that have no gRPC for a shim.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from trioshim.client import connect
from trioshim.proto import task_v2_pb2 as api

from . import leaks, test_ctr, verb_world
from .conftest import lend, our_runtime, running
from .daemon import Daemon
from .images import IMAGE
from .kept_everywhere import *  # noqa: F403 (as tests of this module)
from .poll import eventually
from .releases import ReleasedDaemon, programs_of
from .requirements import TRIO, shim_program

VARIABLE = "TRIOSHIM_PROTOCOL"
# Files of the shim that show in the tree of its tasks while a connection is served.
SERVERS = TTRPC, GRPC = "_server.py:", "_grpc.py:"

# Beside those of `kept_everywhere`.
test_terminal = test_ctr.test_exec_in_a_terminal_follows_its_size


runtime = our_runtime  # no other shim can do both


def ask_for(daemon: Daemon, protocol: str) -> Daemon:
    """Before it is started."""
    daemon._environment[VARIABLE] = protocol
    return daemon


@pytest.fixture(scope="module")
def programs(machine: None, give_up: Callable[[str], None]) -> Path:
    """The one containerd that can do it."""
    return programs_of("trixie", give_up)


@pytest.fixture(scope="module")
def shared_daemon(programs: Path, image_tar: Path) -> Iterator[Daemon]:
    with running(ask_for(ReleasedDaemon(programs), "grpc"), image_tar) as daemon:
        yield daemon


@pytest.fixture
def own_daemon(programs: Path, image_tar: Path) -> Iterator[Daemon]:
    yield from lend(ask_for(ReleasedDaemon(programs, debug=True), "grpc"), image_tar)


def wires(daemon: Daemon, container: str) -> set[str]:
    """Which of its two servers the shim has at work, by the tree of its tasks."""
    file = daemon.bundle(container) / "tasks.txt"
    file.unlink(missing_ok=True)
    os.kill(daemon.shim_pid(container), signal.SIGUSR1)
    eventually(file.exists, "the tree")
    return {name for name in SERVERS if name in file.read_text("utf-8")}


# ---------------------------------------------------------------- 1.7


def test_it_is_grpc_that_they_speak(own_daemon: Daemon, runtime: str) -> None:
    """By the shim's own tasks, also when containerd has come back and read the bundle."""
    container = own_daemon.run_detached(runtime)
    assert wires(own_daemon, container) == {GRPC}
    said = json.loads((own_daemon.bundle(container) / "address").read_text("utf-8"))
    path = str(leaks.socket_of(own_daemon.address, own_daemon.namespace, container))
    assert said == {"version": 2, "address": path, "protocol": "grpc"}

    own_daemon.restart()

    assert own_daemon.status(container) == "RUNNING"
    assert wires(own_daemon, container) == {GRPC}
    own_daemon.ctr("task", "exec", "--exec-id", "e1", container, "true")
    own_daemon.remove(container)
    own_daemon.events.wait_for(container, "delete")


@pytest.mark.parametrize("protocol", ["", "ttrpc"])
def test_who_does_not_ask_gets_ttrpc(
    programs: Path, image_tar: Path, runtime: str, protocol: str
) -> None:
    """The same containerd: an address and nothing else, and ttrpc behind it."""
    for daemon in lend(ask_for(ReleasedDaemon(programs), protocol), image_tar):
        container = daemon.run_detached(runtime)
        path = leaks.socket_of(daemon.address, daemon.namespace, container)
        assert (daemon.bundle(container) / "address").read_text("utf-8") == f"unix://{path}"
        assert wires(daemon, container) == {TTRPC}


def test_one_runtime_alone_can_be_asked(programs: Path, image_tar: Path, tmp_path: Path) -> None:
    """The script of docs/operations.md in front of the shim: the other runtime has ttrpc."""
    script = tmp_path / "containerd-shim-triogrpc-v1"
    script.write_text(f'#!/bin/sh\n{VARIABLE}=grpc exec {shim_program(TRIO)} "$@"\n', "utf-8")
    script.chmod(0o755)
    released = ReleasedDaemon(programs)
    released._environment["PATH"] += f":{tmp_path}"
    for daemon in lend(released, image_tar):
        runtimes = TRIO, "io.containerd.triogrpc.v1"
        containers = [daemon.run_detached(runtime) for runtime in runtimes]
        assert [wires(daemon, container) for container in containers] == [{TTRPC}, {GRPC}]


# ---------------------------------------------------------------- the others


def refusal(daemon: Daemon, runtime: str) -> str:
    """What a client is told instead of getting a container."""
    return daemon.ctr("run", "--runtime", runtime, IMAGE, "refused", "true", status=1).stderr


def test_a_protocol_that_is_none_is_refused(image_tar: Path, runtime: str) -> None:
    """The client reads which variable is wrong, and what it may say; nothing is left."""
    for daemon in lend(ask_for(Daemon(), "http"), image_tar):
        said = refusal(daemon, runtime)
        assert "TRIOSHIM_PROTOCOL='http' is not known: choose ttrpc or grpc" in said


def test_an_older_daemon_is_told_apart(image_tar: Path, runtime: str) -> None:
    """1.6 would take the answer for the name of a socket."""
    for daemon in lend(ask_for(Daemon(), "grpc"), image_tar):
        assert "works with containerd 1.7 only, and this one is older" in refusal(daemon, runtime)


async def shut_down(path: Path) -> None:
    async with connect(str(path)) as client:
        await client.shutdown(api.ShutdownRequest(id="refused"), timeout=10)


def can_list(daemon: Daemon) -> bool:
    """A daemon that has a shim which it refuses cannot even list its tasks."""
    return daemon.ctr("task", "ls", status=None).returncode == 0


def test_a_newer_daemon_refuses_by_itself(
    machine: None, give_up: Callable[[str], None], image_tar: Path, runtime: str
) -> None:
    """2.1 cannot be told from 1.7 in time; its shim would end after a minute without a client."""
    newer = ReleasedDaemon(programs_of("forky", give_up))
    for daemon in lend(ask_for(newer, "grpc"), image_tar):
        assert "supports only v3 GRPC task service (got 2)" in refusal(daemon, runtime)
        trio.run(shut_down, leaks.socket_of(daemon.address, daemon.namespace, "refused"))
        eventually(partial(can_list, daemon), "the daemon to notice")


# ---------------------------------------------------------------- the verbs


@pytest.fixture
def world(tmp_path: Path) -> Iterator[verb_world.World]:
    with verb_world.open_world(tmp_path) as world:
        yield world


def test_a_second_start_gives_the_same_answer(machine: None, world: verb_world.World) -> None:
    """Also one that was asked otherwise finds the same server: it speaks both."""
    bundles = [world.bundle(name) for name in ("one", "two", "three")]
    answers = [
        world.run("start", bundle=bundle, GRPC_ADDRESS=verb_world.A, TRIOSHIM_PROTOCOL=protocol)
        for bundle, protocol in zip(bundles, ("grpc", "grpc", "ttrpc"), strict=True)
    ]
    said = [answer.stdout for answer in answers]
    assert said == [(bundle / "address").read_bytes() for bundle in bundles]
    assert said[0] == said[1]
    assert json.loads(said[0])["address"] == str(world.path())
    assert said[2] == f"unix://{world.path()}".encode()
    assert [(bundle / "shim.pid").exists() for bundle in bundles] == [True, False, False]


def test_delete_finds_the_socket(machine: None, world: verb_world.World) -> None:
    """The one that a killed shim has left, by what stands in the bundle."""
    bundle = world.bundle()
    world.run("start", bundle=bundle, GRPC_ADDRESS=verb_world.A, TRIOSHIM_PROTOCOL="grpc")
    verb_world.fake_runc(world, bundle)
    verb_world.end_server(bundle)
    assert world.path().exists()
    verb_world.answer(world.run("delete", bundle=bundle))
    assert not world.path().exists()
