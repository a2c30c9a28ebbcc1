"""Tables: in colour on a terminal, in plain columns in a pipe, and as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["plain_table", "print_json", "print_table", "rich_table"]

_STYLES = {
    "running": "green",
    "paused": "yellow",
    "created": "cyan",
    "stopped": "red",
    "unreachable": "bold red",
    "ok": "green",
    "wanted": "yellow",
    "missing": "bold red",
}


def print_json(value: object) -> None:
    """One JSON text in one line."""
    click.echo(json.dumps(value, ensure_ascii=False))


def print_table(
    columns: Sequence[str], rows: Sequence[Mapping[str, object]], *, as_json: bool
) -> None:
    """Print rows as lines; as JSON every row is one, with all that it has.

    Args:
        columns: which ones are shown, by name.
        rows: texts, numbers, lists of words, None.
        as_json: for programs.
    """
    if as_json:
        for row in rows:
            print_json(row)
    elif sys.stdout.isatty():
        from rich.console import Console

        Console().print(rich_table(columns, rows))
    else:
        click.echo(plain_table(columns, rows))


def plain_table(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> str:
    """Columns with two spaces between them, below their names in capitals."""
    lines = [[_title(name) for name in columns]]
    lines += [[_text(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def rich_table(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> Table:
    """The same for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(_title(name), no_wrap=name in {"id", "namespace", "pid", "status"})
    for row in rows:
        cells = [_text(row.get(name)) for name in columns]
        table.add_row(*(Text(cell, style=_STYLES.get(cell.split(" ")[0], "")) for cell in cells))
    return table


def _title(name: str) -> str:
    return name.replace("_", " ").upper()


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return " ".join(str(word) for word in value)
    return str(value)
