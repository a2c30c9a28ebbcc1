"""The executable as it is installed, for tests in which its shell asks a spare itself."""

from __future__ import annotations

import compileall
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trioshim
from benchmarks._install import lay_out

from .poll import eventually
from .template_world import TemplateWorld
from .verb_world import NS, A, open_world

ROOT = Path(__file__).parents[2]
NAME = "containerd-shim-trio-v1"
# Beside the executable; says that Python was needed.
WRAPPER = """#!/bin/sh
echo "$@" >>{log}
exec {python} "$@"
"""


@dataclass
class ShellWorld(TemplateWorld):
    """A world in which `start` is the installed executable.

    Attributes:
        program: the executable.
        log: a line for each time that it was for Python.
    """

    program: Path = Path()
    log: Path = Path()

    def command(self, id_: str) -> tuple[list[str], Path, dict[str, str]]:
        self.ids.append(id_)
        words = ["-namespace", NS, "-address", A, "-publish-binary", "/containerd", "-id", id_]
        environ = self.world.environ(TRIOSHIM_TEMPLATE="")
        return [str(self.program), *words, "start"], self.world.bundle(id_), environ

    def pythons(self) -> int:
        """How often `start` was for Python so far."""
        return len(self.log.read_text().splitlines())

    def ready(self) -> int:
        """Wait until there is a template, and a spare with an open hatch."""
        template = super().ready()
        eventually(self.waits, "a spare at its hatch")
        return template

    def waits(self) -> bool:
        """Whether a spare waits at its hatch; one that does something is not asked."""
        with suppress(FileNotFoundError, ProcessLookupError):
            stat = Path(f"/proc/{self.spare()}/stat").read_text()
            return self.spare() in self.processes("trioshim-spare") and ") S " in stat
        return False

    def spare(self) -> int:
        """The pid of the spare that has told where it is."""
        return int(self.file().read_text().split()[0])

    def file(self) -> Path:
        """Where it tells."""
        return self.directory / str(self.program).replace("/", ":")

    def template(self) -> int:
        """See to it that the next `start` is for the shell, at the cost of two containers."""
        for _ in range(2):  # the second tells who adopts the daemon's orphans
            self.start(f"first{len(self.ids)}", template="")
            template = self.ready()
        return template


@contextmanager
def open_shell_world(tmp_path: Path, package: Path) -> Iterator[ShellWorld]:
    """A world with no template yet; afterwards nothing of it is left.

    Args:
        tmp_path: for bundles.
        package: a copy of ours that is compiled.
    """
    with open_world(tmp_path) as world:
        prefix = world.sockets.with_name("p")
        directory = world.sockets.with_name("t")
        program = prefix / "bin" / "tools" / NAME
        program.parent.mkdir(parents=True)
        _move_templates(lay_out(prefix, package), directory)
        python = prefix / "bin" / "python3"
        text = (ROOT / "scripts" / NAME).read_text()
        assert "/run/trioshim-template/" in text
        program.write_text(text.replace("/run/trioshim-template/", f"{directory}/"))
        log = prefix / "log"
        log.touch()
        wrapper = program.with_name("python3")
        wrapper.write_text(WRAPPER.format(log=log, python=python))
        for path in (program, wrapper):
            path.chmod(0o755)
        there = ShellWorld(world, directory, str(python), program=program, log=log)
        try:
            yield there
        finally:
            there.close()


def compile_package(place: Path) -> Path:
    """A copy of ours in which no `start` has to compile anything."""
    copy = Path(shutil.copytree(Path(trioshim.__file__).parent, place / "trioshim"))
    compileall.compile_dir(copy, quiet=2)
    return copy


def _move_templates(ours: Path, directory: Path) -> None:
    module = ours / "bootstrap" / "_template.py"
    line = 'DIRECTORY = "/run/trioshim-template"\n'
    text = module.read_text()
    assert line in text
    module.write_text(text.replace(line, f"DIRECTORY = {os.fspath(directory)!r}\n"))
