"""The containerd of another Debian release than the machine's, from scripts/daemons-setup.

Nothing is fetched before a test asks for it.  A suite that the machine's mirror does not give is
always a skip: this project cannot make it appear.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from .daemon import Daemon

SUITES = ("trixie", "forky")


def programs_of(suite: str, give_up: Callable[[str], None]) -> Path:
    """The folder of the suite's containerd, ctr, dockerd and docker; skips if there is none."""
    folders, complaints = _set_up()
    if suite not in folders:
        pytest.skip(f"no programs of {suite}: {complaints[-500:]}")
    for program in ("containerd", "ctr", "dockerd", "docker"):
        argv = [str(folders[suite] / program), "--version"]
        answer = subprocess.run(argv, capture_output=True, text=True, check=False)
        if answer.returncode:
            give_up(f"{argv} fails: {answer.stderr[-300:]}")
    return folders[suite]


class ReleasedDaemon(Daemon):
    """A private containerd of that release, and the `ctr` that belongs to it."""

    def __init__(self, programs: Path, *, debug: bool = False) -> None:
        self.programs = programs
        super().__init__(path=[str(programs)], debug=debug)
        # From 1.7 on, "debug" leaves out the events that `forwarded` looks for.
        config = self._config.read_text("utf-8").replace('level = "debug"', 'level = "trace"')
        self._config.write_text(config, "utf-8")

    @property
    def major(self) -> int:
        """1 or 2."""
        server = self.ctr("version").stdout.partition("Server:")[2]
        return int(server.partition("Version:")[2].split(".")[0])

    def _argv(self, *args: str) -> list[str]:
        _, *rest = super()._argv(*args)
        # What 1.7 thinks of its configuration would stand in the container's stderr.
        quiet = ("env", "CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1")
        return [*quiet, str(self.programs / "ctr"), *rest]


@cache
def _set_up() -> tuple[dict[str, Path], str]:
    script = Path(__file__).parents[2] / "scripts" / "daemons-setup"
    done = subprocess.run([script], capture_output=True, text=True, check=False)
    pairs = (line.split("=", 1) for line in done.stdout.splitlines())
    return {suite: Path(folder) for suite, folder in pairs}, done.stderr
