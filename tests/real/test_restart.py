"""SIGKILL for containerd, for the shim, for both: the end is told and nothing is left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from . import leaks
from .daemon import OBEDIENT, Daemon
from .poll import eventually
from .requirements import GO, ours_only


def test_a_container_outlives_containerd(own_daemon: Daemon, runtime: str) -> None:
    """After kill -9 and a restart the container runs, under the same shim, and obeys."""
    container = own_daemon.run_detached(runtime, *OBEDIENT)
    before = (own_daemon.init_pid(container), own_daemon.shim_pid(container))

    own_daemon.restart()

    assert own_daemon.status(container) == "RUNNING"
    assert (own_daemon.init_pid(container), own_daemon.shim_pid(container)) == before
    done = own_daemon.ctr("task", "exec", "--exec-id", "one", container, "echo", "still here")
    assert done.stdout == "still here\n"
    own_daemon.ctr("task", "pause", container)
    own_daemon.ctr("task", "resume", container)
    own_daemon.ctr("task", "kill", container)
    assert own_daemon.events.wait_for(container, "exit").status == 42
    own_daemon.ctr("task", "rm", container)
    assert own_daemon.events.whole_story(container)[-2:] == ["exit", "delete"]


def test_an_exit_while_containerd_is_down_is_not_lost(own_daemon: Daemon, runtime: str) -> None:
    """The container ends while nobody listens; the status is there when containerd comes back."""
    container = own_daemon.run_detached(runtime, *OBEDIENT)
    init = own_daemon.init_pid(container)

    own_daemon.kill()
    os.kill(init, signal.SIGTERM)
    wait_for_end(init)
    own_daemon.start()

    assert own_daemon.status(container) == "STOPPED"
    own_daemon.ctr("task", "rm", container)
    assert own_daemon.events.wait_for(container, "delete").status == 42
    # The exit may come before we listen again, so containerd's own log is the witness.
    if runtime != GO:  # it would try again after a second, but ends with the delete and forgets
        expected = ["create", "start", "exit", "delete"]
        eventually(lambda: own_daemon.forwarded() == expected, "the exit and the delete")


def test_containerd_reports_the_end_of_a_killed_shim(daemon: Daemon, runtime: str) -> None:
    """After kill -9 of the shim the container is killed, its end is told, its task is gone."""
    container = daemon.run_detached(runtime)
    daemon.ctr("task", "exec", "--detach", "--exec-id", "one", container, "sleep", "1000")
    init = daemon.init_pid(container)

    os.kill(daemon.shim_pid(container), signal.SIGKILL)

    assert daemon.events.wait_for(container, "exit").status == 137
    assert daemon.events.wait_for(container, "delete").status == 137
    wait_for_end(init)
    wait_until_gone(daemon, container, runtime)


def test_a_shim_killed_while_containerd_is_down(own_daemon: Daemon, runtime: str) -> None:
    """containerd finds the remains when it comes back, and clears them away."""
    container = own_daemon.run_detached(runtime)
    init, shim = own_daemon.init_pid(container), own_daemon.shim_pid(container)

    own_daemon.kill()
    os.kill(shim, signal.SIGKILL)
    wait_for_end(shim)
    own_daemon.start()

    wait_for_end(init)
    wait_until_gone(own_daemon, container, runtime)


@ours_only  # the Go shim answers 137 whatever happened
def test_delete_knows_the_status_after_the_shim_was_killed(daemon: Daemon, runtime: str) -> None:
    """The container had ended with 42 before its shim was killed: 42 it is, not 137."""
    container = daemon.run_detached(runtime, *OBEDIENT)
    daemon.excused.add(container)  # containerd tells the exit a second time, for the shim
    shim = daemon.shim_pid(container)
    daemon.ctr("task", "kill", container)
    first = daemon.events.wait_for(container, "exit")

    os.kill(shim, signal.SIGKILL)

    deleted = daemon.events.wait_for(container, "delete")
    exits = [event for event in daemon.events.of(container) if event.word == "exit"]
    assert [event.status for event in (*exits, deleted)] == [42] * (len(exits) + 1)
    assert deleted.body["exited_at"] == first.body["exited_at"]
    wait_until_gone(daemon, container, runtime)


def wait_until_gone(daemon: Daemon, container: str, runtime: str) -> None:
    eventually(lambda: daemon.status(container) == "", "the task to be gone")
    if runtime == GO:  # its `delete` leaves the socket of a killed shim lying about
        leaks.socket_of(daemon.address, daemon.namespace, container).unlink(missing_ok=True)


def wait_for_end(pid: int) -> None:
    eventually(lambda: has_ended(pid), f"the end of process {pid}")


def has_ended(pid: int) -> bool:
    """A zombie has ended: the machine's own init may take seconds to collect it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in {"Z", "X"}
