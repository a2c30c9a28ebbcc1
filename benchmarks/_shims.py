"""Real shims, ours and Go's, and their containers, for the time of a measurement.

Promises: they are started by their own verb `start` and ended by Shutdown; when a place closes,
nothing is left of them on the machine.  Needs root, runc and busybox; `missing` says what is not
there.

Rules of this file:

* every kind of shim is told the same in the same way; what differs is the program and a variable.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from tests.real import images, leaks
from trioshim.proto import runc_options_pb2
from trioshim.proto import task_v2_pb2 as api

from ._clients import TtrpcClient
from ._install import open_installation

__all__ = [
    "COLD",
    "CONTAINER",
    "GO",
    "GO_V1",
    "GO_V2",
    "TRIO",
    "WARM",
    "Kind",
    "Place",
    "RunningShim",
    "Shim",
    "find",
    "kinds_here",
    "missing",
    "open_place",
    "open_shim",
    "warm_up",
]

TRIO, GO = "containerd-shim-trio-v1", "containerd-shim-runc-v2"
CONTAINER = "box"
SLEEP = ("sleep", "1000")
_LIMIT = 30  # seconds for a verb, and for the end
_WARMING = 2  # seconds for the first template to get ready
_NAMESPACES = ("pid", "ipc", "uts", "mount")


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to get a shim."""

    name: str
    program: str
    environ: dict[str, str] = field(default_factory=dict)


GO_V1 = Kind("Go, runc.v1", "containerd-shim-runc-v1")
GO_V2 = Kind("Go, runc.v2", GO)
COLD = Kind("trioshim, cold", TRIO, {"TRIOSHIM_TEMPLATE": "off"})
WARM = Kind("trioshim, warm", TRIO, {"TRIOSHIM_TEMPLATE": "on"})
_KINDS = (GO_V2, GO_V1, COLD, WARM)


def missing(program: str) -> str:
    """Why this shim cannot be measured here; "" if it can."""
    if os.geteuid() != 0:
        return "not root"
    absent = [name for name in ("runc", "busybox", "chroot") if shutil.which(name) is None]
    absent += [] if find(program) else [program]
    return f"not installed: {', '.join(absent)}" if absent else ""


def find(program: str) -> str | None:
    """Our own environment's comes first."""
    own = str(Path(sys.executable).parent)
    return shutil.which(program, path=f"{own}:{os.environ.get('PATH', os.defpath)}")


def kinds_here(kinds: Sequence[Kind] = _KINDS) -> list[Kind]:
    """Those that can be measured here; for the others the reason is printed."""
    found = []
    for kind in kinds:
        if reason := missing(kind.program):
            print(f"left out: {kind.name}: {reason}", file=sys.stderr)
        else:
            found.append(kind)
    return found


# ---------------------------------------------------------------- places


@dataclass(frozen=True, slots=True)
class Place:
    """A directory for bundles and sockets; its name is the namespace.

    Attributes:
        base: that directory.
        rootfs: of busybox, for all containers.
        daemon: the socket of whoever takes the events; nobody has to listen.
        ours: our executable, as it is installed.
        ids: of the shims whose bundles were made here.
    """

    base: Path
    rootfs: Path
    daemon: Path
    ours: Path
    ids: list[str] = field(default_factory=list)

    def program(self, kind: Kind) -> str:
        """The executable of a shim."""
        return str(self.ours if kind.program == TRIO else find(kind.program))

    def bundle(self, name: str, *args: str, terminal: bool = False) -> Path:
        """Make one for a container that runs `args`, or sleeps."""
        self.ids.append(name)
        bundle = self.base / name
        (bundle / "rootfs").mkdir(parents=True)
        os.mkfifo(bundle / "log")
        config = {
            "ociVersion": "1.0.2",
            "process": self.process(*(args or SLEEP)) | {"terminal": terminal},
            "root": {"path": "rootfs", "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts"},
            ],
            "linux": {
                "cgroupsPath": f"/{self.base.name}/{name}",
                "namespaces": [{"type": kind} for kind in _NAMESPACES],
            },
        }
        (bundle / "config.json").write_text(json.dumps(config))
        return bundle

    def process(self, *args: str) -> dict[str, object]:
        """An OCI process; its environment says whose it is, for `leaks.processes`."""
        return {
            "args": args,
            "cwd": "/",
            "env": ["PATH=/bin", f"BASE={self.base}"],
            "user": {"uid": 0, "gid": 0},
        }

    @contextmanager
    def fifo(self, name: str) -> Iterator[tuple[str, BinaryIO]]:
        """A fifo during the block: its path, and an end that needs no other one to be opened."""
        path = self.base / name
        os.mkfifo(path)
        with open(path, "r+b", buffering=0) as end:
            yield str(path), end
        path.unlink()

    def forget(self, name: str) -> None:
        """Remove a bundle."""
        shutil.rmtree(self.base / name)


@contextmanager
def open_place(daemon: Path | None = None) -> Iterator[Place]:
    """A place during the block; afterwards all that its shims have left is removed."""
    base = Path("/tmp", f"tsb-{secrets.token_hex(4)}")
    base.mkdir(mode=0o755)
    ids: list[str] = []
    try:
        rootfs = images.make_rootfs(base / "rootfs")
        own = find(TRIO)
        with open_installation(base / "env", Path(own)) if own else nullcontext(Path()) as ours:
            yield Place(base, rootfs, daemon or base / "daemon", ours, ids)
    finally:
        leaks.sweep(base, base.name, ids)
        shutil.rmtree(base, ignore_errors=True)


# ---------------------------------------------------------------- shims


