"""Several containers in one shim, under a real containerd: each lives and dies on its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trioshim.bootstrap._group import ANNOTATIONS

from .conftest import lend, running
from .daemon import OBEDIENT, Daemon
from .poll import eventually
from .releases import SUITES, ReleasedDaemon, programs_of
from .requirements import TRIO, missing_shim
from .test_restart import wait_for_end

LIFE = ["create", "start", "exit", "delete"]
IN_POD = ("--annotation", f"{ANNOTATIONS[0]}=pod")


@pytest.fixture(autouse=True)
def ours(machine: None, give_up: Callable[[str], None]) -> None:
    give_up(missing_shim(TRIO))


def run_pod(daemon: Daemon, count: int, *command: str) -> list[str]:
    """Containers of one group; they are in one shim."""
    pod = [daemon.run_detached(TRIO, *command, flags=IN_POD) for _ in range(count)]
    assert len({daemon.shim_pid(container) for container in pod}) == 1
    return pod


def socket_of(daemon: Daemon, container: str) -> Path:
    text = (daemon.bundle(container) / "address").read_text("utf-8")
    return Path(text.removeprefix("unix://"))


def check_gone(shim: int, socket: Path) -> None:
    """The shim has ended and nobody finds it: `leaks` does not know the sockets of groups."""
    wait_for_end(shim)
    eventually(lambda: not socket.exists(), "the socket to vanish")


@pytest.mark.parametrize("annotation", ANNOTATIONS)
def test_three_containers_of_a_group(daemon: Daemon, annotation: str) -> None:
    """One shim; exec, kill, exit status, events and removal are each one's own."""
    flags = ("--annotation", f"{annotation}=pod")
    pod = [daemon.run_detached(TRIO, *OBEDIENT, flags=flags) for _ in range(3)]
    shim, socket = daemon.shim_pid(pod[0]), socket_of(daemon, pod[0])
    assert {daemon.shim_pid(container) for container in pod} == {shim}
    noted = {(daemon.bundle(container) / "shim.pid").read_text() for container in pod}
    assert noted == {str(shim)}

    for container in pod:
        done = daemon.ctr("task", "exec", "--exec-id", "e", container, "echo", container)
        assert done.stdout == f"{container}\n"
    daemon.ctr("task", "kill", pod[0])
    assert daemon.events.wait_for(pod[0], "exit").status == 42
    daemon.ctr("task", "kill", "--signal", "KILL", pod[1])
    assert daemon.events.wait_for(pod[1], "exit").status == 137
    daemon.remove(pod[0])
    daemon.remove(pod[1])
    assert daemon.status(pod[2]) == "RUNNING"
    assert daemon.shim_pid(pod[2]) == shim
    daemon.remove(pod[2])

    for container in pod:
        story = daemon.events.whole_story(container)
        assert [word for word in story if ":" not in word] == LIFE
    check_gone(shim, socket)


def test_other_groups_have_other_shims(daemon: Daemon) -> None:
    """And so has a container without a group, even if it is called like one."""
    flags = [("--annotation", f"{ANNOTATIONS[0]}={name}") for name in ("box-1", "two")]
    boxes = [daemon.run_detached(TRIO, flags=more) for more in ((), *flags)]
    shims = {daemon.shim_pid(box): socket_of(daemon, box) for box in boxes}
    assert len(shims) == 3
    for box in boxes:
        daemon.remove(box)
    for shim, socket in shims.items():
        check_gone(shim, socket)


def test_a_group_with_a_bad_name(daemon: Daemon) -> None:
    """The user is told what is wrong with it and what to do."""
    flags = ("--annotation", f"{ANNOTATIONS[1]}=../other")
    with pytest.raises(AssertionError, match=f"annotation {ANNOTATIONS[1]}.*TRIOSHIM_GROUP=off"):
        daemon.run_detached(TRIO, flags=flags)


def test_the_pause_container_dies_first(daemon: Daemon) -> None:
    """The others live on, in the same shim, which works in a bundle that is still there."""
    pause, work = run_pod(daemon, 2)
    shim, socket = daemon.shim_pid(pause), socket_of(daemon, pause)

    daemon.ctr("task", "kill", "--signal", "KILL", pause)
    daemon.events.wait_for(pause, "exit")
    daemon.remove(pause)
    eventually(lambda: not daemon.bundle(pause).exists(), "the first bundle to go")

    assert daemon.shim_pid(work) == shim
    assert os.readlink(f"/proc/{shim}/cwd") == str(daemon.bundle(work))
    done = daemon.ctr("task", "exec", "--exec-id", "e", work, "echo", "still here")
    assert done.stdout == "still here\n"
    tree = dumped(daemon, work)
    assert "trioshim" in json.dumps(tree)
    eventually(lambda: "tasks:" in daemon.log_tail(400), "the shim's words in containerd's log")
    late = daemon.run_detached(TRIO, flags=IN_POD)
    assert daemon.shim_pid(late) == shim
    for container in (work, late):
        daemon.remove(container)
    check_gone(shim, socket)


