"""What a benchmark says: a table to read, and verdicts to act on.

Promises: plain data.  `report(quick)` of a module gives one; who prints it needs no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Report", "Verdict", "table"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that was asked, beside what was found.

    Attributes:
        what: the thing, a few words.
        asked: what it has to be, with its unit.
        measured: what it is, with its unit; why not, if it could not be measured.
        met: whether it is what was asked; False also if it could not be measured.
    """

    what: str
    asked: str
    measured: str
    met: bool


@dataclass(frozen=True, slots=True)
class Report:
    """A measurement's end.

    Attributes:
        title: a heading.
        lines: Markdown, most of it a table.
        verdicts: may be none.
    """

    title: str
    lines: tuple[str, ...]
    verdicts: tuple[Verdict, ...] = ()

    def __str__(self) -> str:
        """Markdown: heading, lines, verdicts."""
        said = [f"* {v.what}: asked {v.asked}, measured {v.measured}" for v in self.verdicts]
        marked = [
            f"{line}: {'met' if verdict.met else 'NOT MET'}"
            for line, verdict in zip(said, self.verdicts, strict=True)
        ]
        return "\n".join((f"## {self.title}", "", *self.lines, *([""] if marked else []), *marked))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Lines of Markdown; the first column is words, the others are figures."""
    rule = ["---", *("--:" for _ in head[1:])]
    return tuple(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))
