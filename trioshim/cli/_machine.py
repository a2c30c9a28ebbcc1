"""What this machine has of all that containers need, each with what to do if it is missing."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

import trio

__all__ = ["Finding", "Machine", "Verdict", "World", "find_shim", "inspect", "read_version"]

SHIM = "containerd-shim-trio-v1"
SOCKET = "/run/containerd/containerd.sock"
_SERVICE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # systemd's
_OLDEST_KERNEL = (5, 4)  # pidfds that can be waited for
_CONTROLLERS = ("cpu", "memory", "pids")
_SECONDS = 5.0  # for a program to tell its version
_PROGRAMS = ("runc", "crun", "criu", "umoci", "skopeo", "containerd", "dockerd")


class Verdict(Enum):
    """How a finding is to be taken."""

    OK = "ok"
    WANTED = "wanted"  # something works less without it
    MISSING = "missing"  # nothing works without it


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        name: what was looked for.
        verdict: whether it is there.
        found: what is there.
        advice: what to do; "": nothing.
    """

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


class World(Protocol):
    """What is asked of the machine."""

    def root(self) -> bool: ...
    def release(self) -> str: ...
    def pidfds(self) -> bool: ...
    def which(self, name: str, path: str | None = None) -> str | None: ...
    def read(self, path: str) -> str: ...
    def daemon_path(self) -> str | None: ...
    def answers(self, path: str) -> bool: ...
    async def said(self, argv: Sequence[str]) -> str: ...


class Machine:
    """This machine."""

    def root(self) -> bool:
        return os.geteuid() == 0

    def release(self) -> str:
        return os.uname().release

    def pidfds(self) -> bool:
        try:
            os.close(os.pidfd_open(os.getpid()))
        except OSError:
            return False
        return True

    def which(self, name: str, path: str | None = None) -> str | None:
        return shutil.which(name, path=path)

    def read(self, path: str) -> str:
        """A file; "" if it cannot be read."""
        with suppress(OSError):
            return Path(path).read_text("utf-8", "replace")
        return ""

    def daemon_path(self) -> str | None:
        """The PATH of a containerd that runs; None: there is none, or it is not shown to us."""
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdecimal() and (entry / "comm").read_text().strip() == "containerd":
                    for line in (entry / "environ").read_text("utf-8", "replace").split("\0"):
                        if line.startswith("PATH="):
                            return line.removeprefix("PATH=")
        return None

    def answers(self, path: str) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(path) == 0

    async def said(self, argv: Sequence[str]) -> str:
        """What a program writes; "" if it cannot be run."""
        with suppress(OSError), trio.move_on_after(_SECONDS):
            done = await trio.run_process(
                argv, capture_stdout=True, capture_stderr=True, check=False
            )
            return (done.stdout + done.stderr).decode("utf-8", "replace")
        return ""


def read_version(text: str) -> tuple[int, ...]:
    """The first number with dots in a text; () if there is none."""
    match = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def find_shim(world: World) -> str | None:
    """The absolute path of our shim's program: in PATH, else beside our own Python."""
    own = os.path.dirname(sys.executable)
    return world.which(SHIM) or world.which(SHIM, own)


async def inspect(world: World) -> list[Finding]:
    """Look at everything; what cannot be done without comes first."""
    paths = {name: world.which(name) for name in _PROGRAMS}
    versions: dict[str, str] = {}

    async def ask(name: str, path: str) -> None:
        text = await world.said([path, "--version"])
        versions[name] = ".".join(str(part) for part in read_version(text)) or "version unknown"

    async with trio.open_nursery() as nursery:
        for name, path in paths.items():
            if path is not None:
                nursery.start_soon(ask, name, path)
    return [
        _user(world),
        _kernel(world),
        *_cgroups(world),
        _needed("runc", paths, versions),
        _our_shim(world),
        _daemon_finds_shim(world),
        _overlay(world),
        *_wanted(paths, versions),
        *_daemons(world, paths, versions),
    ]


def _user(world: World) -> Finding:
    if world.root():
        return Finding("user", Verdict.OK, "root")
    return Finding("user", Verdict.MISSING, "not root", "put sudo in front of trioshim")


