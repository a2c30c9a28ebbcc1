"""What may follow what: one table for a container's init, one for an exec.

Pure.  A cell is the state that comes next, or the error that containerd's shims answer; a verb
that is not in the table may always be used and changes nothing.  An illegal verb raises and
changes nothing.  The diagram in the docs is drawn from these tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from ..errors import FailedPreconditionError, NotFoundError, ShimError, StatusError

__all__ = ["EXEC", "INIT", "State", "Table", "Verb", "after"]


class State(Enum):
    """The life of a process.  The value is the word used in messages."""

    CREATED = "created"
    CREATED_CHECKPOINT = "created checkpoint"  # Start will restore it
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    DELETED = "deleted"


class Verb(Enum):
    """What can happen to a process: the requests that depend on its state, and its end."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    UPDATE = "update"
    CHECKPOINT = "checkpoint"
    EXEC = "exec"
    KILL = "kill"
    RESIZE = "resize"
    DELETE = "delete"
    EXIT = "exit"


Cell = State | ShimError
Table = Mapping[tuple[State, Verb], Cell]

_CREATED, _CHECKPOINT = State.CREATED, State.CREATED_CHECKPOINT
_RUNNING, _PAUSED = State.RUNNING, State.PAUSED
_STOPPED, _DELETED = State.STOPPED, State.DELETED


def _no(text: str) -> ShimError:
    # containerd gives these refusals no class: clients see UNKNOWN and the text.
    return StatusError(text)


INIT: Table = {
    (_CREATED, Verb.START): _RUNNING,
    (_CHECKPOINT, Verb.START): _RUNNING,
    (_RUNNING, Verb.START): _no("cannot start a running process"),
    (_PAUSED, Verb.START): _no("cannot start a paused process"),
    (_STOPPED, Verb.START): _no("cannot start a stopped process"),
    (_DELETED, Verb.START): _no("cannot start a deleted process"),
    #
    (_CREATED, Verb.DELETE): _DELETED,
    (_CHECKPOINT, Verb.DELETE): _DELETED,
    (_RUNNING, Verb.DELETE): _no("cannot delete a running process"),
    (_PAUSED, Verb.DELETE): _no("cannot delete a paused process"),
    (_STOPPED, Verb.DELETE): _DELETED,
    (_DELETED, Verb.DELETE): NotFoundError("cannot delete a deleted process"),
    #
    (_CREATED, Verb.PAUSE): _no("cannot pause task in created state"),
    (_CHECKPOINT, Verb.PAUSE): _no("cannot pause task in created state"),
    (_RUNNING, Verb.PAUSE): _PAUSED,
    (_PAUSED, Verb.PAUSE): _no("cannot pause a paused container"),
    (_STOPPED, Verb.PAUSE): _no("cannot pause a stopped container"),
    (_DELETED, Verb.PAUSE): _no("cannot pause a deleted process"),
    #
    (_CREATED, Verb.RESUME): _no("cannot resume task in created state"),
    (_CHECKPOINT, Verb.RESUME): _no("cannot resume task in created state"),
    (_RUNNING, Verb.RESUME): _no("cannot resume a running process"),
    (_PAUSED, Verb.RESUME): _RUNNING,
    (_STOPPED, Verb.RESUME): _no("cannot resume a stopped container"),
    (_DELETED, Verb.RESUME): _no("cannot resume a deleted process"),
    #
    (_STOPPED, Verb.UPDATE): _no("cannot update a stopped container"),
    (_DELETED, Verb.UPDATE): _no("cannot update a deleted process"),
    #
    (_CREATED, Verb.CHECKPOINT): _no("cannot checkpoint a task in created state"),
    (_CHECKPOINT, Verb.CHECKPOINT): _no("cannot checkpoint a task in created state"),
    (_STOPPED, Verb.CHECKPOINT): _no("cannot checkpoint a stopped container"),
    (_DELETED, Verb.CHECKPOINT): _no("cannot checkpoint a deleted process"),
    #
    (_CHECKPOINT, Verb.EXEC): _no("cannot exec in a created state"),
    (_PAUSED, Verb.EXEC): _no("cannot exec in a paused state"),
    (_STOPPED, Verb.EXEC): _no("cannot exec in a stopped state"),
    (_DELETED, Verb.EXEC): _no("cannot exec in a deleted state"),
    #
    (_CHECKPOINT, Verb.KILL): NotFoundError("no such container"),
    (_STOPPED, Verb.KILL): NotFoundError("process already finished"),
    (_DELETED, Verb.KILL): NotFoundError("cannot kill a deleted process"),
    #
    (_CREATED, Verb.EXIT): _STOPPED,
    (_CHECKPOINT, Verb.EXIT): _STOPPED,
    (_RUNNING, Verb.EXIT): _STOPPED,
    (_PAUSED, Verb.EXIT): _STOPPED,
}

EXEC: Table = {
    (_CREATED, Verb.START): _RUNNING,
    (_RUNNING, Verb.START): _no("cannot start a running process"),
    (_STOPPED, Verb.START): _no("cannot start a stopped process"),
    (_DELETED, Verb.START): _no("cannot start a deleted process"),
    #
    (_CREATED, Verb.DELETE): _DELETED,
    (_RUNNING, Verb.DELETE): _no("cannot delete a running process"),
    (_STOPPED, Verb.DELETE): _DELETED,
    (_DELETED, Verb.DELETE): NotFoundError("cannot delete a deleted process"),
    #
    (_CREATED, Verb.KILL): FailedPreconditionError("process not created"),
    (_STOPPED, Verb.KILL): NotFoundError("process already finished"),
    (_DELETED, Verb.KILL): NotFoundError("process already finished"),
    #
    (_STOPPED, Verb.RESIZE): _no("cannot resize a stopped container"),
    (_DELETED, Verb.RESIZE): _no("cannot resize a deleted process"),
    #
    (_CREATED, Verb.EXIT): _STOPPED,
    (_RUNNING, Verb.EXIT): _STOPPED,
}


def after(table: Table, state: State, verb: Verb) -> State:
    """The state that follows, or the refusal.

    Raises:
        ShimError: this verb is not for this state.
    """
    cell = table.get((state, verb), state)
    if isinstance(cell, State):
        return cell
    # A fresh one each time: raising the table's own would let tracebacks grow on it.
    refusal: ShimError = type(cell)(cell.message)
    raise refusal
