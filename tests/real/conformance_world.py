"""A real shim for one case of the conformance suite: ours or a Go one, started by its own `start`.

Promises: the daemon's part is played by `shim_world`; a shim is started for one case with a
directory and a namespace of its own.  What it leaves fails the case, and is removed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import trio
from google.protobuf.any_pb2 import Any

from trioshim.client import Caller
from trioshim.proto import task_v2_pb2 as api
from trioshim.proto.types_pb2 import Envelope
from trioshim.testing import Program
from trioshim.ttrpc import open_client

from . import leaks
from .shim_parts import until
from .shim_world import SLEEP, ShimWorld, open_shim_world

FIRST = "c1"  # the id of the first container of each case
PROCESS = "types.containerd.io/opencontainers/runtime-spec/1/Process"


@cache
def find(binary: str) -> str | None:
    """The shim of that name: that of our own environment comes first."""
    own = str(Path(sys.executable).parent)
    return shutil.which(binary, path=f"{own}:{os.environ.get('PATH', os.defpath)}")


def argv(program: Program) -> tuple[str, ...]:
    """What does in busybox what a `Program` says."""
    if program.missing:
        return ("/no/such/program",)
    if program.handles:
        traps = "; ".join(f"trap 'exit {code}' {sig}" for sig, code in program.handles.items())
        return ("sh", "-c", f"{traps}; while :; do sleep 0.05; done")
    if program.after is None:
        return SLEEP
    return ("sh", "-c", f"sleep {program.after}; exit {program.status}")


@dataclass(eq=False)
class RealShim:
    """`ShimUnderTest` over a process of its own."""

    world: ShimWorld
    program: str
    address: str = ""
    log: int | None = None

    @property
    def envelopes(self) -> Sequence[Envelope]:
        return self.world.daemon.envelopes

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Caller]:
        stream = await trio.open_unix_socket(self.address.removeprefix("unix://"))
        async with open_client(stream) as caller:
            yield caller

    def create_request(self, id_: str, program: Program) -> api.CreateTaskRequest:
        bundle = self.world.make_bundle(id_, *argv(program))
        return api.CreateTaskRequest(id=id_, bundle=str(bundle), options=self.world.options())

    def exec_request(self, id_: str, exec_id: str, program: Program) -> api.ExecProcessRequest:
        process = json.dumps(self.world.process(*argv(program))).encode()
        spec = Any(type_url=PROCESS, value=process)
        return api.ExecProcessRequest(id=id_, exec_id=exec_id, spec=spec)

    async def start(self) -> None:
        """Run its verb `start`, as the daemon does, in the bundle of the first container."""
        bundle = self.world.make_bundle(FIRST, *SLEEP)
        # A Go shim that finds no `log`, or nobody who reads it, ends without a word.
        os.mkfifo(bundle / "log")
        self.log = os.open(bundle / "log", os.O_RDONLY | os.O_NONBLOCK)
        flags = ["-namespace", self.world.namespace, "-address", str(self._containerd)]
        ours = {
            "TTRPC_ADDRESS": str(self.world.daemon.path),
            "TRIOSHIM_SOCKET_DIR": str(self.world.sockets),
        }
        with trio.fail_after(30):
            done = await trio.run_process(
                [self.program, *flags, "-publish-binary", "/c", "-id", FIRST, "start"],
                cwd=bundle,
                env=dict(os.environ) | ours,
                capture_stdout=True,
            )
        self.address = done.stdout.decode().strip()

    async def ended(self) -> None:
        """Wait until its process and its socket are gone."""
        await until(lambda: not list(leaks.processes(self.world.base)), "the shim to end", within=4)
        await until(lambda: not self._socket.exists(), "its socket to vanish", within=2)

    def sweep(self) -> None:
        """What the world does not know of."""
        self._socket.unlink(missing_ok=True)
        if self.log is not None:
            os.close(self.log)

    @property
    def _containerd(self) -> Path:
        return self.world.base / "c.sock"

    @property
    def _socket(self) -> Path:
        return leaks.socket_of(self._containerd, self.world.namespace, FIRST)


@asynccontextmanager
async def open_real_shim(rootfs: Path, program: str) -> AsyncIterator[RealShim]:
    """A shim that has ended, and left nothing, at the end of the block.

    Raises:
        TimeoutError, AssertionError: it has not, or it has.
    """
    async with open_shim_world(rootfs) as world:
        shim = RealShim(world, program)
        try:
            await shim.start()
            yield shim
            await shim.ended()
        finally:
            shim.sweep()
