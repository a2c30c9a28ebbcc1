"""One real shim without a containerd: started by its own `start`, told what to do over its socket.

Promises: the daemon's part is played here (the bundle, the `log` fifo, an Events server that only
listens), so a test can say what no containerd would ever say.  When the world closes, its
containers are deleted and its shims shut down, and a trace that is left (process, socket, mount,
cgroup, runc state) or a traceback in a shim's log fails the test.

Everything is below one short directory in /tmp: pytest's own names leave no room for a socket's.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import select
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from google.protobuf import any_pb2

from trioshim.client import TaskClient, connect
from trioshim.errors import NotFoundError
from trioshim.proto import runc_options_pb2
from trioshim.proto import task_v2_pb2 as api
from trioshim.proto.task_types_pb2 import Status

from . import leaks
from .poll import eventually
from .requirements import TRIO, shim_program
from .shim_parts import EventServer, until

BOX = "box"
OPTIONS = "containerd.runc.v1.Options"
SLEEP = ("sleep", "1000")
# Ends with 42 when it is told to: a line on its standard input.
OBEDIENT = ("sh", "-c", "read line; exit 42")

_MOUNTS = (("/proc", "proc"), ("/dev", "tmpfs"), ("/dev/pts", "devpts"))


@dataclass(eq=False)
class Shim:
    """A running shim, and a connection to it.

    Attributes:
        id: the container that it was started for.
        pidfd: names its process, also when that has ended.
        client: our connection.
        containers: ids that were created and not removed here.
    """

    world: ShimWorld
    id: str
    bundle: Path
    address: str
    pid: int
    pidfd: int
    log: int | None
    client: TaskClient = field(init=False)
    containers: list[str] = field(default_factory=list)
    _said: bytes = b""

    # ------------------------------------------------------------ looking at it

    def fds(self) -> list[str]:
        """What its file descriptors are, without the numbers that differ each time."""
        found = []
        for fd in os.listdir(f"/proc/{self.pid}/fd"):
            with suppress(FileNotFoundError):
                found.append(re.sub(r":\[\d+\]", "", os.readlink(f"/proc/{self.pid}/fd/{fd}")))
        return sorted(found)

    def children(self) -> list[str]:
        """The pids of its children, zombies too."""
        files = Path(f"/proc/{self.pid}/task").glob("*/children")
        return sorted(pid for file in files for pid in file.read_text().split())

    def said(self) -> str:
        """What it has written to its log so far."""
        with suppress(BlockingIOError):
            while self.log is not None and (data := os.read(self.log, 65536)):
                self._said += data
        return self._said.decode(errors="replace")

    def read_log(self, *, on: bool = True) -> None:
        """Open the log's reading end, as a daemon that comes; or close it, as one that leaves."""
        if self.log is not None:
            os.close(self.log)
        self.log = os.open(self.bundle / "log", os.O_RDONLY | os.O_NONBLOCK) if on else None

    @asynccontextmanager
    async def nothing_leaks(self) -> AsyncIterator[None]:
        """After the block it has the fds and the children that it had before."""
        before = self.fds(), self.children()
        yield
        try:
            await until(lambda: (self.fds(), self.children()) == before, "the fds", within=8)
        except TimeoutError:
            pytest.fail(f"before: {before}\nafter: {(self.fds(), self.children())}")

    @property
    def ended(self) -> bool:
        return bool(select.select([self.pidfd], [], [], 0)[0])

    async def wait_ended(self, within: float = 15.0) -> None:
        with trio.fail_after(within):
            await trio.lowlevel.wait_readable(self.pidfd)

    # ------------------------------------------------------------ telling it

    async def create(
        self,
        container: str,
        *args: str,
        bundle: Path | None = None,
        terminal: bool = False,
        options: any_pb2.Any | None = None,
        **fields: Any,
    ) -> int:
        """Create a container that runs `args`; its bundle is made if it is not given."""
        path = bundle or self.world.make_bundle(container, *(args or SLEEP), terminal=terminal)
        self.containers.append(container)
        request = api.CreateTaskRequest(
            id=container,
            bundle=str(path),
            terminal=terminal,
            options=options or self.world.options(),
            **fields,
        )
        return (await self.client.create(request)).pid

    async def run(self, container: str, *args: str, **fields: Any) -> int:
        """Create and start."""
        await self.create(container, *args, **fields)
        return (await self.client.start(api.StartRequest(id=container))).pid

    async def exec(self, container: str, exec_id: str, *args: str, **fields: Any) -> None:
        """Register an exec; it is not started."""
        spec = any_pb2.Any(value=json.dumps(self.world.process(*args)).encode())
        await self.client.exec(
            api.ExecProcessRequest(id=container, exec_id=exec_id, spec=spec, **fields)
        )

    async def start(self, container: str, exec_id: str = "") -> int:
        return (await self.client.start(api.StartRequest(id=container, exec_id=exec_id))).pid

    async def state(self, container: str) -> api.StateResponse:
        return await self.client.state(api.StateRequest(id=container), timeout=5)

    async def wait(self, container: str, exec_id: str = "") -> int:
        request = api.WaitRequest(id=container, exec_id=exec_id)
        return (await self.client.wait(request)).exit_status

    async def kill(self, container: str, signum: int = 9, exec_id: str = "") -> None:
        request = api.KillRequest(id=container, signal=signum, exec_id=exec_id)
        await self.client.kill(request)

    async def delete(self, container: str, exec_id: str = "") -> int:
        request = api.DeleteRequest(id=container, exec_id=exec_id)
        return (await self.client.delete(request)).exit_status

    async def remove(self, container: str) -> None:
        """Delete it, whatever state it is in; nothing to do if it is gone."""
        self.containers.remove(container)
        with suppress(NotFoundError):
            if (await self.state(container)).status != Status.STOPPED:
                await self.kill(container)
                await self.wait(container)
            await self.delete(container)

    async def shut_down(self) -> None:
        """What the daemon does in the end."""
        for container in reversed(list(self.containers)):
            await self.remove(container)
        await self.client.shutdown(api.ShutdownRequest(id=self.id), timeout=10)
        await self.wait_ended()


