"""Which deliberate defects do tests of single examples see, and which need the kit?

    python -m tests.mutants.compare [-k TEXT] [-j N] [--write]

Each defect is made twice in copies: once under the tests of examples, written by hand, and once
under those of `trioshim.testing` alone: seeded schedules, a cancellation at every step, a fault at
every call.  The tests that were written because a defect had survived are left out of both.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .command_line import parse
from .copies import ROOT, Outcome, edited_copy, run_tests
from .defect import Defect, Kind
from .defects import DEFECTS

LIMIT = 240.0  # seconds for one suite; longer is a hang, and a hang is seen
TABLE = ROOT / "docs" / "mutants-kit.md"

# What the simulator stands for: the shim above its ports, and that is where its laws are kept.
PARTS = ("task/",)
EXAMPLES = (
    *(f"tests/unit/test_{name}.py" for name in ("events", "service", "states")),
    *(
        f"tests/unit/test_ttrpc_{name}.py"
        for name in ("bad_peers", "client", "connection", "ends", "floods", "server", "trio")
    ),
    *(f"tests/unit/test_grpc{name}.py" for name in ("", "_clients", "_ends")),
    *(f"tests/sim/test_{name}.py" for name in ("life", "callers", "linger")),
)
KIT = (
    "tests/sim/test_cancel_everywhere.py",
    "tests/sim/test_cancel_start.py",
    "tests/sim/test_laws.py",
    "tests/sim/test_fault_lives.py",
    "tests/sim/test_fault_stops.py",
    "tests/sim/test_conformance.py",
)
NO_DEFECT = Defect(
    "none", Kind.CHECK, "__init__.py", "TYPE_CHECKING = False", "TYPE_CHECKING = 0", ()
)

_HEAD = """\
# What the kit sees

The deliberate defects of [the list](mutants.md) in `task/` under two halves of the tests: those of
single examples, written by hand, and those of `trioshim.testing` (seeded schedules, a cancellation
at every step, a fault at every call of a port, the conformance suite), which know nothing of any
defect.  The tests that were written because a defect had survived are in neither.

Written by `python -m tests.mutants.compare --write`.

"""


@dataclass(frozen=True)
class Seen:
    """The tests that saw one defect; "" where none did."""

    defect: Defect
    examples: str
    kit: str

    def __str__(self) -> str:
        return f"{self.defect.name}: examples {self.examples or '-'}, kit {self.kit or '-'}"


def seen_by(defect: Defect, tests: Sequence[str]) -> str:
    """The test that saw a defect, of one half; "" if none did."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as where:
        edited_copy(Path(where), defect.file, defect.old, defect.new)
        return _first(run_tests(Path(where), tests, limit=LIMIT))


def _first(outcome: Outcome) -> str:
    if outcome.code is None:
        return "(hangs)"
    if outcome.code == 0:
        return ""
    if not outcome.failed:
        raise RuntimeError(f"pytest ended with {outcome.code}: {outcome.text[-500:]}")
    return outcome.failed


def compare(defect: Defect) -> Seen:
    """Make one defect under both halves."""
    return Seen(defect, seen_by(defect, EXAMPLES), seen_by(defect, KIT))


def table(all_seen: Iterable[Seen]) -> str:
    """The page of the docs."""
    seen = list(all_seen)
    groups = {
        "Seen by the kit alone": [one for one in seen if one.kit and not one.examples],
        "Seen by both": [one for one in seen if one.kit and one.examples],
        "Seen by examples alone": [one for one in seen if one.examples and not one.kit],
        "Seen by neither, until a test was written": [
            one for one in seen if not one.examples and not one.kit
        ],
    }
    counts = [f"| {name} | {len(members)} |" for name, members in groups.items()]
    parts = [_HEAD + "\n".join(["| | defects |", "| --- | --- |", *counts]) + "\n"]
    for name, members in groups.items():
        rows = [f"| {one.defect.name} | {_where(one)} |" for one in members]
        parts.append("\n".join([f"\n## {name}\n", "| Defect | Test |", "| --- | --- |", *rows]))
    return "\n".join(parts) + "\n"


def _where(one: Seen) -> str:
    return f"`{one.kit or one.examples or one.defect.caught_by[0]}`"


def main() -> int:
    """Parse the arguments, run, tell."""
    simulated = [one for one in DEFECTS if one.file.startswith(PARTS)]
    wanted = parse("tests.mutants.compare", __doc__, TABLE, simulated)
    for tests in (EXAMPLES, KIT):
        if failed := seen_by(NO_DEFECT, tests):
            sys.exit(f"{failed} fails without any defect: first see to that")
    seen = []
    with ThreadPoolExecutor(wanted.jobs) as pool:
        for one in pool.map(compare, wanted.defects):
            print(one, flush=True)
            seen.append(one)
    if wanted.write:
        TABLE.write_text(table(seen), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
