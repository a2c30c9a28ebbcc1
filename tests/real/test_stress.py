"""Many short processes, eight at a time: every exit once, after its start, with its own status.

TRIOSHIM_STRESS=0.1 does a tenth of the work; CI does all of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from .daemon import Daemon
from .images import IMAGE

SHARE = float(os.environ.get("TRIOSHIM_STRESS", "1"))
CONTAINERS = max(1, round(200 * SHARE))
EXECS = max(1, round(500 * SHARE))
OWN_STATUS = max(1, round(100 * SHARE))


def eight_at_a_time(work: Callable[[str], object], names: Iterable[str]) -> None:
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(work, names):
            pass


def test_many_containers_that_end_at_once(daemon: Daemon, runtime: str) -> None:
    """Each of 200 containers has its whole story in order, and status 0."""
    names = [daemon.new_id("short") for _ in range(CONTAINERS)]

    eight_at_a_time(
        lambda name: daemon.ctr("run", "--rm", "--runtime", runtime, IMAGE, name, "true"), names
    )

    stories = {name: daemon.events.whole_story(name) for name in names}
    assert stories == {name: ["create", "start", "exit", "delete"] for name in names}
    statuses = {name: daemon.events.wait_for(name, "exit").status for name in names}
    assert statuses == dict.fromkeys(names, 0)


def test_many_execs_that_end_at_once(daemon: Daemon, runtime: str) -> None:
    """Each of 500 execs in one container is added, started and ended, in this order."""
    container = daemon.run_detached(runtime)
    names = [f"true-{number}" for number in range(EXECS)]

    eight_at_a_time(
        lambda name: daemon.ctr("task", "exec", "--exec-id", name, container, "true"), names
    )

    assert stories_of_execs(daemon, container, names) == {
        name: ["exec-added", "exec-started", "exit"] for name in names
    }
    statuses = {event.exec: event.status for event in daemon.events.of(container) if event.exec}
    assert statuses == dict.fromkeys(names, 0)


def test_each_exec_gets_its_own_status(daemon: Daemon, runtime: str) -> None:
    """No status is given to the wrong process: each ends with one that only it has."""
    container = daemon.run_detached(runtime)
    wanted = {f"own-{number}": number % 255 + 1 for number in range(OWN_STATUS)}

    def run(name: str) -> None:
        script = f"exit {wanted[name]}"
        argv = ("task", "exec", "--exec-id", name, container, "sh", "-c", script)
        daemon.ctr(*argv, status=wanted[name])

    eight_at_a_time(run, wanted)

    told = {name: daemon.events.wait_for(container, f"exit:{name}").status for name in wanted}
    assert told == wanted


def stories_of_execs(daemon: Daemon, container: str, names: list[str]) -> dict[str, list[str]]:
    for name in names:
        daemon.events.wait_for(container, f"exit:{name}")
    stories: dict[str, list[str]] = {name: [] for name in names}
    for event in daemon.events.of(container):
        if event.exec:
            stories[event.exec].append(event.topic.rpartition("/")[2])
    return stories
