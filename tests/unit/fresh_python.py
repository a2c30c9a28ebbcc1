"""A Python of its own: there texts have other hashes, and objects lie elsewhere in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUARD = 60  # seconds; only against a hanging process


def printed_by(*arguments: str, hash_seed: str) -> str:
    """What a fresh Python prints for these arguments; it has to end well.

    Args:
        arguments: such as `-c` and a program.
        hash_seed: its PYTHONHASHSEED.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
        timeout=GUARD,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
