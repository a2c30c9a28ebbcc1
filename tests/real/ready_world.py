"""`trioshim run` by a ready process that must do it, with a template of these tests alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .cli_world import Cli, usual_environment
from .poll import eventually
from .template_world import spares_of
from .verb_world import end

NOT_DONE = 250  # there was no ready process, and nothing was done
GUARD = 60  # seconds; only against a hanging process

# The directory of its own, more patience than a busy machine needs, and what is to be done.
PROGRAM = """
import os, sys
from trioshim.bootstrap import _template
_template.DIRECTORY, what = sys.argv[1:3]
_template.TEMPLATE_TIMEOUT = 30.0
sys.argv[:] = ["trioshim", *sys.argv[3:]]
from trioshim.cli import _entry, _ready
if what == "leave":
    _ready.leave_one(sys.argv[1:], os.environ)
elif what == "ready":
    status = _ready.hand_over(sys.argv[1:], os.environ)
    os._exit(250 if status is None else status)
else:
    sys.exit(_entry.main())
"""


@dataclass(frozen=True, slots=True)
class Templates:
    """Templates of commands, in a directory of their own.

    Attributes:
        directory: where they are.
    """

    directory: Path

    def argv(self, what: str) -> list[str]:
        return [sys.executable, "-c", PROGRAM, str(self.directory), what]

    def processes(self) -> list[int]:
        """The templates, without their spares."""
        start = b"trioshim-template\0" + bytes(self.directory)
        return [pid for pid, words in command_lines() if words.startswith(start)]

    def spares(self) -> list[int]:
        sockets = self.directory.glob("*.sock") if self.directory.exists() else ()
        return [pid for path in sockets for pid in spares_of(str(path))]

    def ensure(self) -> None:
        """There is one, and it has a spare; one may have ended since code on disk was changed."""

        def is_ready() -> bool:
            if not self.processes():
                leave = [*self.argv("leave"), "run"]
                subprocess.run(leave, env=usual_environment(), check=True, timeout=GUARD)
            return bool(self.spares())

        eventually(is_ready, "a spare", within=GUARD)

    def end(self) -> None:
        """They take their spares with them."""
        for pid in self.processes():
            end(pid)
        eventually(lambda: not self.spares(), "the spares to end")


class Front(Cli):
    """A person whose every `run` is done by a ready process, or ends with `NOT_DONE`."""

    def __init__(self, templates: Templates) -> None:
        super().__init__()
        self.templates = templates
        self.what = "ready"
        self.env["TRIOSHIM_TEMPLATE"] = "on"

    def argv(self, name: str, *args: str) -> list[str]:
        if name != "run":
            return super().argv(name, *args)
        self.templates.ensure()
        own = [name, "--state-dir", str(self.base), "-n", self.namespace]
        return [*self.templates.argv(self.what), *own, *args]

    def left(self) -> set[str]:
        while True:
            with suppress(FileNotFoundError):  # somebody else's cgroup went while we looked
                return super().left()

    def close(self) -> None:
        while True:
            with suppress(FileNotFoundError):
                return super().close()

    def plainly(self, *args: str) -> list[str]:
        """The command line of a `run` without a ready process."""
        off = ["/usr/bin/env", "TRIOSHIM_TEMPLATE=off"]
        return [*off, *Cli.argv(self, "run", *args)]

    def helpers(self) -> list[int]:
        """The processes that do a `run` of ours, or hold a container of `run -d`."""
        return [
            pid
            for pid, words in command_lines()
            if words.startswith(b"trioshim\0run\0") and bytes(self.base) in words
        ]

    def helper(self) -> int:
        """The one that does it: a child that it spawns looks like it for a moment."""
        return min(eventually(self.helpers, "the ready process to begin"))


def command_lines() -> Iterator[tuple[int, bytes]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended while we looked
                yield int(entry.name), (entry / "cmdline").read_bytes()


@contextmanager
def open_templates() -> Iterator[Templates]:
    """No template yet; in the end there is none any more."""
    templates = Templates(Path(tempfile.mkdtemp(prefix="trst-"), "t"))
    try:
        yield templates
    finally:
        templates.end()
        shutil.rmtree(templates.directory.parent)


@contextmanager
def open_front(templates: Templates) -> Iterator[Front]:
    """In the end nothing is left of what was run, by itself or by `kill`."""
    front = Front(templates)
    try:
        yield front
        for id_ in front("ps", "-q").stdout.split():
            front("kill", id_)
        eventually(lambda: not front.left(), f"nothing to be left of {front.left()}")
    finally:
        front.close()


def holds(pid: int, fd: int) -> bool:
    """Whether a process has the pipe or file open that we have there."""
    with suppress(OSError):
        wanted = os.readlink(f"/proc/self/fd/{fd}")
        return wanted in {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
    return False
