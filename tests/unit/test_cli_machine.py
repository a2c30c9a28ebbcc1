"""`trioshim check`: what is found on machines of every kind, and what it says to do."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from trioshim.cli import _check, _main
from trioshim.cli._lines import RUNTIME, Daemon, lines_for
from trioshim.cli._machine import SHIM, Finding, Machine, Verdict, World, inspect, read_version

HYBRID = (
    "30 29 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    "31 29 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "32 29 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "33 29 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
)


@dataclass
class FakeMachine:
    """A machine with everything, but for what a test takes away."""

    is_root: bool = True
    kernel: str = "6.1.0-13-amd64"
    has_pidfds: bool = True
    programs: set[str] = field(
        default_factory=lambda: {
            *("runc", "crun", "criu", "umoci", "skopeo", "containerd", "dockerd", SHIM)
        }
    )
    files: dict[str, str] = field(
        default_factory=lambda: {
            "/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
            "/proc/filesystems": "nodev\toverlay\n",
        }
    )
    path: str | None = "/daemon/bin"
    runs: bool = True

    def root(self) -> bool:
        return self.is_root

    def release(self) -> str:
        return self.kernel

    def pidfds(self) -> bool:
        return self.has_pidfds

    def which(self, name: str, path: str | None = None) -> str | None:
        return f"{path or '/usr/bin'}/{name}" if name in self.programs else None

    def read(self, path: str) -> str:
        return self.files.get(path, "")

    def daemon_path(self) -> str | None:
        return self.path

    def answers(self, path: str) -> bool:
        return self.runs

    async def said(self, argv: Sequence[str]) -> str:
        return f"{argv[0]} version 1.2.3\nspec: 1.0.2"


async def found(world: World) -> dict[str, Finding]:
    return {finding.name: finding for finding in await inspect(world)}


async def test_a_machine_with_everything() -> None:
    """Nothing is missing, and versions are told."""
    findings = await found(FakeMachine())
    assert {finding.verdict for finding in findings.values()} == {Verdict.OK}
    assert findings["runc"].found == "1.2.3 (/usr/bin/runc)"
    assert findings["cgroups"].found == "v2"
    assert findings["shim for containerd"].found == f"/daemon/bin/{SHIM}, in containerd's PATH"


@pytest.mark.parametrize(
    ("machine", "name", "hint"),
    [
        (FakeMachine(is_root=False), "user", "sudo"),
        (FakeMachine(kernel="5.3.18"), "kernel", "5.4"),
        (FakeMachine(has_pidfds=False), "kernel", "pidfd_open"),
        (FakeMachine(programs={SHIM}), "runc", "apt-get install runc"),
        (FakeMachine(programs={"runc"}), "shim", "install trioshim again"),
        (FakeMachine(files={}), "cgroups", "mount /sys/fs/cgroup"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_without_these_nothing_works(machine: FakeMachine, name: str, hint: str) -> None:
    """Each says what to do."""
    finding = (await found(machine))[name]
    assert finding.verdict is Verdict.MISSING
    assert hint in finding.advice


@pytest.mark.parametrize(
    ("machine", "name", "hint"),
    [
        (FakeMachine(programs={"runc", SHIM}), "criu", "checkpoints"),
        (FakeMachine(programs={"runc", SHIM}), "umoci", "--image"),
        (FakeMachine(programs={"runc", SHIM}), "containerd", "works without it"),
        (FakeMachine(programs={"runc"}), "shim for containerd", "ln -s"),
        (FakeMachine(files={"/sys/fs/cgroup/cgroup.controllers": "cpu"}), "overlay", "modprobe"),
        (FakeMachine(files={"/sys/fs/cgroup/cgroup.controllers": "cpu"}), "controllers", "limit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_without_these_something_works_less(
    machine: FakeMachine, name: str, hint: str
) -> None:
    """It says what for."""
    finding = (await found(machine))[name]
    assert finding.verdict is Verdict.WANTED
    assert hint in finding.advice


async def test_the_mode_of_cgroups() -> None:
    """v1 and hybrid are told from the mounts."""
    hybrid = FakeMachine(files={"/proc/self/mountinfo": HYBRID})
    v1 = FakeMachine(files={"/proc/self/mountinfo": HYBRID.partition("\n")[2]})
    assert (await found(hybrid))["cgroups"].found == "v1 and v2 (hybrid)"
    assert (await found(v1))["cgroups"].found == "v1"
    assert (await found(v1))["controllers"].found == "cpu, memory, pids"


async def test_this_machine_can_be_looked_at() -> None:
    """Without root too, whatever is installed."""
    findings = await found(Machine())
    assert {"user", "kernel", "runc", "cgroups"} <= findings.keys()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3", (1, 6, 20)),
        ("runc version 1.1.5+ds1", (1, 1, 5)),
        ("Docker version 26.1.5, build 1", (26, 1, 5)),
        ("no number", ()),
    ],
)
def test_versions_are_read(text: str, version: tuple[int, ...]) -> None:
    """Wherever they stand."""
    assert read_version(text) == version


# ---------------------------------------------------------------- the command


def test_the_exit_status_tells_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """1 if nothing works, 0 else; as lines for people and for programs."""
    monkeypatch.setattr(_check, "Machine", FakeMachine)
    assert _main.obey(["check"]) == 0
    assert "ok       runc: 1.2.3 (/usr/bin/runc)\n" in capsys.readouterr().out
    monkeypatch.setattr(_check, "Machine", lambda: FakeMachine(is_root=False))
    assert _main.obey(["check", "--json"]) == 1
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (first["what"], first["status"]) == ("user", "missing")


@pytest.mark.parametrize("daemon", [daemon.value for daemon in Daemon])
def test_lines_are_all_that_is_printed(
    daemon: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So they can be redirected into a file."""
    monkeypatch.setattr(_check, "Machine", FakeMachine)
    assert _main.obey(["check", "--config", daemon]) == 0
    shim = f"/usr/bin/{SHIM}"
    wanted = lines_for(Daemon(daemon), shim=shim, containerd=(1, 2))
    assert capsys.readouterr().out == wanted


@pytest.mark.parametrize(
    ("version", "number", "plugin"),
    [
        ((1, 6), 2, "io.containerd.grpc.v1.cri"),
        ((1, 7), 2, "io.containerd.grpc.v1.cri"),
        ((2, 1), 3, "io.containerd.cri.v1.runtime"),
        (None, 2, "io.containerd.grpc.v1.cri"),
    ],
)
def test_containerds_lines_are_toml(
    version: tuple[int, ...] | None, number: int, plugin: str
) -> None:
    """In the words of that version."""
    config = tomllib.loads(lines_for(Daemon.CONTAINERD, shim="/x/shim", containerd=version))
    assert config["version"] == number
    runtimes = config["plugins"][plugin]["containerd"]["runtimes"]
    assert runtimes == {"trio": {"runtime_type": RUNTIME}}


def test_dockers_lines_are_json() -> None:
    """But for the comments."""
    text = lines_for(Daemon.DOCKER, shim="/x/shim", containerd=None)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert json.loads("\n".join(lines)) == {"runtimes": {"trio": {"runtimeType": "/x/shim"}}}


def test_kubernetes_has_both_ends() -> None:
    """The handler in containerd, and the class that names it."""
    text = lines_for(Daemon.KUBERNETES, shim="/x/shim", containerd=(1, 7))
    assert "containerd.runtimes.trio]" in text
    assert "kind: RuntimeClass" in text
    assert text.endswith("handler: trio\n")
