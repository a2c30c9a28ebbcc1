"""Real shims, ours and a Go one, each with one running container, for the time of a measurement.

Promises: they are started by their own verb `start` and ended by Shutdown; then nothing is left
of them on the machine.  Needs root, runc and busybox; `missing` says what is not there.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from tests.real import images, leaks
from trioshim.proto import runc_options_pb2
from trioshim.proto import task_v2_pb2 as api

from ._clients import TtrpcClient

__all__ = ["GO", "TRIO", "RunningShim", "missing", "open_shim"]

TRIO, GO = "containerd-shim-trio-v1", "containerd-shim-runc-v2"
CONTAINER = "box"
_LIMIT = 30  # seconds for the verb `start`, and for the end


@dataclass(frozen=True, slots=True)
class RunningShim:
    """Where it listens, which process it is, and the question that it is asked."""

    path: Path
    pid: int
    question: bytes


def missing(program: str) -> str:
    """Why this shim cannot be measured here; "" if it can."""
    if os.geteuid() != 0:
        return "not root"
    absent = [name for name in ("runc", "busybox", "chroot") if shutil.which(name) is None]
    absent += [] if _find(program) else [program]
    return f"not installed: {', '.join(absent)}" if absent else ""


def _find(program: str) -> str | None:
    own = str(Path(sys.executable).parent)
    return shutil.which(program, path=f"{own}:{os.environ.get('PATH', os.defpath)}")


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
    base = Path("/tmp", f"tsb-{secrets.token_hex(4)}")
    base.mkdir(mode=0o755)
    log = -1
    try:
        bundle = _make_bundle(base)
        log = os.open(bundle / "log", os.O_RDONLY | os.O_NONBLOCK)
        path = Path(_start(program, bundle, daemon))
        with closing(_Told(path)) as told:
            told.create(bundle)
            try:
                yield RunningShim(path, told.shim_pid, told.state())
            finally:
                told.remove()
    finally:
        if log >= 0:
            os.close(log)
        leaks.sweep(base, base.name, [CONTAINER])
        shutil.rmtree(base, ignore_errors=True)


def _make_bundle(base: Path) -> Path:
    rootfs = images.make_rootfs(base / "rootfs")
    bundle = base / CONTAINER
    bundle.mkdir()
    os.mkfifo(bundle / "log")
    process = {"args": ["sleep", "1000"], "cwd": "/", "env": ["PATH=/bin", f"BASE={base}"]}
    config = {
        "ociVersion": "1.0.2",
        "process": process | {"user": {"uid": 0, "gid": 0}},
        "root": {"path": str(rootfs), "readonly": True},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "cgroupsPath": f"/{base.name}/{CONTAINER}",
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
        },
    }
    (bundle / "config.json").write_text(json.dumps(config))
    return bundle


def _start(program: str, bundle: Path, daemon: Path) -> str:
    """Run the verb `start`; the path of the socket."""
    base = bundle.parent
    flags = ["-namespace", base.name, "-address", f"{base}/c.sock", "-publish-binary", "/c"]
    ours = {"TTRPC_ADDRESS": str(daemon), "TRIOSHIM_SOCKET_DIR": str(base)}
    done = subprocess.run(
        [str(_find(program)), *flags, "-id", CONTAINER, "start"],
        cwd=bundle,
        env=dict(os.environ) | ours,
        stdout=subprocess.PIPE,
        timeout=_LIMIT,
        check=True,
        text=True,
    )
    return done.stdout.strip().removeprefix("unix://")


class _Told:
    """What the daemon says to a shim before and after the measurement."""

    def __init__(self, path: Path) -> None:
        question = api.ConnectRequest(id=CONTAINER).SerializeToString()
        self._client = TtrpcClient(str(path), "Connect", question)
        self.shim_pid = api.ConnectResponse.FromString(self._client.reply).shim_pid

    def close(self) -> None:
        self._client.close()

    def _call(self, method: str, request: Message) -> bytes:
        return self._client.call(method, request.SerializeToString())

    def create(self, bundle: Path) -> None:
        options = runc_options_pb2.Options(root=str(bundle.parent / "runc"))
        request = api.CreateTaskRequest(id=CONTAINER, bundle=str(bundle))
        request.options.CopyFrom(
            Any(type_url="containerd.runc.v1.Options", value=options.SerializeToString())
        )
        self._call("Create", request)
        self._call("Start", api.StartRequest(id=CONTAINER))

    def state(self) -> bytes:
        """The question about the container, after it was answered once."""
        request = api.StateRequest(id=CONTAINER)
        self._call("State", request)
        return request.SerializeToString()

    def remove(self) -> None:
        self._call("Kill", api.KillRequest(id=CONTAINER, signal=9))
        self._call("Wait", api.WaitRequest(id=CONTAINER))
        self._call("Delete", api.DeleteRequest(id=CONTAINER))
        with os.fdopen(os.pidfd_open(self.shim_pid)) as ended:
            with suppress(ConnectionError):  # Go's may end before it has answered
                self._call("Shutdown", api.ShutdownRequest(id=CONTAINER))
            select.select([ended], [], [], _LIMIT)
