"""All benchmarks, one after the other, and what was asked beside what was measured.

    python -m benchmarks [--quick] [--write] [PART ...]

A part that cannot be measured says why, and the others are measured all the same; then the exit
status is 1.  --write puts all tables into docs/benchmarks.md and draws docs/img/benchmarks.svg.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from . import connect, life, rpc, schedules, slope, start, stdio
from . import run as runs
from ._figures import BEGIN, Held, put_between
from ._plot import draw
from ._report import Report, Verdict, table

__all__ = ["PARTS", "mark", "summary", "written"]

PAGE = rpc.PAGE
PICTURE = PAGE.parent / "img" / "benchmarks.svg"
Part = Callable[[bool], tuple[Report, Sequence[Held]]]


def _rpc(quick: bool) -> tuple[Report, Sequence[Held]]:
    figures = rpc.measure(3 if quick else 15, quick=False)
    return Report("State", tuple(figures.splitlines())), ()


def _slope(quick: bool) -> tuple[Report, Sequence[Held]]:
    slopes = list(slope.measure(20_000 if quick else 200_000))
    rows = [
        [each.method, f"{each.begun / 2**20:.2f}", f"{each.ended / 2**20:.2f}", f"{each.each:.3f}"]
        for each in slopes
    ]
    worst = max(each.each for each in slopes)
    verdict = Verdict("memory for each call", "below 1 byte", f"{worst:.3f} bytes", worst < 1)
    head = ["call", "half way, MiB", "at the end, MiB", "bytes for each call"]
    calls = f"{slopes[0].calls:,} calls of each kind between the two looks"
    return Report("Memory over many calls", (*table(head, rows), "", calls), (verdict,)), ()


def _schedules(quick: bool) -> tuple[Report, Sequence[Held]]:
    rows = []
    for name, scenario in schedules.SCENARIOS.items():
        tries = [schedules.per_minute(scenario, 0.1 if quick else 3.0) for _ in range(3)]
        best, steps = max(tries)
        rows.append([name, f"{steps:.0f}", f"{best:,.0f}"])
    head = ["scenario", "steps", "schedules a minute"]
    return Report("Schedules of the simulator", table(head, rows)), ()


def _other(name: str) -> Part:
    def measure(quick: bool) -> tuple[Report, Sequence[Held]]:
        module: Any = importlib.import_module(f"benchmarks.{name}")
        report: Report = module.report(quick)
        return report, ()

    return measure


PARTS: Mapping[str, Part] = {
    "life": lambda quick: life.measure(quick=quick),
    "start": lambda quick: start.measure(quick=quick),
    "run": lambda quick: (runs.measure(quick=quick), ()),
    "stdio": lambda quick: stdio.measure(quick=quick),
    "connect": lambda quick: connect.measure(quick=quick),
    "growth": _other("growth"),
    "idle": _other("idle"),
    "slope": _slope,
    "rpc": _rpc,
    "schedules": _schedules,
}


def mark(name: str) -> str:
    """The line after which a part's tables stand in the page."""
    return BEGIN if name == "rpc" else f"<!-- {name}: written by python -m benchmarks --write -->"


def run(names: Iterable[str], *, quick: bool) -> tuple[dict[str, Report], list[Held]]:
    """The parts, printed as they come; and all ratios."""
    reports: dict[str, Report] = {}
    held: list[Held] = []
    for name in names:
        try:
            reports[name], ratios = PARTS[name](quick)
        except (OSError, ValueError, RuntimeError, subprocess.SubprocessError) as error:
            verdict = Verdict(name, "to be measured", f"{type(error).__name__}: {error}", met=False)
            reports[name], ratios = Report(name, (), (verdict,)), ()
        held += ratios
        print(f"\n{reports[name]}", flush=True)
    return reports, held


def summary(reports: Iterable[Report]) -> tuple[str, ...]:
    """One table of all that was asked."""
    rows = [
        [verdict.what, verdict.asked, verdict.measured, "yes" if verdict.met else "**no**"]
        for report in reports
        for verdict in report.verdicts
    ]
    return table(["what", "asked", "measured", "met"], rows)


def written(page: str, reports: Mapping[str, Report]) -> str:
    """The page with these figures.

    Raises:
        ValueError: a mark is missing.
    """
    for name, report in reports.items():
        page = put_between(page, "\n".join(report.lines), mark(name))
    return put_between(page, "\n".join(summary(reports.values())), mark("summary"))


def main() -> int:
    """Measure, print, write; 1 if a part could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (all)")
    parser.add_argument("--quick", action="store_true", help="a look: few rounds, small numbers")
    parser.add_argument("--write", action="store_true", help=f"put all of it into {PAGE.name}")
    told = parser.parse_args()
    if unknown := set(told.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; parts: {', '.join(PARTS)}")
    if told.write and told.parts:
        parser.error("the page has all parts of one run: --write goes with no PART")
    reports, held = run(told.parts or PARTS, quick=told.quick)
    print("\n" + "\n".join(summary(reports.values())))
    failed = any(not report.lines for report in reports.values())
    if told.write and failed:
        print("nothing is written: a part could not be measured", file=sys.stderr)
    elif told.write:
        PAGE.write_text(written(PAGE.read_text("utf-8"), reports), "utf-8")
        PICTURE.write_text(draw(held), "utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
