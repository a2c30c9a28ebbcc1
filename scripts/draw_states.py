#!/usr/bin/env python3
"""Draw the state tables of `trioshim/task/_states.py` into docs/reference.md.

Each table becomes a Markdown table and a Mermaid diagram between two markers.  With `--check`
nothing is written; the exit status is 1 if the page is out of step with the code.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator
from pathlib import Path

from trioshim.task._states import EXEC, INIT, State, Table, Verb

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference.md"
TABLES = {"init": INIT, "exec": EXEC}
ALLOWED = "yes"


def begin(name: str) -> str:
    """The line before the drawing of a table."""
    return f"<!-- states of {name}: drawn by scripts/draw_states.py -->"


END = "<!-- end of the drawing -->"


def states_of(table: Table) -> list[State]:
    """The states that this kind of process can be in."""
    used = {state for state, _ in table}
    return [state for state in State if state in used]


def verbs_of(table: Table) -> list[Verb]:
    """The verbs that this kind of process knows; the others may always be used."""
    used = {verb for _, verb in table}
    return [verb for verb in Verb if verb in used]


def draw_table(table: Table) -> Iterator[str]:
    """Verbs down, states across: the next state, `yes` (nothing changes), or the refusal."""
    states = states_of(table)
    yield " | ".join(["| verb", *(state.value for state in states)]) + " |"
    yield "|---" * (len(states) + 1) + "|"
    for verb in verbs_of(table):
        cells = (_cell(table, state, verb) for state in states)
        yield " | ".join([f"| **{verb.value}**", *cells]) + " |"


def _cell(table: Table, state: State, verb: Verb) -> str:
    cell = table.get((state, verb))
    if cell is None:
        return "" if verb is Verb.EXIT else ALLOWED
    if isinstance(cell, State):
        return f"→ *{cell.value}*"
    return f'"{cell}"'


def draw_diagram(table: Table) -> Iterator[str]:
    """The cells that lead to a state."""
    yield "```mermaid"
    yield "stateDiagram-v2"
    for state in states_of(table):
        if _name(state) != state.value:
            yield f'    state "{state.value}" as {_name(state)}'
    for (state, verb), cell in table.items():
        if isinstance(cell, State):
            yield f"    {_name(state)} --> {_name(cell)}: {verb.value}"
    yield "```"


def _name(state: State) -> str:
    return state.value.replace(" ", "_")


def drawing(name: str) -> str:
    """What stands between the markers of a table."""
    table = TABLES[name]
    return "\n".join([begin(name), "", *draw_table(table), "", *draw_diagram(table), "", END])


def redraw(page: str) -> str:
    """The page with every drawing made anew.

    Raises:
        ValueError: a marker is missing.
    """
    for name in TABLES:
        before, marker, rest = page.partition(begin(name))
        _, end, after = rest.partition(END)
        if not marker or not end:
            raise ValueError(f"{PAGE.name} has no place for the states of {name}: {begin(name)}")
        page = before + drawing(name) + after
    return page


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Draw the state tables into docs/reference.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if out of step")
    check: bool = parser.parse_args(argv).check
    old = PAGE.read_text("utf-8")
    new = redraw(old)
    if not check:
        PAGE.write_text(new, "utf-8")
    elif old != new:
        lines = difflib.unified_diff(
            old.splitlines(), new.splitlines(), "docs/reference.md", "the code", lineterm=""
        )
        print(*lines, sep="\n")
        print("run scripts/draw_states.py and commit the result", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