class Shim:
    """One that has just been started, and how long that took.

    Attributes:
        id: what it was started for.
        started: milliseconds until `start` was over.
        answered: milliseconds until the first answer.
        path: of its socket.
        pid: of its process.
    """

    def __init__(self, kind: Kind, place: Place, bundle: Path) -> None:
        self.kind, self.place, self.bundle = kind, place, bundle
        self.id = bundle.name
        # Both ways: Go's dies of a log that nobody reads, and no end is ever seen.
        self._log = os.open(bundle / "log", os.O_RDWR | os.O_NONBLOCK)
        try:
            begun = time.perf_counter()
            self.path = self._verb("start").decode().strip().removeprefix("unix://")
            self.started = (time.perf_counter() - begun) * 1e3
            question = api.ConnectRequest(id=self.id).SerializeToString()
            self._client = TtrpcClient(self.path, "Connect", question)
            self.answered = (time.perf_counter() - begun) * 1e3
        except BaseException:
            os.close(self._log)
            raise
        self.pid = api.ConnectResponse.FromString(self._client.reply).shim_pid

    def delete(self) -> None:
        """Run the verb `delete`, as a daemon does when a shim has left.

        Raises:
            subprocess.SubprocessError: ours fails.  Go's runc.v1 always does after Shutdown, since
                its socket is gone, and no daemon cares.
        """
        forgiven = suppress(subprocess.CalledProcessError) if self.kind == GO_V1 else nullcontext()
        with forgiven:
            self._verb("-bundle", str(self.bundle), "delete", stderr=subprocess.DEVNULL)

    def _verb(self, *words: str, stderr: int | None = None) -> bytes:
        base = self.place.base
        flags = ["-namespace", base.name, "-address", f"{base}/c.sock", "-publish-binary", "/c"]
        ours = {"TTRPC_ADDRESS": str(self.place.daemon), "TRIOSHIM_SOCKET_DIR": str(base / "s")}
        done = subprocess.run(
            [self.place.program(self.kind), *flags, "-id", self.id, *words],
            cwd=self.bundle,
            env=_environ() | ours | self.kind.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            timeout=_LIMIT,
            check=True,
        )
        return done.stdout

    def call(self, method: str, request: Message) -> bytes:
        """One call; the answer.

        Raises:
            ValueError: it is refused.
            TimeoutError: there is no answer.
        """
        try:
            return self._client.call(method, request.SerializeToString())
        except BlockingIOError:  # what the limit of a blocking socket looks like
            raise TimeoutError(f"{self.kind.name} does not answer {method}") from None

    def create(
        self, bundle: Path | None = None, fields: Mapping[str, str | bool] | None = None
    ) -> int:
        """Create a container, with its rootfs as a mount; the pid of its init.

        Args:
            bundle: its own, if it is not that of `start`.
            fields: more of the request.
        """
        bundle = bundle or self.bundle
        options = runc_options_pb2.Options(root=str(self.place.base / "runc"))
        request = api.CreateTaskRequest(id=bundle.name, bundle=str(bundle))
        for name, value in (fields or {}).items():
            setattr(request, name, value)
        request.rootfs.add(type="bind", source=str(self.place.rootfs), options=["rbind", "ro"])
        request.options.CopyFrom(
            Any(type_url="containerd.runc.v1.Options", value=options.SerializeToString())
        )
        return api.CreateTaskResponse.FromString(self.call("Create", request)).pid

    def start(self, container: str = "") -> None:
        """Let init run."""
        self.call("Start", api.StartRequest(id=container or self.id))

    def state(self) -> bytes:
        """The question about its container, after it was answered once."""
        request = api.StateRequest(id=self.id)
        self.call("State", request)
        return request.SerializeToString()

    def remove(self, container: str = "") -> None:
        """Kill a container and delete it."""
        name = container or self.id
        self.call("Kill", api.KillRequest(id=name, signal=9))
        self.call("Wait", api.WaitRequest(id=name))
        self.call("Delete", api.DeleteRequest(id=name))

    def pss(self) -> float:
        """MiB: its own pages, and its part of those that it shares."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text("utf-8")
        return int(text.partition("\nPss:")[2].split()[0]) / 1024

    def end(self) -> None:
        """Shut it down and see it gone."""
        with os.fdopen(os.pidfd_open(self.pid)) as ended:
            with suppress(ConnectionError):  # Go's may end before it has answered
                self.call("Shutdown", api.ShutdownRequest(id=self.id))
            select.select([ended], [], [], _LIMIT)
        self.close()

    def close(self) -> None:
        """Close our ends."""
        self._client.close()
        os.close(self._log)


def _environ() -> dict[str, str]:
    """Ours, but a daemon's has nothing that says what Python shall do (not keep bytecode)."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


def warm_up(kinds: Sequence[Kind], place: Place) -> None:
    """Have a template, and everything in the cache."""
    for number, kind in enumerate(kinds):
        name = f"warm{number}"
        Shim(kind, place, place.bundle(name)).end()
        place.forget(name)
    if WARM in kinds:
        time.sleep(_WARMING)


# ---------------------------------------------------------------- one, for a while


@dataclass(frozen=True, slots=True)
class RunningShim:
    """Where it listens, which process it is, and the question that it is asked."""

    path: Path
    pid: int
    question: bytes


@contextmanager
def open_shim(program: str, daemon: Path) -> Iterator[RunningShim]:
    """A shim with a running container during the block.

    Args:
        program: its name.
        daemon: the socket of whoever takes its events.

    Raises:
        ValueError: it refuses a call.
        subprocess.SubprocessError: it does not start.
    """
    with open_place(daemon) as place:
        shim = Shim(Kind(program, program), place, place.bundle(CONTAINER))
        shim.create()
        shim.start()
        try:
            yield RunningShim(Path(shim.path), shim.pid, shim.state())
        finally:
            shim.remove()
            shim.end()
