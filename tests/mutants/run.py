"""Make every deliberate defect in turn and tell which test sees it.

    python -m tests.mutants.run [-k TEXT] [-j N] [--write]

Each defect is made in a copy of its own, where only the tests that it names are run.  The exit
status is 1 if one of them is seen by nobody.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .command_line import parse
from .copies import ROOT, Outcome, edited_copy, run_tests
from .defect import Defect
from .defects import DEFECTS

LIMIT = 60.0  # seconds for the tests of one defect
HANGING = 15.0  # the same where a hang is what is looked for: whole, they take two
TABLE = ROOT / "docs" / "mutants.md"

_TESTS_FAILED = 1  # pytest's exit code; the others mean that they did not even run

_HEAD = """\
# Deliberate defects

Each row is one mistake that a programmer could make, made on purpose in a copy of the package,
and the test that fails because of it.  A defect that no test sees would be a gap in the tests.

The list is in `tests/mutants/`; this table is written by `python -m tests.mutants.run --write`.

"""


@dataclass(frozen=True)
class Verdict:
    """What became of one defect; `by` is the test that saw it, "" if none did."""

    defect: Defect
    by: str
    seconds: float
    why: str = ""

    def __str__(self) -> str:
        told = f"caught by {self.by}" if self.by else f"SURVIVED: {self.why}"
        return f"{self.defect.name}: {told} ({self.seconds:.1f} s)"


def judge(defect: Defect, outcome: Outcome) -> tuple[str, str]:
    """The test that saw it, or why none did."""
    if outcome.code is None:
        if defect.hangs:
            return f"{defect.caught_by[0]} (hangs)", ""
        return "", "the tests did not end, and that is not what is looked for"
    if outcome.code != _TESTS_FAILED:
        return "", f"pytest ended with {outcome.code}: {outcome.text[-300:]}"
    return outcome.failed, "" if outcome.failed else f"no test is named: {outcome.text[-300:]}"


def make(defect: Defect) -> Verdict:
    """Make one defect and run its tests."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as where:
        edited_copy(Path(where), defect.file, defect.old, defect.new)
        limit = HANGING if defect.hangs else LIMIT
        by, why = judge(defect, run_tests(Path(where), defect.caught_by, limit=limit))
    return Verdict(defect, by, time.monotonic() - begun, why)


def make_all(defects: Iterable[Defect], jobs: int) -> Iterator[Verdict]:
    """The verdicts in the order of the list, each as soon as it is there."""
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(make, defects)


def table(verdicts: Iterable[Verdict]) -> str:
    """The verdicts as a page of the docs."""
    rows = ["| Defect | Kind | File | Caught by |", "| --- | --- | --- | --- |"]
    for verdict in verdicts:
        one = verdict.defect
        by = f"`{verdict.by}`" if verdict.by else "nobody"
        rows.append(f"| {one.name} | {one.kind.value} | `{one.file}` | {by} |")
    return _HEAD + "\n".join(rows) + "\n"


def main() -> int:
    """Parse the arguments, run, tell."""
    wanted = parse("tests.mutants.run", __doc__, TABLE, DEFECTS)
    verdicts = []
    for verdict in make_all(wanted.defects, wanted.jobs):
        print(verdict, flush=True)
        verdicts.append(verdict)
    caught = sum(1 for verdict in verdicts if verdict.by)
    print(f"{caught} of {len(verdicts)} caught")
    if wanted.write:
        TABLE.write_text(table(verdicts), "utf-8")
    return 0 if caught == len(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
