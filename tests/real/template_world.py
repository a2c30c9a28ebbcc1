"""Templates of one test: in a directory of its own, with an idle time of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from .poll import eventually
from .verb_world import World, end, open_world

# What `start` is told in these tests, since no variable says it.
PRELUDE = """
from trioshim.bootstrap import _template
_template.DIRECTORY, _template.TEMPLATE_IDLE = {directory!r}, {idle}
"""


@dataclass
class TemplateWorld:
    """A world in which `start` may use a template.

    Attributes:
        directory: where the templates are.
        python: what runs `start`, the server and the template.
    """

    world: World
    directory: Path
    python: str = sys.executable
    idle: float = 600
    ids: list[str] = field(default_factory=list)

    def command(self, id_: str) -> tuple[list[str], Path, dict[str, str]]:
        """`start` for a container: its command line, directory and environment."""
        self.ids.append(id_)
        argv = self.world.argv("start", id_=id_, server=self.python)
        argv[0] = self.python
        prelude = PRELUDE.format(directory=str(self.directory), idle=self.idle)
        environ = self.world.environ(TRIOSHIM_TEMPLATE="on", PRELUDE=prelude)
        return argv, self.world.bundle(id_), environ

    def start(self, id_: str, *wrapper: str, template: str = "on") -> int:
        """Run `start`, inside of another program if that is given; the pid of the shim."""
        argv, bundle, environ = self.command(id_)
        done = subprocess.run(
            [*wrapper, *argv],
            cwd=bundle,
            env=environ | {"TRIOSHIM_TEMPLATE": template},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == f"unix://{self.world.path(id_)}".encode()
        return int((bundle / "shim.pid").read_text())

    def processes(self, kind: str = "trioshim-template") -> list[int]:
        """Templates or spares of this world."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if words[0] == kind.encode() and bytes(self.directory) in words[1]:
                    found.append(int(entry.name))
        return found

    def loading(self) -> list[int]:
        """Templates of this world that have not shown who they are yet."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                if b"\0-m\0trioshim.template\0" in line and bytes(self.directory) in line:
                    found.append(int(entry.name))
        return found

    def ready(self) -> int:
        """Wait until there is a template with a spare; its pid."""
        eventually(lambda: self.processes("trioshim-spare"), "a spare")
        (template,) = self.processes()
        return template

    def template(self) -> int:
        """See to it that there is a template, at the cost of a first container; its pid."""
        self.start(f"first{len(self.ids)}", template="on")
        return self.ready()

    def files(self) -> set[str]:
        """What is in the directory: kinds, since the names are hashes."""
        return {path.suffix for path in self.directory.iterdir()}

    def close(self) -> None:
        """End the templates, those that load too; they take their spares with them."""
        for pid in [*self.loading(), *self.processes()]:
            end(pid)
        eventually(lambda: not self.processes("trioshim-spare"), "the spares to end")


@contextmanager
def open_template_world(tmp_path: Path) -> Iterator[TemplateWorld]:
    """A world with no template yet; afterwards neither a template nor a shim of it is left."""
    with open_world(tmp_path) as world:
        there = TemplateWorld(world, world.sockets.with_name("t"))
        try:
            yield there
        finally:
            there.close()


def spares_of(path: str) -> list[int]:
    """The spare that waits at a template's socket."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if (entry / "cmdline").read_bytes() == f"trioshim-spare\0{path}\0".encode():
                found.append(int(entry.name))
    return found


def was_forked(pid: int) -> bool:
    """Whether a shim comes from a template: it has never been through execve."""
    # A process that was spawned has its command line at the top of its stack.
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    start_stack, arg_start = int(fields[28 - 3]), int(fields[48 - 3])
    return arg_start < start_stack


def stop(pid: int) -> None:
    """SIGSTOP: it is there and does nothing."""
    os.kill(pid, signal.SIGSTOP)


def socket_of(world: TemplateWorld) -> Path:
    (path,) = world.directory.glob("*.sock")
    return path
