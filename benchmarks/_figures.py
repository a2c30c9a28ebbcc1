"""Figures: from single calls to a table, and the table into a page.

Rules of this file:

* a figure is the median of the rounds' figures; what is compared is compared within a round, so a
  machine that is busy for a while is so for both;
* pure but for the two functions that read /proc.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median, quantiles
from typing import TypeVar

from ._report import Verdict

__all__ = [
    "Held",
    "Row",
    "Sample",
    "Spread",
    "cpu_of",
    "in_turns",
    "machine",
    "put_between",
    "tables",
]

BEGIN = "<!-- figures: written by python -m benchmarks.rpc --write -->"
END = "<!-- end of the figures -->"

T = TypeVar("T")


def in_turns(items: Sequence[T], number: int) -> list[T]:
    """All of them; each round begins with another one."""
    first = number % len(items)
    return [*items[first:], *items[:first]]


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, and the quartiles around it.

    Attributes:
        alone: it is of one value only, so it has none.
    """

    low: float
    middle: float
    high: float
    alone: bool = False

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of the rounds."""
        found = list(values)
        if len(found) < 2:
            return cls(found[0], found[0], found[0], alone=True)
        low, middle, high = quantiles(found, n=4, method="inclusive")
        return cls(low, middle, high)

    @classmethod
    def of_ratios(cls, mine: Sequence[float], others: Sequence[float]) -> Spread:
        """Taken within each round, since a slow round is slow for both."""
        return cls.of(a / b for a, b in zip(mine, others, strict=True))

    def __str__(self) -> str:
        if self.alone:
            return f"{self.middle:.2f}"
        return f"{self.middle:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True, slots=True)
class Held:
    """A ratio that is held against what it may be at most.

    Attributes:
        what: a few words.
        ratio: ours to another's; below 1 is better.
        most: what it may be.
        against: the other.
    """

    what: str
    ratio: Spread
    most: float
    against: str

    def verdict(self) -> Verdict:
        """The median decides, as it is printed."""
        return Verdict(
            what=self.what,
            asked=f"at most {self.most:.2f} × {self.against}",
            measured=str(self.ratio),
            met=round(self.ratio.middle, 2) <= self.most,
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """One server in one round; times in microseconds, those of processors for each call."""

    p50: float
    p99: float
    calls_per_second: float
    server_cpu: float
    client_cpu: float

    @classmethod
    def of(cls, took: Sequence[int], *, elapsed: int, server_cpu: int, client_cpu: int) -> Sample:
        """From the nanoseconds that each call, all of them and the processors took."""
        if not took:
            raise ValueError("no call was answered in the time of a round")
        ordered = sorted(took)
        calls = len(ordered)
        return cls(
            p50=median(ordered) / 1e3,
            p99=ordered[min(calls * 99 // 100, calls - 1)] / 1e3,
            calls_per_second=calls * 1e9 / elapsed,
            server_cpu=server_cpu / 1e3 / calls,
            client_cpu=client_cpu / 1e3 / calls,
        )


@dataclass(frozen=True, slots=True)
class Row:
    """A server, asked by one client.

    Attributes:
        server, wire, client: as the table names them.
        against: the server that it is compared with, over the same client; "" for none.
        samples: by the number of calls in flight, one for each round.
    """

    server: str
    wire: str
    client: str
    against: str
    samples: Mapping[int, list[Sample]]

    def figure(self, in_flight: int, name: str) -> float:
        """The median of the rounds."""
        figures: list[float] = [getattr(sample, name) for sample in self.samples[in_flight]]
        return median(figures)

    def ratio(self, other: Row, in_flight: int, name: str) -> Spread:
        """To another one's, round by round."""
        mine = [getattr(sample, name) for sample in self.samples[in_flight]]
        return Spread.of_ratios(mine, [getattr(s, name) for s in other.samples[in_flight]])


def tables(rows: Sequence[Row], in_flight: Iterable[int]) -> str:
    """Markdown: one table for each number of calls in flight."""
    return "\n\n".join(_table(rows, number) for number in in_flight)


def _table(rows: Sequence[Row], in_flight: int) -> str:
    alone = in_flight == 1
    head = ["server", "wire", "client", "p50", "p99", "calls/s", "server CPU", "client CPU"]
    head += ["p50 - client", "p50, compared"] if alone else ["calls/s, compared"]
    lines = [f"{in_flight} in flight (µs, calls/s, µs of processor for each call):", ""]
    lines += ["| " + " | ".join(head) + " |", "|---|---|---" + "|--:" * (len(head) - 3) + "|"]
    for row in rows:
        names = ("p50", "p99", "calls_per_second", "server_cpu", "client_cpu")
        figures = [row.figure(in_flight, name) for name in names]
        cells = [row.server, row.wire, row.client, *(_number(figure) for figure in figures)]
        if alone:
            cells.append(_number(figures[0] - figures[4]))
        cells.append(_compared(rows, row, in_flight, "p50" if alone else "calls_per_second"))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 20 else f"{value:,.0f}"


def _compared(rows: Sequence[Row], row: Row, in_flight: int, name: str) -> str:
    """The ratio to another server: the median of the rounds and the quartiles around it."""
    others = [o for o in rows if (o.server, o.client) == (row.against, row.client)]
    if not others:
        return ""
    return f"{row.ratio(others[0], in_flight, name)} × {row.against}"


# ---------------------------------------------------------------- the machine


def cpu_of(pid: int) -> int:
    """Nanoseconds that all the threads of a process have run."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # it has ended meanwhile
            total += int((thread / "schedstat").read_text().split()[0])
    return total


def machine(packages: Iterable[str]) -> str:
    """What the figures depend on; nothing that tells whose machine it is."""
    text = Path("/proc/cpuinfo").read_text("utf-8")
    model = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    kernel = platform.release().partition("-")[0]
    versions = ", ".join(f"{name} {_version(name)}" for name in packages)
    return (
        f"{model[1] if model else platform.machine()}, {os.cpu_count()} processors, "
        f"Linux {kernel}, Python {platform.python_version()}; {versions}."
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(none)"


def put_between(page: str, figures: str, begin: str = BEGIN) -> str:
    """The page with other figures between its two marks.

    Args:
        page: what is there.
        figures: what shall be there.
        begin: the first mark; the second is the next `END` after it.

    Raises:
        ValueError: a mark is missing.
    """
    before, begun, rest = page.partition(begin)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"the page has no lines {begin!r} and {END!r}")
    return f"{before}{begin}\n\n{figures}\n\n{END}{after}"
