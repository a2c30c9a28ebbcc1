"""The tables of states against a table by hand, from what containerd's shims do."""

from __future__ import annotations

import pytest

from trioshim.errors import (
    FailedPreconditionError,
    NotFoundError,
    ShimError,
    StatusError,
    to_status,
)
from trioshim.task._states import EXEC, INIT, State, Table, Verb, after

UNKNOWN, NOT_FOUND, FAILED_PRECONDITION = 2, 5, 9

# A word is the next state, a text in parentheses a refusal with its code, "-" no change.
INIT_STATES = ["created", "created checkpoint", "running", "paused", "stopped", "deleted"]
INIT_ROWS = {
    "start": [
        "running",
        "running",
        (UNKNOWN, "cannot start a running process"),
        (UNKNOWN, "cannot start a paused process"),
        (UNKNOWN, "cannot start a stopped process"),
        (UNKNOWN, "cannot start a deleted process"),
    ],
    "delete": [
        "deleted",
        "deleted",
        (UNKNOWN, "cannot delete a running process"),
        (UNKNOWN, "cannot delete a paused process"),
        "deleted",
        (NOT_FOUND, "cannot delete a deleted process: not found"),
    ],
    "pause": [
        (UNKNOWN, "cannot pause task in created state"),
        (UNKNOWN, "cannot pause task in created state"),
        "paused",
        (UNKNOWN, "cannot pause a paused container"),
        (UNKNOWN, "cannot pause a stopped container"),
        (UNKNOWN, "cannot pause a deleted process"),
    ],
    "resume": [
        (UNKNOWN, "cannot resume task in created state"),
        (UNKNOWN, "cannot resume task in created state"),
        (UNKNOWN, "cannot resume a running process"),
        "running",
        (UNKNOWN, "cannot resume a stopped container"),
        (UNKNOWN, "cannot resume a deleted process"),
    ],
    "update": [
        *["-"] * 4,
        (UNKNOWN, "cannot update a stopped container"),
        (UNKNOWN, "cannot update a deleted process"),
    ],
    "checkpoint": [
        (UNKNOWN, "cannot checkpoint a task in created state"),
        (UNKNOWN, "cannot checkpoint a task in created state"),
        *["-"] * 2,
        (UNKNOWN, "cannot checkpoint a stopped container"),
        (UNKNOWN, "cannot checkpoint a deleted process"),
    ],
    "exec": [
        "-",
        (UNKNOWN, "cannot exec in a created state"),
        "-",
        (UNKNOWN, "cannot exec in a paused state"),
        (UNKNOWN, "cannot exec in a stopped state"),
        (UNKNOWN, "cannot exec in a deleted state"),
    ],
    # Two cells are ours: containerd asks runc to kill a container that was never made or has
    # ended, and passes on the not found that runc says; we know without asking.
    "kill": [
        "-",
        (NOT_FOUND, "no such container: not found"),
        *["-"] * 2,
        (NOT_FOUND, "process already finished: not found"),
        (NOT_FOUND, "cannot kill a deleted process: not found"),
    ],
    "resize": ["-"] * 6,  # the console decides
    "exit": [*["stopped"] * 4, "-", "-"],
}
EXEC_STATES = ["created", "running", "stopped", "deleted"]
EXEC_ROWS = {
    "start": [
        "running",
        (UNKNOWN, "cannot start a running process"),
        (UNKNOWN, "cannot start a stopped process"),
        (UNKNOWN, "cannot start a deleted process"),
    ],
    "delete": [
        "deleted",
        (UNKNOWN, "cannot delete a running process"),
        "deleted",
        (NOT_FOUND, "cannot delete a deleted process: not found"),
    ],
    "kill": [
        (FAILED_PRECONDITION, "process not created: failed precondition"),
        "-",
        (NOT_FOUND, "process already finished: not found"),
        (NOT_FOUND, "process already finished: not found"),
    ],
    "resize": [
        *["-"] * 2,
        (UNKNOWN, "cannot resize a stopped container"),
        (UNKNOWN, "cannot resize a deleted process"),
    ],
    "exit": ["stopped", "stopped", "-", "-"],
}


def cells(table: Table, states: list[str], rows: dict[str, list[object]]) -> list[object]:
    name = "init" if table is INIT else "exec"
    return [
        pytest.param(table, State(state), Verb(verb), cell, id=f"{name}-{state}-{verb}")
        for verb, row in rows.items()
        for state, cell in zip(states, row, strict=True)
    ]


ALL = cells(INIT, INIT_STATES, INIT_ROWS) + cells(EXEC, EXEC_STATES, EXEC_ROWS)


@pytest.mark.parametrize(("table", "state", "verb", "cell"), ALL)
def test_every_cell_is_what_containerd_does(
    table: Table, state: State, verb: Verb, cell: object
) -> None:
    """The next state, or the refusal with its code and its text."""
    if cell == "-":
        assert after(table, state, verb) is state
    elif isinstance(cell, str):
        assert after(table, state, verb) is State(cell)
    else:
        with pytest.raises(ShimError) as caught:
            after(table, state, verb)
        assert to_status(caught.value) == cell


def test_the_tables_have_no_other_cells() -> None:
    """Nothing is decided in the code that is not decided here."""
    here = {(param.values[0] is INIT, *param.values[1:3]) for param in ALL}
    there = {(table is INIT, *key) for table in (INIT, EXEC) for key in table}
    assert there <= here


def test_every_state_and_verb_of_init_is_looked_at() -> None:
    """The table above is complete."""
    assert {State(state) for state in INIT_STATES} == set(State)
    assert {Verb(verb) for verb in INIT_ROWS} == set(Verb)


def test_what_an_exec_does_not_know_is_harmless() -> None:
    """Verbs of the container change nothing of an exec."""
    for state in map(State, EXEC_STATES):
        for verb in set(Verb) - {Verb(verb) for verb in EXEC_ROWS}:
            assert after(EXEC, state, verb) is state


def test_a_refusal_is_a_new_one_each_time() -> None:
    """A raised exception collects tracebacks; the table's own stays clean."""
    refusals = []
    for _ in range(2):
        with pytest.raises(StatusError) as caught:
            after(INIT, State.RUNNING, Verb.START)
        refusals.append(caught.value)
    assert refusals[0] is not refusals[1]
    for cell in (*INIT.values(), *EXEC.values()):
        assert not isinstance(cell, ShimError) or cell.__traceback__ is None


def test_the_classes_are_those_that_clients_catch() -> None:
    """Not only the code: the class."""
    with pytest.raises(NotFoundError):
        after(INIT, State.STOPPED, Verb.KILL)
    with pytest.raises(FailedPreconditionError):
        after(EXEC, State.CREATED, Verb.KILL)
