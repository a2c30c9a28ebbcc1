"""`Runc` on `LinuxKernel` and the real runc: the cases that the runtime in memory passes too."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from trioshim.abc import Child, ContainerSpec, ExecSpec, Options
from trioshim.linux import LinuxKernel
from trioshim.proto import runc_options_pb2
from trioshim.runc import Runc

from . import runc_world, runtime_cases, runtime_cases_inside
from .runc_world import Pipe, PlainStdio
from .runtime_cases import Does

CASES = runtime_cases.CASES + runtime_cases_inside.CASES
BUSYBOX = "/bin/busybox"
MEMORY_LIMIT = 64 << 20

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="needs runc"),
    pytest.mark.skipif(not os.access(BUSYBOX, os.X_OK), reason=f"needs a static {BUSYBOX}"),
]

SLEEP = ("sh", "-c", "echo ready; exec sleep 1000")
ARGV = {
    Does.ENDS_WITH_0: ("true",),
    Does.ENDS_WITH_7: ("sh", "-c", "exit 7"),
    Does.ENDS_WITH_255: ("sh", "-c", "exit 255"),
    Does.SLEEPS: SLEEP,
    Does.ENDS_WITH_42_ON_TERM: (
        "sh",
        "-c",
        "trap 'exit 42' TERM; echo ready; while :; do sleep 1000 & wait; done",
    ),
    Does.IS_MISSING: ("no-such-program",),
    Does.DIES_IN_CREATE: SLEEP,
    Does.EATS_MEMORY: ("sh", "-c", "x=0123456789abcdef; while :; do x=$x$x; done"),
}

# runc, and after it, if the test wants it so: kill what it made, or hang.
WRAPPER = """#!/bin/sh
runc "$@" || exit $?
pid= verb=
while [ $# -gt 0 ]; do
  case "$1" in
    create|exec|start|pause|resume) verb=${{verb:-$1}};;
    --pid-file) pid=$2; shift;;
  esac
  shift
done
[ "$verb" = create ] && [ -e {0}/dies ] && kill -9 $(cat "$pid")
[ -n "$verb" ] && [ -e {0}/hangs-$verb ] && echo >{0}/hung && exec sleep 1000
exit 0
"""


@dataclass
class RuncWorld:
    """Containers of one busybox each, all on one root file system."""

    path: Path
    pipe: Pipe
    kernel: LinuxKernel
    runtime: Runc
    hung_end: int
    specs: list[ContainerSpec] = field(default_factory=list)
    children: list[Child] = field(default_factory=list)

    @property
    def stdio(self) -> PlainStdio:
        return self.pipe.stdio

    def spec(self, does: Does, *, shared: bool = False) -> ContainerSpec:
        id_ = f"trioshim-{os.getpid()}-{os.urandom(4).hex()}"
        bundle = self.path / id_
        bundle.mkdir()
        config = config_of(id_, does, self.path / "rootfs", shared=shared)
        (bundle / "config.json").write_text(json.dumps(config))
        if does is Does.DIES_IN_CREATE:
            (self.path / "dies").touch()
        value = runc_options_pb2.Options(
            root=str(self.path / "root"), binary_name=str(self.path / "wrapper")
        ).SerializeToString()
        options = Options("containerd.runc.v1.Options", value)
        self.specs.append(ContainerSpec(id_, str(bundle), options=options))
        return self.specs[-1]

    def exec_spec(self, does: Does) -> ExecSpec:
        return ExecSpec(f"e{os.urandom(4).hex()}", json.dumps(process_of(does)).encode())

    def owns(self, child: Child) -> Child:
        self.children.append(child)
        return child

    async def ready(self, spec: ContainerSpec) -> None:
        assert await self.pipe.read() == b"ready\n"

    @asynccontextmanager
    async def hung(self, verb: str) -> AsyncIterator[None]:
        (self.path / f"hangs-{verb}").touch()
        yield
        (self.path / f"hangs-{verb}").unlink()

    async def hangs(self) -> None:
        await trio.lowlevel.wait_readable(self.hung_end)
        os.read(self.hung_end, 100)

    def alive(self, pid: int) -> bool:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return stat.rpartition(")")[2].split()[0] not in "ZX"

    def count(self, spec: ContainerSpec) -> int:
        lists = Path("/sys/fs/cgroup").glob(f"**/{spec.id}/cgroup.procs")
        pids = {int(pid) for path in lists for pid in path.read_text().split()}
        return sum(map(self.alive, pids))

    async def clean_up(self) -> None:
        # At the same time: init cannot end while an exec in its pid namespace is not collected.
        with trio.fail_after(60, shield=True):
            async with trio.open_nursery() as nursery:
                for child in self.children:
                    nursery.start_soon(child.wait)
                for spec in self.specs:
                    await self.runtime.delete(spec, force=True)


def process_of(does: Does) -> dict[str, object]:
    return {
        "user": {"uid": 0, "gid": 0},
        "args": ARGV[does],
        "env": ["PATH=/bin"],
        "cwd": "/",
    }


def config_of(id_: str, does: Does, rootfs: Path, *, shared: bool) -> dict[str, object]:
    kinds = ["mount", "ipc", "uts"] + ["pid"] * (not shared)
    config: dict[str, object] = {
        "ociVersion": "1.0.2",
        "process": process_of(does),
        "root": {"path": str(rootfs)},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "cgroupsPath": f"/{id_}",
            "namespaces": [{"type": kind} for kind in kinds],
            "resources": {"memory": {"limit": MEMORY_LIMIT}} if does is Does.EATS_MEMORY else {},
        },
    }
    return config


@contextmanager
def open_hung_end(path: Path) -> Iterator[int]:
    """Becomes readable when the wrapper hangs."""
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


def make_files(path: Path) -> None:
    for name in ("bin", "proc", "dev"):
        (path / "rootfs" / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, path / "rootfs/bin/busybox")
    for name in ("sh", "sleep", "true"):
        (path / "rootfs/bin" / name).symlink_to("busybox")
    (path / "wrapper").write_text(WRAPPER.format(path))
    (path / "wrapper").chmod(0o755)


def traces(path: Path, specs: list[ContainerSpec]) -> list[Path]:
    """What runc or the kernel still have of the containers."""
    roots = [path.glob(f"root/*/{spec.id}") for spec in specs]
    cgroups = [Path("/sys/fs/cgroup").glob(f"**/{spec.id}") for spec in specs]
    return [trace for found in roots + cgroups for trace in found]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[RuncWorld]:
    """Afterwards no process, fd, cgroup or state of a container may be left."""
    make_files(tmp_path)
    before = runc_world.open_fds()
    kernel = LinuxKernel()
    with (
        runc_world.open_pipe() as pipe,
        open_hung_end(tmp_path / "hung") as hung_end,
        runc_world.subreaper(),
    ):
        world = RuncWorld(tmp_path, pipe, kernel, Runc(kernel, "test"), hung_end)
        async with trio.open_nursery() as nursery:
            await nursery.start(kernel.reap_strangers)
            yield world
            await world.clean_up()
            nursery.cancel_scope.cancel()
    assert not kernel._owned
    assert runc_world.open_fds() == before
    assert traces(tmp_path, world.specs) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_runc_keeps_the_promises_of_the_port(case, world: RuncWorld) -> None:
    """Each case that the fake passes is true of runc."""
    with trio.fail_after(60):
        await case(world)
