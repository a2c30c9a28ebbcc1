"""The laws of the event stream (1 to 4 of the design), checked on any stream of events.

From the simulator, from this shim on real runc, or from another shim: the same function.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from google.protobuf.message import Message

from ..proto import events_pb2 as events

__all__ = ["LawBrokenError", "check_event_order"]


class LawBrokenError(AssertionError):
    """A law of the design does not hold.

    Attributes:
        law: its number in section 5 of the design.
    """

    def __init__(self, law: int, text: str) -> None:
        super().__init__(f"law {law}: {text}")
        self.law = law


@dataclass(slots=True)
class _Seen:
    """What was seen of one container: names of events of each of its processes, "" for init."""

    told: dict[str, list[str]] = field(default_factory=dict)
    ended: bool = False

    def of(self, exec_id: str) -> list[str]:
        return self.told.setdefault(exec_id, [])


# What must have been told, and what must not have been, before an event of the same process.
_BEFORE = {
    "create": ((), ("create", "start", "exit")),
    "start": (("create",), ("start", "exit", "delete")),
    "exit": (("create",), ("exit", "delete")),
    "delete": (("create",), ("delete",)),
    "exec-added": ((), ("exec-added",)),
    "exec-started": (("exec-added",), ("exec-started", "exit")),
    "exec-exit": (("exec-started",), ("exit", "delete")),
    "exec-delete": (("exec-added",), ("delete",)),  # other shims tell it; containerd's do not
}
_NAMES: dict[type[Message], str] = {
    events.TaskCreate: "create",
    events.TaskStart: "start",
    events.TaskExit: "exit",
    events.TaskDelete: "delete",
    events.TaskExecAdded: "exec-added",
    events.TaskExecStarted: "exec-started",
}


def check_event_order(stream: Iterable[Message], *, complete: bool = True) -> None:
    """Check laws 1 to 4 on the events of one shim or daemon.

    Args:
        stream: events of `containerd.events` in the order in which they were received.
        complete: the stream ends with every container deleted; then each process that was
            created or started has its exit.

    Raises:
        LawBrokenError: with the number of the law and what was seen.
    """
    containers: dict[str, _Seen] = {}
    for event in stream:
        id_: str = getattr(event, "container_id", "")
        if isinstance(event, events.TaskCreate):
            seen = containers.get(id_)
            if seen is None or "delete" in seen.of(""):
                if seen is not None and complete:
                    _check_complete(id_, seen)
                containers[id_] = _Seen()  # the id may be used again
        if id_ not in containers:
            raise LawBrokenError(1, f"{_name(event)} of {id_} before its create")
        _check_one(id_, containers[id_], event)
    if complete:
        for id_, seen in containers.items():
            _check_complete(id_, seen)


def _check_one(id_: str, seen: _Seen, event: Message) -> None:
    if isinstance(event, events.TaskOOM) and seen.ended:
        raise LawBrokenError(4, f"oom of {id_} after its exit")
    name = _name(event)
    if name not in _BEFORE:
        return  # paused, resumed, oom: no order of their own
    exec_id = _exec_id(id_, event)
    told = seen.of(exec_id)
    if name == "exec-added" and told[-1:] != ["exec-started"]:
        told.clear()  # the id of an exec that was deleted (untold) is used again
    _check_process(f"{name} of {id_} {exec_id}".strip(), told, name, exec_id)
    if name == "exec-started" and seen.ended:
        raise LawBrokenError(3, f"{name} of {id_} {exec_id} after the exit of init")
    if name == "exit" and not exec_id:
        _check_last(id_, seen)
        seen.ended = True
    told.append(name)


def _check_process(what: str, told: list[str], name: str, exec_id: str) -> None:
    needs, forbids = _BEFORE[f"exec-{name}" if exec_id and name in ("exit", "delete") else name]
    for before in forbids:
        if before in told:
            raise LawBrokenError(2 if before == name == "exit" else 1, f"{what} after its {before}")
    for before in needs:
        if before not in told:
            raise LawBrokenError(1, f"{what} before its {before}")


def _check_last(id_: str, seen: _Seen) -> None:
    for exec_id, told in seen.told.items():
        if "exec-started" in told and "exit" not in told:
            raise LawBrokenError(3, f"exit of {id_} before the exit of its exec {exec_id}")


def _check_complete(id_: str, seen: _Seen) -> None:
    for exec_id, told in seen.told.items():
        if "exec-started" in told and "exit" not in told:
            raise LawBrokenError(2, f"no exit of exec {exec_id} of {id_}")
    init = seen.of("")
    if "start" in init and "exit" not in init:
        raise LawBrokenError(2, f"no exit of {id_}")


def _name(event: Message) -> str:
    return _NAMES.get(type(event), type(event).__name__)


def _exec_id(id_: str, event: Message) -> str:
    if isinstance(event, (events.TaskExecAdded, events.TaskExecStarted)):
        return event.exec_id
    if isinstance(event, (events.TaskExit, events.TaskDelete)):
        return "" if event.id == id_ else event.id
    return ""
