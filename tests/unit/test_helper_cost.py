"""What `start` and `delete` cost every container: few imports, and a version that is a constant."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import trioshim
from trioshim._version import __version__

from .bootstrap_world import COMMON

SLOW = {
    *("enum", "collections", "functools", "re", "importlib", "warnings"),
    *("trio", "google", "asyncio", "logging", "typing", "dataclasses", "inspect", "subprocess"),
    *("json", "ctypes", "hashlib", "socket", "signal", "contextlib", "importlib.metadata"),
}
PROGRAM = """
import os, sys
sys.path[:0] = {path!r}
sys.executable = "/bin/true"
sys.argv = ["shim", *{argv!r}]
from trioshim.__main__ import main
status = main()
names = "\\n".join(sys.modules).encode()
os.write(os.open({report!r}, os.O_WRONLY | os.O_CREAT), names)
sys.exit(status)
"""


@pytest.fixture
def sockets() -> Iterator[str]:
    """A directory for sockets: pytest's own have names that are too long."""
    with tempfile.TemporaryDirectory(prefix="ts-") as directory:
        yield directory


@pytest.mark.parametrize("verb", ["start", "delete", "-v"])
def test_helpers_import_little(verb: str, tmp_path: Path, sockets: str) -> None:
    """Each import is paid once for each container: the slow ones stay out."""
    argv = [verb] if verb == "-v" else [*COMMON, verb]
    root = str(Path(trioshim.__file__).parent.parent)
    report = tmp_path / "report"
    program = PROGRAM.format(path=[root], argv=argv, report=str(report))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        cwd=tmp_path,
        env={"TRIOSHIM_SOCKET_DIR": sockets, "TRIOSHIM_TEMPLATE": "off", "PATH": "/nowhere"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(report.read_text().split("\n"))
    assert "trioshim.__main__" in loaded
    assert loaded & SLOW == set()


def test_the_version_is_told_once() -> None:
    """The constant and the package's metadata agree."""
    assert importlib.metadata.version("trioshim") == __version__
