"""containerd's events as a client sees them, in the order in which they came.

`ctr events` is the witness: it knows nothing of this project.  A container's *story* is the list
of what happened to it, one word each: `create`, `start`, `exit`, `delete`, `oom`, `paused`, ...;
what happened to an exec has its id behind a colon: `exec-started:id`, `exit:id`.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_LINE = re.compile(r"\S+ \S+ \S+ \S+ (?P<namespace>\S+) (?P<topic>/\S+) (?P<body>\{.*\})\s*$")
_ORDER = ("create", "start", "exit", "delete")
_EXEC_ORDER = ("exec-added", "exec-started", "exit")


@dataclass(frozen=True, slots=True)
class Event:
    """One line of `ctr events`."""

    namespace: str
    topic: str
    body: Mapping[str, Any]

    @property
    def container(self) -> str:
        own = "id" if self.topic.startswith("/containers/") else "container_id"
        return str(self.body.get(own, ""))

    @property
    def exec(self) -> str:
        """The exec it is about; "" for init and for the container."""
        process = str(self.body.get("exec_id") or self.body.get("id") or "")
        return "" if process == self.container else process

    @property
    def word(self) -> str:
        verb = self.topic.rpartition("/")[2]
        return f"{verb}:{self.exec}" if self.exec else verb

    @property
    def status(self) -> int:
        """The exit status; zero is left out of the text."""
        return int(self.body.get("exit_status", 0))


def parse(line: str) -> Event | None:
    """The event in a line of `ctr events`; None if that is not one."""
    match = _LINE.match(line)
    if match is None:
        return None
    return Event(match["namespace"], match["topic"], json.loads(match["body"]))


def broken_laws(story: list[str]) -> list[str]:
    """What is wrong with a whole story: a word too often, too late, or without the one before."""
    wrong = []
    execs = {word.partition(":")[2] for word in story if ":" in word}
    for suffix, order in (("", _ORDER), *((f":{exec_id}", _EXEC_ORDER) for exec_id in execs)):
        expected = [word + suffix for word in order if word + suffix in story]
        actual = [word for word in story if word in expected]
        if actual != expected:
            wrong.append(f"{actual} should be {expected}")
    late = story[story.index("exit") + 1 :] if "exit" in story else []
    wrong += [f"{word} after init's exit" for word in late if word != "delete"]
    return wrong


class EventStream:
    """Everything that `ctr events` prints, from `open` to `close`; may be opened again."""

    def __init__(self, argv: list[str], touch: Callable[[str], object]) -> None:
        """`touch(mark)` makes the daemon send an event that has `mark` in its text."""
        self._argv = argv
        self._touch = touch
        self._changed = threading.Condition()
        self._seen: list[Event] = []
        self._marks = 0
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def open(self) -> None:
        """Subscribe; on return nothing that happens from now on is missed."""
        self._process = subprocess.Popen(
            self._argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # a Ctrl-C is for pytest alone
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        # ctr does not say when it has subscribed, so the first marks may go unheard.
        for _ in range(100):
            if self._mark_arrives(within=0.1):
                return
        raise TimeoutError(f"no event arrives at {self._argv}")

    def close(self) -> None:
        if self._process is None or self._reader is None:
            return
        self._process.terminate()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = self._reader = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def flush(self) -> None:
        """Return when all that the daemon had received by now has been read."""
        if not self._mark_arrives(within=15.0):
            raise TimeoutError("the mark that was sent to flush the events never came")

    def of(self, container: str) -> list[Event]:
        with self._changed:
            return [
                event
                for event in self._seen
                if event.container == container and event.topic.startswith("/tasks/")
            ]

    def story(self, container: str) -> list[str]:
        return [event.word for event in self.of(container)]

    def containers(self) -> set[str]:
        with self._changed:
            return {event.container for event in self._seen if event.container}

    def wait_for(self, container: str, word: str, *, within: float = 20.0) -> Event:
        """The first event of this container with this word, now or when it comes."""

        def first() -> Event | None:
            return next((event for event in self.of(container) if event.word == word), None)

        with self._changed:
            found = self._changed.wait_for(first, within)
        assert found, f"no {word} of {container} came; its story: {self.story(container)}"
        return found

    def whole_story(self, container: str) -> list[str]:
        """The story of a container, once it has been deleted."""
        self.wait_for(container, "delete")
        return self.story(container)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if event := parse(line):
                with self._changed:
                    self._seen.append(event)
                    self._changed.notify_all()

    def _mark_arrives(self, *, within: float) -> bool:
        self._marks += 1
        mark = f"mark-{self._marks}"
        self._touch(mark)
        with self._changed:
            return self._changed.wait_for(
                lambda: any(mark in event.body.get("labels", {}).values() for event in self._seen),
                within,
            )