@dataclass(eq=False)
class ShimWorld:
    """A place for shims, and the daemon that hears of their events."""

    base: Path
    rootfs: Path
    nursery: trio.Nursery
    daemon: EventServer
    shims: list[Shim] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        return self.base.name

    @property
    def sockets(self) -> Path:
        return self.base / "s"

    # ------------------------------------------------------------ bundles

    def make_bundle(self, container: str, *args: str, terminal: bool = False) -> Path:
        bundle = self.base / container
        bundle.mkdir(exist_ok=True)
        self.write_config(bundle, *args, terminal=terminal)
        return bundle

    def write_config(self, bundle: Path, *args: str, terminal: bool = False) -> None:
        kinds = ("pid", "ipc", "uts", "mount")
        config = {
            "ociVersion": "1.0.2",
            "process": self.process(*args) | {"terminal": terminal},
            "root": {"path": str(self.rootfs), "readonly": True},
            "mounts": [
                {"destination": path, "type": kind, "source": kind} for path, kind in _MOUNTS
            ],
            "linux": {
                "cgroupsPath": f"/{self.namespace}/{bundle.name}",
                "namespaces": [{"type": kind} for kind in kinds],
            },
        }
        (bundle / "config.json").write_text(json.dumps(config))

    def process(self, *args: str) -> dict[str, object]:
        """An OCI process; its environment says whose it is, for `leaks.processes`."""
        return {
            "args": args,
            "cwd": "/",
            "env": ["PATH=/bin", f"WORLD={self.base}"],
            "user": {"uid": 0, "gid": 0},
        }

    def options(self, *, binary_name: str = "", criu_path: str = "") -> any_pb2.Any:
        """Options for Create: a root for the runtime that is nobody else's, and more."""
        root = str(self.base / "runc")
        options = runc_options_pb2.Options(root=root, binary_name=binary_name, criu_path=criu_path)
        return any_pb2.Any(type_url=OPTIONS, value=options.SerializeToString())

    def runc(self, body: str) -> any_pb2.Any:
        """Options for a runtime that is a shell script.

        In it `real "$@"` becomes runc, and `$log` is the file after --log.
        """
        path = self.base / "runc.sh"
        find_log = 'log=; for word; do [ "$last" = --log ] && log=$word; last=$word; done\n'
        runc = shutil.which("runc")
        path.write_text(f'#!/bin/sh\n{find_log}real() {{ exec {runc} "$@"; }}\n{body}\n')
        path.chmod(0o755)
        return self.options(binary_name=str(path))

    def fifo(self, name: str) -> str:
        path = self.base / name
        os.mkfifo(path)
        return str(path)

    # ------------------------------------------------------------ shims

    async def start(self, container: str) -> Shim:
        """Run the verb `start` for a container whose bundle is there or made now."""
        bundle = self.base / container
        if not bundle.exists():
            self.make_bundle(container, *SLEEP)
        os.mkfifo(bundle / "log")
        log = os.open(bundle / "log", os.O_RDONLY | os.O_NONBLOCK)
        done = await self.verb("start", container)
        pid = int((bundle / "shim.pid").read_text())
        address = done.stdout.decode()
        shim = Shim(self, container, bundle, address, pid, os.pidfd_open(pid), log)
        self.shims.append(shim)
        shim.client = await self.nursery.start(self._hold_client, address)
        return shim

    async def verb(self, verb: str, container: str) -> subprocess.CompletedProcess[bytes]:
        """`start` or `delete`, as the daemon runs it."""
        program = shim_program(TRIO)
        assert program is not None
        flags = ["-namespace", self.namespace, "-address", "/a", "-publish-binary", "/c"]
        environ = {"TTRPC_ADDRESS": str(self.daemon.path), "TRIOSHIM_SOCKET_DIR": str(self.sockets)}
        with trio.fail_after(30):
            return await trio.run_process(
                [program, *flags, "-id", container, verb],
                cwd=self.base / container,
                env=dict(os.environ) | environ,
                capture_stdout=True,
                capture_stderr=True,
            )

    async def _hold_client(self, address: str, *, task_status: trio.TaskStatus[TaskClient]) -> None:
        async with connect(address) as client:
            task_status.started(client)
            await trio.sleep_forever()

    # ------------------------------------------------------------ the end

    def traces(self) -> list[str]:
        """What is left on this machine."""
        return [
            *(f"process {pid}: {argv}" for pid, argv in leaks.processes(self.base)),
            *(f"mount {target}" for target in leaks.mounts(self.base)),
            *(f"cgroup {path}" for path in leaks.cgroups(self.namespace)),
            *(f"socket {path}" for path in self.sockets.glob("*")),
            *(f"runc state {path}" for path in (self.base / "runc").glob("*/*")),
        ]

    async def close(self) -> None:
        """Delete, shut down, and look for what is left.

        Raises:
            TimeoutError, ShimError: a shim does not do as it is told.
        """
        for shim in self.shims:
            if not shim.ended:
                await shim.shut_down()
        with suppress(TimeoutError):
            await until(lambda: not self.traces(), "the traces to vanish", within=5)
        left = self.traces()
        assert left == []
        for shim in self.shims:
            assert "Traceback" not in shim.said(), shim.said().replace("\\n", "\n")

    def sweep(self) -> None:
        """Remove all there is; after the asserts."""
        for shim in self.shims:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(shim.pidfd, signal.SIGKILL)
            os.close(shim.pidfd)
            shim.read_log(on=False)
        self._kill_containers()
        leaks.sweep(self.base, self.namespace, ())
        shutil.rmtree(self.base, ignore_errors=True)

    def _kill_containers(self) -> None:
        """One that was created and never started has no word of ours in it: its cgroup tells."""
        for pid in set(self._processes()):
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        with suppress(TimeoutError):
            eventually(lambda: not self._processes(), "processes to end", within=5)

    def _processes(self) -> list[str]:
        files = [path / "cgroup.procs" for path in leaks.cgroups(self.namespace)]
        return [pid for file in files for pid in file.read_text().split()]


