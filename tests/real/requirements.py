"""What these tests need of a machine, and which runtimes they speak to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

GO = "io.containerd.runc.v2"
TRIO = "io.containerd.trio.v1"
BINARIES = {GO: "containerd-shim-runc-v2", TRIO: "containerd-shim-trio-v1"}

# TRIOSHIM_RUNTIMES=io.containerd.trio.v1 leaves the oracle out, and the other way round.
RUNTIMES = os.environ.get("TRIOSHIM_RUNTIMES", f"{GO},{TRIO}").split(",")

# For promises that the Go shim of containerd 1.6 is known not to keep.
ours_only = pytest.mark.parametrize("runtime", [TRIO], indirect=True)


@cache
def missing_from_machine() -> str:
    """Why no test of this directory can run here; "" if they can."""
    if os.geteuid() != 0:
        return "not root"
    wanted = ("containerd", "ctr", "runc", "busybox", "chroot", "umount")
    absent = [name for name in wanted if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)} (scripts/setup installs it)" if absent else ""


@cache
def missing_shim(runtime: str) -> str:
    """Why this runtime's shim cannot be used; "" if it can."""
    program = shim_program(runtime)
    if program is None:
        return f"no {BINARIES[runtime]} in PATH or beside {sys.executable}"
    answer = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
    return f"{program} -v fails: {answer.stderr[-300:]}" if answer.returncode else ""


def shim_program(runtime: str) -> str | None:
    """The shim that the daemons here find: that of our own environment comes first."""
    own = str(Path(sys.executable).parent)
    return shutil.which(BINARIES[runtime], path=f"{own}:{os.environ.get('PATH', os.defpath)}")
