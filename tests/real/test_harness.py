"""The instruments of this suite see what they are there to see."""

from __future__ import annotations

import pytest

from .daemon import Daemon, watch
from .events import broken_laws, parse

LIFE = ["create", "start", "exit", "delete"]


def test_the_leak_checker_sees_all_of_a_container(daemon: Daemon, runtime: str) -> None:
    """While a container runs, every kind of trace that it makes is reported."""
    left = watch(daemon)
    container = daemon.run_detached(runtime)

    kinds = {trace.split()[0] for trace in left()}

    assert kinds == {"process", "mount", "cgroup", "socket", "runc", "bundle"}
    daemon.remove(container)


@pytest.mark.parametrize(
    "story",
    [
        ["create", "exit", "start", "delete"],
        ["create", "start", "exit", "exit", "delete"],
        ["create", "start", "delete", "exit"],
        ["create", "start", "exec-added:a", "exit:a", "exec-started:a", "exit", "delete"],
        ["create", "start", "exec-added:a", "exec-started:a", "exit", "exit:a", "delete"],
        ["create", "start", "exit", "oom", "delete"],
    ],
)
def test_a_story_out_of_order_is_noticed(story: list[str]) -> None:
    """Each law of the order of events can be broken, and is then named."""
    assert broken_laws(story)


@pytest.mark.parametrize(
    "story",
    [
        LIFE,
        ["create", "exit", "delete"],
        ["create", "start", "exec-added:a", "exec-started:a", "exit:a", "oom", "exit", "delete"],
        ["create", "start", "paused", "resumed"],
    ],
)
def test_a_story_in_order_is_not(story: list[str]) -> None:
    """Neither a container that never started nor one that still runs breaks a law."""
    assert broken_laws(story) == []


def test_a_line_of_ctr_is_read() -> None:
    """Time, namespace, topic and body; anything else is not an event."""
    event = parse(
        "2026-11-21 20:26:33.916 +0000 UTC demo /tasks/exit "
        '{"container_id":"c","id":"e","pid":7,"exit_status":42}\n'
    )

    assert event is not None
    assert (event.namespace, event.word, event.status) == ("demo", "exit:e", 42)
    assert parse("time=... level=warning msg=DEPRECATION\n") is None
