"""Our shim as pip installs it, for the time of a measurement.

Promises: the package is copied, so nothing that is edited meanwhile is measured, and a checkout's
editable installation, whose finder takes longer to load than `start` takes, is not measured either.
At the end the templates that were made of it have gone.
"""

from __future__ import annotations

import compileall
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trioshim

__all__ = ["lay_out", "open_installation"]

_TEMPLATES = """
import os, sys
sys.path.append({packages!r})
from trioshim.bootstrap._template import template_path
from trioshim.cli import _ready
print(template_path({{}}), _ready._path({{}}))
"""


def lay_out(directory: Path, package: Path) -> Path:
    """An environment of all that is installed here, with a copy of our package; where that is.

    Args:
        directory: where it is made.
        package: what is copied.
    """
    packages = directory / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    packages.mkdir(parents=True)
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "trioshim" not in entry.name and entry.name != "__pycache__":
            (packages / entry.name).symlink_to(entry)
    (directory / "bin").mkdir(exist_ok=True)
    (directory / "bin" / "python3").symlink_to(Path(sys.executable).resolve())
    with suppress(FileNotFoundError):  # not in a virtual environment
        shutil.copy2(Path(sys.prefix, "pyvenv.cfg"), directory)
    return Path(shutil.copytree(package, packages / "trioshim"))


@contextmanager
def open_installation(directory: Path, executable: Path) -> Iterator[Path]:
    """An environment with the executable during the block; the executable's path in it.

    The command `trioshim` is beside it.

    Args:
        directory: where it is made.
        executable: the one that was installed by pip.
    """
    ours = lay_out(directory, Path(trioshim.__file__).parent)
    compileall.compile_dir(ours, quiet=2)
    python = directory / "bin" / "python3"
    installed = Path(shutil.copy2(executable, directory / "bin"))
    command = Path(shutil.copy2(executable.with_name("trioshim"), directory / "bin"))
    first, _, rest = command.read_text("utf-8").partition("\n")
    assert first.startswith("#!")
    command.write_text(f"#!{python}\n{rest}", "utf-8")
    try:
        yield installed
    finally:
        program = _TEMPLATES.format(packages=str(ours.parent))
        asked = [str(python), "-IS", "-c", program]
        done = subprocess.run(asked, stdout=subprocess.PIPE, check=True, text=True)
        for path in done.stdout.split():
            _end_template(Path(path))


def _end_template(socket: Path) -> None:
    words = b"trioshim-template\0" + os.fsencode(socket) + b"\0"
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # no process, or it has ended
            if (entry / "cmdline").read_bytes().startswith(words):
                os.kill(int(entry.name), signal.SIGTERM)
    for path in (socket, socket.with_suffix(".lock")):
        path.unlink(missing_ok=True)
