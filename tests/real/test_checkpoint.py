"""Checkpoint and restore, with a criu that works on this kernel (scripts/criu-setup).

In `criu_daemon` the Go shim's name, too, stands for the runtime under test: for any other name
ctr leaves out `--exit` and containerd ignores `--image-path`.
"""

from __future__ import annotations

from pathlib import Path

from .daemon import Daemon
from .poll import eventually
from .requirements import GO

# Only a memory that was restored knows the token: it is made once, at the start.
PROGRAM = """
token=$(cat /proc/sys/kernel/random/uuid)
trap 'exit 42' TERM
while :; do echo "$token" > /token; sleep 0.1; done
"""


def test_checkpoint_and_restore(criu_daemon: Daemon, runtime: str) -> None:
    """A container goes on after its checkpoint; a second one goes on from there, and obeys."""
    first = criu_daemon.run_detached(runtime, "sh", "-c", PROGRAM)
    token = read_token(criu_daemon, first)

    image = f"trioshim.test/checkpoint:{first}"
    criu_daemon.ctr("container", "checkpoint", "--task", "--image", "--rw", first, image)
    assert criu_daemon.status(first) == "RUNNING"
    criu_daemon.remove(first)

    second = criu_daemon.new_id("restored")
    criu_daemon.ctr("container", "restore", "--live", "--rw", second, image)
    assert criu_daemon.status(second) == "RUNNING"
    assert read_token(criu_daemon, second) == token
    criu_daemon.ctr("task", "kill", second)
    assert criu_daemon.events.wait_for(second, "exit").status == 42
    criu_daemon.ctr("task", "rm", second)
    lasting = [word for word in criu_daemon.events.whole_story(second) if ":" not in word]
    assert lasting == ["create", "start", "exit", "delete"]


def test_checkpoint_can_be_the_end(criu_daemon: Daemon, tmp_path: Path) -> None:
    """`task checkpoint --exit` leaves a dump and a container that has ended."""
    container = criu_daemon.run_detached(GO, "sh", "-c", PROGRAM)
    read_token(criu_daemon, container)

    target = tmp_path / "dump"
    criu_daemon.ctr("task", "checkpoint", "--exit", "--image-path", str(target), container)

    criu_daemon.events.wait_for(container, "exit")
    assert (target / "inventory.img").exists()
    eventually(lambda: criu_daemon.status(container) == "STOPPED", "the task to be stopped")
    criu_daemon.ctr("task", "rm", container)
    assert criu_daemon.events.whole_story(container)[-2:] == ["exit", "delete"]


def test_a_checkpoint_that_fails_ends_nothing(criu_daemon: Daemon) -> None:
    """A dump that cannot be written: the caller hears why, and the container runs on."""
    container = criu_daemon.run_detached(GO)
    target = "/proc/none"

    done = criu_daemon.ctr("task", "checkpoint", "--image-path", target, container, status=1)

    assert f"mkdir {target}" in done.stderr
    assert criu_daemon.status(container) == "RUNNING"


def read_token(daemon: Daemon, container: str) -> str:
    """What the program has written, once it has."""

    def look() -> str:
        exec_id = daemon.new_id("read")
        argv = ("task", "exec", "--exec-id", exec_id, container, "cat", "/token")
        return daemon.ctr(*argv, status=None).stdout.strip()

    return eventually(look, "the token")
