"""One shim, every containerd: 1.7 and 2.1 are served as Debian 12's 1.6 is.

Most promises stand in test_ctr.py and test_restart.py; here they are kept again, by the same
functions, with `daemon` and `own_daemon` of another release.  Those of this file are about what
is new in a release.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf.message import Message

from trioshim.proto import events_pb2
from trioshim.testing import check_event_order

from . import test_ctr, test_restart
from .conftest import lend, our_runtime, running
from .daemon import Daemon
from .events import Event
from .images import IMAGE
from .kept_everywhere import *  # noqa: F403 (as tests of this module)
from .releases import SUITES, ReleasedDaemon, programs_of
from .requirements import TRIO
from .terminal import open_terminal

# Beside those of `kept_everywhere`.
test_rootfs = test_ctr.test_run_on_a_plain_rootfs
test_detached = test_ctr.test_detached_run_kill_and_remove
test_kill_all = test_ctr.test_kill_all_reaches_every_process
test_attach = test_ctr.test_attach_sees_the_output_of_a_detached_container
test_killed_both = test_restart.test_a_shim_killed_while_containerd_is_down


runtime = our_runtime  # what the Go shim does is known from the machine's own containerd


@pytest.fixture(scope="module", params=SUITES)
def programs(request: pytest.FixtureRequest, machine: None, give_up: Callable[[str], None]) -> Path:
    return programs_of(request.param, give_up)


@pytest.fixture(scope="module")
def shared_daemon(programs: Path, image_tar: Path) -> Iterator[Daemon]:
    with running(ReleasedDaemon(programs), image_tar) as daemon:
        yield daemon


@pytest.fixture
def own_daemon(programs: Path, image_tar: Path) -> Iterator[Daemon]:
    yield from lend(ReleasedDaemon(programs, debug=True), image_tar)


def test_terminal(daemon: ReleasedDaemon) -> None:
    """`ctr run -t` gives a terminal of the caller's size, and the shell's status."""
    container = daemon.new_id("tty")
    argv = daemon.ctr_argv("run", "--rm", "-t", "--runtime", TRIO, IMAGE, container, "sh")

    with open_terminal(argv, rows=33, columns=101) as terminal:
        test_ctr.ask_until(terminal, (33, 101))
        terminal.type("exit 7\n")
        assert terminal.wait() == 7

    assert daemon.events.whole_story(container) == test_ctr.LIFE


def test_missed_exit(own_daemon: ReleasedDaemon, runtime: str) -> None:
    """The container ends while nobody listens; its task and its status are kept for the daemon."""
    test_restart.test_an_exit_while_containerd_is_down_is_not_lost(own_daemon, runtime)


def test_the_daemon_keeps_the_address_in_its_own_file(daemon: ReleasedDaemon) -> None:
    """2.x writes bootstrap.json from what `start` said; 1.7 has the shim's `address` alone."""
    container = daemon.run_detached(TRIO)

    address = (daemon.bundle(container) / "address").read_text("utf-8")
    bootstrap = daemon.bundle(container) / "bootstrap.json"

    assert bootstrap.exists() == (daemon.major >= 2)
    if bootstrap.exists():
        said = json.loads(bootstrap.read_text("utf-8"))
        assert said == {"version": 2, "address": address, "protocol": "ttrpc"}


def test_the_runtime_tells_of_itself(daemon: ReleasedDaemon) -> None:
    """2.x asks the shim with `-info` for its name and for what its runc can do."""
    if daemon.major < 2:
        pytest.skip("containerd 1.7 does not ask")

    told = json.loads(daemon.ctr("plugins", "inspect-runtime", "--runtime", TRIO).stdout)

    assert told["Name"] == TRIO
    assert "createRuntime" in told["Features"]["hooks"]


def test_the_laws_hold_for_what_a_client_sees(daemon: ReleasedDaemon) -> None:
    """The laws that the simulated shim keeps are kept in containerd's own stream of events."""
    container = daemon.run_detached(TRIO)
    daemon.ctr("task", "exec", "--exec-id", "short", container, "true")
    daemon.ctr("task", "exec", "--detach", "--exec-id", "long", container, "sleep", "1000")
    daemon.ctr("task", "pause", container)
    daemon.ctr("task", "resume", container)
    daemon.ctr("task", "kill", "--signal", "KILL", container)
    daemon.events.wait_for(container, "exit")
    daemon.ctr("task", "rm", container)
    daemon.events.wait_for(container, "delete")

    stream = [message(event) for event in daemon.events.of(container)]

    assert len(stream) == 12
    check_event_order(stream)


MESSAGES: dict[str, type[Message]] = {
    "create": events_pb2.TaskCreate,
    "start": events_pb2.TaskStart,
    "exec-added": events_pb2.TaskExecAdded,
    "exec-started": events_pb2.TaskExecStarted,
    "paused": events_pb2.TaskPaused,
    "resumed": events_pb2.TaskResumed,
    "exit": events_pb2.TaskExit,
    "delete": events_pb2.TaskDelete,
}


def message(event: Event) -> Message:
    """The event as the shim sent it, as far as the laws look at it."""
    kind = MESSAGES[event.topic.rpartition("/")[2]]
    names = {"container_id", "exec_id", "id", "pid"} & event.body.keys()
    return kind(**{name: event.body[name] for name in names})
