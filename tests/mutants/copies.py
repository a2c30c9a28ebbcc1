"""A copy of the package and of its tests with one edit, and a pytest that runs in it.

The checkout is never touched: the copy lies in a directory of its own, and Python finds it first.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Outcome", "edited_copy", "run_tests"]

ROOT = Path(__file__).parents[2]
SCHEDULES = "400"  # enough for every break of a law to be seen
_OPTIONS = ("-x", "-q", "--no-header", "-p", "no:cacheprovider")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?)(?:\[.*)?(?: - .*)?$", re.MULTILINE)
_SKIPPED = shutil.ignore_patterns("__pycache__")


@dataclass(frozen=True)
class Outcome:
    """What pytest said: its exit code (None: it was ended by the time limit) and its words."""

    code: int | None
    text: str

    @property
    def failed(self) -> str:
        """The first test that failed, without its parameters; "" where none is named."""
        found = _FAILED.search(self.text)
        return found[1] if found else ""


def edited_copy(where: Path, file: str, old: str, new: str, *, append: str = "") -> None:
    """Copy package and tests into an empty directory and edit one file of the package.

    Args:
        where: the directory.
        file: below `trioshim`.
        old: what is replaced; it has to be there once.
        new: what stands there instead.
        append: text for the end of the file.

    Raises:
        ValueError: `old` is not there, or more than once.
    """
    text = (ROOT / "trioshim" / file).read_text("utf-8")
    if (count := text.count(old)) != 1:
        raise ValueError(f"the text to be edited occurs {count} times in {file}, not once: {old!r}")
    shutil.copytree(ROOT / "trioshim", where / "trioshim", ignore=_SKIPPED)
    shutil.copytree(ROOT / "tests", where / "tests", ignore=_SKIPPED)
    shutil.copy(ROOT / "pyproject.toml", where)
    (where / "trioshim" / file).write_text(text.replace(old, new) + append, "utf-8")


def run_tests(where: Path, tests: Sequence[str], *, limit: float) -> Outcome:
    """Run tests of a copy up to the first that fails, for at most `limit` seconds.

    A run that takes longer is killed with every process of its group.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *_OPTIONS, *tests],
        cwd=where,
        env=os.environ | {"PYTHONPATH": str(where), "TRIOSHIM_SCHEDULES": SCHEDULES},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        text, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        text, _ = process.communicate()
        return Outcome(None, text)
    return Outcome(process.returncode, text)
