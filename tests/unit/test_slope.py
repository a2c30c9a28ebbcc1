"""The memory benchmark measures; how steep the slope is, is not for so few calls to say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.slope import Slope, resident

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("limit", "code"), [("1e9", 0), ("-1e9", 1)])
def test_without_a_runtime_the_wire_is_measured(tmp_path: Path, limit: str, code: int) -> None:
    """A constant answer, the calls that were asked for, and the limit is what decides."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.slope", "--calls", "500", f"--limit={limit}"],
        cwd=ROOT,
        env=os.environ | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "no container, State only" in done.stderr
    found = re.fullmatch(r"State .* bytes for each of ([\d,]+) calls\n", done.stdout)
    assert found is not None
    assert int(found[1].replace(",", "")) >= 250


def test_a_slope_is_bytes_by_call() -> None:
    """What came after the warm-up, by the calls that came after it."""
    assert Slope("State", begun=1000, ended=1500, calls=250).each == 2.0


def test_memory_of_a_process_is_what_is_its_own() -> None:
    """Ten MiB more that are touched are ten MiB more."""
    before = resident(os.getpid())
    some = bytearray(b"x") * (10 * 2**20)
    assert 9 * 2**20 < resident(os.getpid()) - before < 12 * 2**20
    assert some
