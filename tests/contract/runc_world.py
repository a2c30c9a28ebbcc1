"""What the tests of `trioshim.runc` have in common.

Plain streams, eyes for what is left behind, and a bench on which a script plays the runtime.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from trioshim.abc import Child, ContainerSpec, ExecSpec, Options
from trioshim.linux import LinuxKernel, become_subreaper
from trioshim.proto import runc_options_pb2
from trioshim.runc import Runc


@dataclass
class PlainStdio:
    """Streams of a process that are just fds of ours."""

    fds: dict[int, int] = field(default_factory=dict)
    console_socket: str = ""

    async def attach(self) -> None: ...
    def resize(self, width: int, height: int) -> None: ...
    def take_input(self) -> None: ...

    def close_stdin(self) -> None: ...
    async def drain(self) -> None: ...


@dataclass
class Pipe:
    """A pipe for a process's output: tells when somebody writes, and when nobody can any more."""

    ours: int
    theirs: int

    @property
    def stdio(self) -> PlainStdio:
        return PlainStdio({1: self.theirs, 2: self.theirs})

    @property
    def path(self) -> str:
        """A way in for a process whose own output is not ours to choose."""
        return f"/proc/{os.getpid()}/fd/{self.theirs}"

    async def read(self) -> bytes:
        """Some output; b"" when every process that has inherited the pipe has ended."""
        await trio.lowlevel.wait_readable(self.ours)
        return os.read(self.ours, 4096)

    async def read_all(self) -> bytes:
        """The output up to the end of the last writer; ours is closed first."""
        self.close_theirs()
        output = b""
        while data := await self.read():
            output += data
        return output

    def close_theirs(self) -> None:
        if self.theirs >= 0:
            os.close(self.theirs)
            self.theirs = -1


@contextmanager
def open_pipe() -> Iterator[Pipe]:
    pipe = Pipe(*os.pipe())
    os.set_blocking(pipe.ours, False)
    try:
        yield pipe
    finally:
        pipe.close_theirs()
        os.close(pipe.ours)


@contextmanager
def subreaper() -> Iterator[None]:
    """What runc leaves behind becomes our child for a while, as in a shim; none stays."""
    before = _children()
    become_subreaper()
    try:
        yield
    finally:
        become_subreaper(False)
        for pid in _children() - before:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _children() -> set[int]:
    """Children of this process, ended ones too."""
    me = os.getpid()
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/stat") as file:
            if int(file.read().rpartition(")")[2].split()[1]) == me:
                found.add(int(name))
    return found


def open_fds() -> set[str]:
    """Open fds and what they are, without those of trio's loop."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            to = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue  # the one that lists
        if "eventpoll" not in to and "socket:" not in to:
            found.add(f"{fd} {to}")
    return found


# Finds in the command line what a script may need.
PREAMBLE = """#!/bin/sh
while [ $# -gt 0 ]; do
  case "$1" in
    --log) log=$2; shift;;
    --pid-file) pid=$2; shift;;
    --work-path) work=$2; shift;;
    --process) process=$2; shift;;
  esac
  shift
done
"""


@dataclass
class Bench:
    """A bundle, a kernel, and a runtime that is a script."""

    path: Path
    kernel: LinuxKernel
    runtime: Runc
    spec: ContainerSpec = field(init=False)

    def script(self, body: str) -> None:
        self.program(PREAMBLE + body)

    def program(self, text: str) -> None:
        program = self.path / "fake-runc"
        program.write_text(text)
        program.chmod(0o755)
        self.use(str(program))

    def use(self, binary: str) -> None:
        value = runc_options_pb2.Options(binary_name=binary).SerializeToString()
        options = Options("containerd.runc.v1.Options", value)
        self.spec = ContainerSpec("c1", str(self.bundle), options=options)

    @property
    def bundle(self) -> Path:
        return self.path / "bundle"

    @property
    def files(self) -> set[str]:
        return {entry.name for entry in self.bundle.iterdir()} - {"config.json"}

    async def create(self, stdio: PlainStdio | None = None) -> Child:
        return await self.runtime.create(self.spec, stdio or PlainStdio())

    async def exec(self, stdio: PlainStdio, process: bytes = b"{}") -> Child:
        return await self.runtime.exec(self.spec, ExecSpec("e1", process), stdio)


@contextmanager
def open_bench(path: Path) -> Iterator[Bench]:
    """A bench; at the end no fd and no child with an owner may be left."""
    (path / "bundle").mkdir()
    (path / "bundle/config.json").write_text("{}")
    kernel = LinuxKernel()
    before = open_fds()
    with subreaper():
        yield Bench(path, kernel, Runc(kernel, "test", default_root=str(path / "root")))
    assert not kernel._owned
    assert open_fds() == before
