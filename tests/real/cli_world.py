"""The command `trioshim` as a person calls it, with a directory and a namespace of its own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from . import leaks
from .poll import eventually

PROGRAM = str(Path(sys.executable).parent / "trioshim")


def usual_environment() -> dict[str, str]:
    """As people have it: what tox says to Python would keep a ready process from being used."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


class Cli:
    """One person's commands.

    Attributes:
        base: short, and of nobody else: bundles are below it.
        namespace: of all containers; nobody else's.
    """

    def __init__(self) -> None:
        self.namespace = f"trs-{secrets.token_hex(4)}"
        self.base = Path("/tmp", self.namespace)
        self.base.mkdir(mode=0o700)
        self.env = usual_environment() | {"TMPDIR": str(self.base)}
        self._children: list[subprocess.Popen[str]] = []

    def argv(self, name: str, *args: str) -> list[str]:
        """The command line: `name`, where the containers are, and the rest."""
        command = [sys.executable, "-m", "trioshim.cli", name, "--state-dir", str(self.base)]
        return [*command, "-n", self.namespace, *args]

    def __call__(
        self,
        name: str,
        *args: str,
        status: int = 0,
        stdin: str | None = None,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Call a command and insist on its exit status."""
        done = subprocess.run(
            self.argv(name, *args),
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=60,
            env=self.env | (env or {}),
            check=False,
        )
        assert done.returncode == status, done
        return done

    def begin(self, name: str, *args: str, **more: Any) -> subprocess.Popen[str]:
        """Call a command, and go on; it ends with the test."""
        process = subprocess.Popen(
            self.argv(name, *args),
            **({"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE} | more),
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
        )
        self._children.append(process)
        return process

    def rows(self, name: str, *args: str) -> list[dict[str, Any]]:
        """What a command says with --json."""
        return [json.loads(line) for line in self(name, *args, "--json").stdout.splitlines()]

    def bundle(self, id_: str) -> Path:
        return self.base / self.namespace / id_

    def left(self) -> set[str]:
        """Traces: processes, mounts, cgroups, runc's state, bundles."""
        cgroups = Path("/sys/fs/cgroup").glob(f"*/{self.namespace}*")
        home = self.base / self.namespace
        return {
            *leaks.look(self.base, self.namespace, ()),
            *(f"cgroup {path}" for path in cgroups),
            *(f"bundle {path}" for path in (home.iterdir() if home.exists() else ())),
        }

    def close(self) -> None:
        """End everything and remove every trace."""
        for process in self._children:
            if process.poll() is None:
                process.kill()
            process.communicate()
        leaks.sweep(self.base, self.namespace)
        for path in Path("/sys/fs/cgroup").glob(f"*/{self.namespace}@*"):
            with suppress(OSError):
                path.rmdir()
        shutil.rmtree(self.base, ignore_errors=True)


@contextmanager
def open_cli() -> Iterator[Cli]:
    """A person whose containers are all gone in the end, by themselves or by `kill`."""
    cli = Cli()
    try:
        yield cli
        for id_ in cli("ps", "-q").stdout.split():
            cli("kill", id_)
        eventually(lambda: not cli.left(), f"nothing to be left of {cli.left()}")
    finally:
        cli.close()


def read_line(process: subprocess.Popen[str], wanted: str) -> None:
    """Read the output up to a line."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == wanted:
            return
    raise AssertionError(f"no line {wanted!r}: {process.communicate()[1]}")


def end(process: subprocess.Popen[str], signum: int = signal.SIGINT) -> tuple[str, str]:
    """Send a signal; the rest of stdout, and stderr."""
    process.send_signal(signum)
    return process.communicate(timeout=20)