def dumped(daemon: Daemon, container: str) -> object:
    """`trioshim dump` of a container that is not the first of its shim."""
    state = str(daemon.base / "state/io.containerd.runtime.v2.task")
    argv = [sys.executable, "-m", "trioshim.cli", "dump", "--json", "--state-dir", state]
    done = subprocess.run(
        [*argv, "-n", daemon.namespace, container], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_killed_shim_takes_all_and_all_is_told(daemon: Daemon) -> None:
    """One crash domain: each container is killed, told of and cleared away."""
    pod = run_pod(daemon, 3)
    shim, socket = daemon.shim_pid(pod[0]), socket_of(daemon, pod[0])
    inits = [daemon.init_pid(container) for container in pod]

    os.kill(shim, signal.SIGKILL)

    for container in pod:
        assert daemon.events.wait_for(container, "exit").status == 137
        assert daemon.events.wait_for(container, "delete").status == 137
    for init in inits:
        wait_for_end(init)
    eventually(lambda: not daemon.tasks(), "the tasks to be gone")
    check_gone(shim, socket)
    again = daemon.run_detached(TRIO, flags=IN_POD)
    assert daemon.shim_pid(again) != shim
    shim, socket = daemon.shim_pid(again), socket_of(daemon, again)
    daemon.remove(again)
    check_gone(shim, socket)


def test_a_group_outlives_containerd(own_daemon: Daemon) -> None:
    """After kill -9 each of them is found again, and a new one comes to the same shim."""
    pod = run_pod(own_daemon, 3, *OBEDIENT)
    shim, socket = own_daemon.shim_pid(pod[0]), socket_of(own_daemon, pod[0])

    own_daemon.restart()

    assert [own_daemon.status(container) for container in pod] == ["RUNNING"] * 3
    pod.append(own_daemon.run_detached(TRIO, flags=IN_POD))
    assert {own_daemon.shim_pid(container) for container in pod} == {shim}
    own_daemon.ctr("task", "kill", pod[1])
    assert own_daemon.events.wait_for(pod[1], "exit").status == 42
    for container in pod:
        own_daemon.remove(container)
    check_gone(shim, socket)


# ---------------------------------------------------------------- one shim for a namespace


@pytest.fixture
def node_daemon(image_tar: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    monkeypatch.setenv("TRIOSHIM_GROUP", "namespace")
    yield from lend(Daemon(debug=True), image_tar)


def test_one_shim_for_a_namespace(node_daemon: Daemon) -> None:
    """Whatever the annotations say; another namespace has another shim."""
    daemon = node_daemon
    boxes = [daemon.run_detached(TRIO, flags=flags) for flags in ((), IN_POD, ())]
    shim, socket = daemon.shim_pid(boxes[0]), socket_of(daemon, boxes[0])
    assert {daemon.shim_pid(box) for box in boxes} == {shim}
    for box in boxes:
        daemon.remove(box)
        assert daemon.events.whole_story(box) == LIFE
    check_gone(shim, socket)
    again = daemon.run_detached(TRIO)
    assert daemon.shim_pid(again) != shim
    socket = socket_of(daemon, again)
    daemon.remove(again)
    eventually(lambda: not socket.exists(), "the socket to vanish")


@pytest.fixture
def lonely_daemon(image_tar: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    monkeypatch.setenv("TRIOSHIM_GROUP", "off")
    yield from lend(Daemon(), image_tar)


def test_no_groups(lonely_daemon: Daemon) -> None:
    """Each container is alone, whatever its annotations."""
    boxes = [lonely_daemon.run_detached(TRIO, flags=IN_POD) for _ in range(2)]
    assert len({lonely_daemon.shim_pid(box) for box in boxes}) == 2


# ---------------------------------------------------------------- other daemons


@pytest.mark.parametrize("suite", SUITES)
def test_a_group_of_another_containerd(
    suite: str, image_tar: Path, give_up: Callable[[str], None]
) -> None:
    """1.7 and 2.1 cannot be told apart, so they hear version 2; the group is one shim all the same.

    After a restart they look for leaked shims by asking for pids.
    """
    with running(ReleasedDaemon(programs_of(suite, give_up)), image_tar) as daemon:
        pod = run_pod(daemon, 3)
        shim, socket = daemon.shim_pid(pod[0]), socket_of(daemon, pod[0])
        daemon.remove(pod[0])
        daemon.restart()
        assert [daemon.status(container) for container in pod[1:]] == ["RUNNING"] * 2
        for container in pod[1:]:
            daemon.remove(container)
            assert daemon.events.whole_story(container)[-2:] == LIFE[-2:]
        check_gone(shim, socket)
