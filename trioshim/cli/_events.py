"""`trioshim events`: what happens to containers, one line each, as it is seen from outside.

A shim tells its events to who started it, and to nobody else.  So the directories of bundles are
looked at, and each shim is asked for its state, and for the end of its container.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import click
import trio

from ..client import TaskClient
from ..errors import ShimError
from ..proto import task_v2_pb2 as api
from ..proto.task_types_pb2 import Status
from ._failures import CliError
from ._found import Place, find_places, open_task
from ._options import json_option, namespace_option, state_dirs_option
from ._output import print_json

__all__ = ["Event", "command", "watch"]

_LOOK_AGAIN = 0.25  # seconds


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was seen.

    Attributes:
        time: ISO 8601, in UTC; of an exit the shim's, else ours.
        what: "create", "start", "pause", "resume", "exit", "delete".
        namespace, id: of the container.
        pid: of its first process.
        exit_status: of an exit.
    """

    time: str
    what: str
    namespace: str
    id: str
    pid: int | None = None
    exit_status: int | None = None

    def __str__(self) -> str:
        more = "" if self.pid is None else f" pid={self.pid}"
        more += "" if self.exit_status is None else f" status={self.exit_status}"
        return f"{self.time} {self.what:<6} {self.namespace}/{self.id}{more}"


Tell = Callable[[Event], None]


@click.command("events")
@namespace_option
@state_dirs_option
@json_option
def command(namespace: str, state_dirs: Sequence[str], as_json: bool) -> None:
    """Tell of containers that are created, start, pause, resume, exit and are deleted.

    It goes on until Ctrl-C.  What is quicker than a look (four a second) may be missed: a start
    before an exit, a short pause.  Execs and OOM kills are not seen: `ctr events` has those of
    containerd's containers.
    """

    def tell(event: Event) -> None:
        if as_json:
            fields = {name: getattr(event, name) for name in Event.__slots__}
            print_json({name: value for name, value in fields.items() if value is not None})
        else:
            click.echo(str(event))

    trio.run(watch, lambda: find_places(state_dirs, namespace=namespace), tell)


async def watch(find: Callable[[], Iterable[Place]], tell: Tell) -> None:
    """Tell of what changes from now on, until it is cancelled.

    Args:
        find: who is there now.
        tell: takes each event.
    """
    watched: set[Place] = set()
    new = False  # who is there already is no news
    async with trio.open_nursery() as nursery:
        while True:
            for place in set(find()) - watched:
                watched.add(place)
                nursery.start_soon(_watch_one, place, tell, new, watched)
            new = True
            await trio.sleep(_LOOK_AGAIN)


async def _watch_one(place: Place, tell: Tell, new: bool, watched: set[Place]) -> None:
    """From the first look at a bundle until it is gone."""
    story = _Story(place, tell)
    if new:
        story.say("create")
    else:
        story.told.add("create")
    while place.bundle.exists():
        try:
            async with open_task(place) as task, trio.open_nursery() as nursery:
                await story.look(task, silent=not new)
                nursery.start_soon(story.look_always, task)
                await story.wait_exit(task)
                nursery.cancel_scope.cancel()
            break
        except* (CliError, ShimError, OSError, ValueError):
            new = True
        await trio.sleep(_LOOK_AGAIN)  # no shim yet, or none any more
    while place.bundle.exists():  # noqa: ASYNC110 (another program removes it)
        await trio.sleep(_LOOK_AGAIN)
    story.say("delete")
    watched.discard(place)


class _Story:
    """One container, and what was told of it."""

    def __init__(self, place: Place, tell: Tell) -> None:
        self.told: set[str] = set()
        self._place = place
        self._tell = tell
        self._pid: int | None = None
        self._paused = False

    def say(self, what: str, *, when: str = "", exit_status: int | None = None) -> None:
        if what in self.told:
            return
        if what not in ("pause", "resume"):
            self.told.add(what)
        time = when or datetime.now(UTC).isoformat(timespec="milliseconds")
        pid = self._pid if what not in ("create", "delete") else None
        self._tell(Event(time, what, self._place.namespace, self._place.id, pid, exit_status))

    async def look(self, task: TaskClient, *, silent: bool = False) -> None:
        state = await task.state(api.StateRequest(id=self._place.id), timeout=2)
        self._pid = state.pid
        paused, before = state.status == Status.PAUSED, self._paused
        self._paused = paused
        if silent:
            self.told |= {"start"} if state.status != Status.CREATED else set()
            return
        if state.status in (Status.RUNNING, Status.PAUSED):
            self.say("start")
        if paused != before:
            self.say("pause" if paused else "resume")

    async def look_always(self, task: TaskClient) -> None:
        while True:
            await trio.sleep(_LOOK_AGAIN)
            await self.look(task)

    async def wait_exit(self, task: TaskClient) -> None:
        end = await task.wait(api.WaitRequest(id=self._place.id))
        when = end.exited_at.ToDatetime(UTC).isoformat(timespec="milliseconds")
        self.say("exit", when=when, exit_status=end.exit_status)