def _kernel(world: World) -> Finding:
    release = world.release()
    if read_version(release)[:2] >= _OLDEST_KERNEL and world.pidfds():
        return Finding("kernel", Verdict.OK, f"{release}, with pidfds")
    advice = "trioshim needs Linux 5.4 or newer, and pidfd_open allowed"
    return Finding("kernel", Verdict.MISSING, release, advice)


def _cgroups(world: World) -> Iterator[Finding]:
    unified = world.read("/sys/fs/cgroup/cgroup.controllers")
    mounts = [line.split() for line in world.read("/proc/self/mountinfo").splitlines()]
    kinds = {row[row.index("-") + 1] for row in mounts if "-" in row}
    if unified:
        mode, there = "v2", set(unified.split())
    elif "cgroup" in kinds:
        mode = "v1 and v2 (hybrid)" if "cgroup2" in kinds else "v1"
        options = (row[-1].split(",") for row in mounts if "cgroup" in row[row.index("-") :][:2])
        there = {option for words in options for option in words}
    else:
        yield Finding("cgroups", Verdict.MISSING, "none", "mount /sys/fs/cgroup, as systemd does")
        return
    yield Finding("cgroups", Verdict.OK, mode)
    absent = [name for name in _CONTROLLERS if name not in there]
    if absent:
        advice = "without it there is no such limit; see the kernel's command line (cgroup_enable=)"
        yield Finding("controllers", Verdict.WANTED, f"no {', '.join(absent)}", advice)
    else:
        yield Finding("controllers", Verdict.OK, ", ".join(_CONTROLLERS))


def _needed(name: str, paths: dict[str, str | None], versions: dict[str, str]) -> Finding:
    path = paths[name]
    if path is None:
        return Finding(name, Verdict.MISSING, "not in PATH", f"apt-get install {name}")
    return Finding(name, Verdict.OK, f"{versions[name]} ({path})")


def _our_shim(world: World) -> Finding:
    path = find_shim(world)
    if path is None:
        advice = "install trioshim again: pip makes this program"
        return Finding("shim", Verdict.MISSING, f"no {SHIM}", advice)
    return Finding("shim", Verdict.OK, path)


def _daemon_finds_shim(world: World) -> Finding:
    told = world.daemon_path()
    where = "containerd's PATH" if told is not None else "the PATH of services"
    path = world.which(SHIM, told or _SERVICE_PATH)
    if path is not None:
        return Finding("shim for containerd", Verdict.OK, f"{path}, in {where}")
    target = find_shim(world) or SHIM
    advice = f"ln -s {target} /usr/local/bin/"
    return Finding("shim for containerd", Verdict.WANTED, f"not in {where}", advice)


def _overlay(world: World) -> Finding:
    if "overlay" in world.read("/proc/filesystems").split():
        return Finding("overlay", Verdict.OK, "the kernel has it")
    return Finding("overlay", Verdict.WANTED, "not loaded", "for --image: modprobe overlay")


def _wanted(paths: dict[str, str | None], versions: dict[str, str]) -> Iterator[Finding]:
    uses = {
        "crun": "another runtime, quicker than runc",
        "criu": "for checkpoints (Debian 12 has no package)",
        "umoci": "for --image",
        "skopeo": "for --image with docker archives",
    }
    for name, use in uses.items():
        if paths[name] is None:
            yield Finding(name, Verdict.WANTED, "not in PATH", f"{use}: apt-get install {name}")
        else:
            yield Finding(name, Verdict.OK, f"{versions[name]} ({paths[name]})")


def _daemons(
    world: World, paths: dict[str, str | None], versions: dict[str, str]
) -> Iterator[Finding]:
    advice = "`trioshim check --config {}` shows how it is told about the shim"
    if paths["containerd"] is None:
        yield Finding(
            "containerd", Verdict.WANTED, "not in PATH", "`trioshim run` works without it"
        )
    else:
        state = f"listens at {SOCKET}" if world.answers(SOCKET) else "does not run"
        found = f"{versions['containerd']}, {state}"
        yield Finding("containerd", Verdict.OK, found, advice.format("containerd"))
    if paths["dockerd"] is not None:
        yield Finding("docker", Verdict.OK, versions["dockerd"], advice.format("docker"))