@asynccontextmanager
async def open_shim_world(rootfs: Path, *, listening: bool = True) -> AsyncIterator[ShimWorld]:
    """A world; what is left in it at the end of the block is a failure.

    Args:
        rootfs: of all its containers.
        listening: the daemon is there from the beginning.
    """
    base = _make_base()
    async with trio.open_nursery() as nursery:
        world = ShimWorld(base, rootfs, nursery, EventServer(base / "daemon"))
        try:
            if listening:
                await nursery.start(world.daemon.serve)
            yield world
            await world.close()
        finally:
            world.sweep()
        nursery.cancel_scope.cancel()


def _make_base() -> Path:
    # Not mkdtemp: its names may hold what a namespace may not.
    base = Path("/tmp", f"tsw-{secrets.token_hex(4)}")
    base.mkdir(mode=0o755)
    return base


@asynccontextmanager
async def open_box(world: ShimWorld) -> AsyncIterator[Shim]:
    """A shim with one running container, `BOX`, that has to outlive the block unharmed."""
    shim = await world.start(BOX)
    pid = await shim.run(BOX)
    async with shim.nothing_leaks():
        yield shim
        for container in [name for name in shim.containers if name != BOX]:
            await shim.remove(container)
        state = await shim.state(BOX)
        assert (state.pid, state.status) == (pid, Status.RUNNING)
