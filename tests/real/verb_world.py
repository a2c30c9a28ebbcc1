"""The shim's verbs as the daemon runs them, and a server that tells of itself."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from trioshim import bootstrap
from trioshim.proto.task_v2_pb2 import DeleteResponse

needs_root = [
    pytest.mark.real,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts and oom_score_adj"),
]

NS, ID = "tests", "c0ffee"
A = "/run/containerd/containerd.sock"
GUARD = 60  # seconds; only against a hanging test run

PROGRAM = """
import os, sys
sys.executable, sys.argv[1:] = sys.argv[1], sys.argv[2:]
from trioshim.__main__ import main
exec(os.environ.get("PRELUDE", ""))
sys.exit(main())
"""

# Tells every client what it was started as.
STUB = """#!{python} -IS
import json, os, socket, sys
def read(name):
    with open("/proc/self/" + name) as file:
        return file.read()
listener = socket.socket(fileno=3)
fds = {{fd: os.readlink("/proc/self/fd/" + fd) for fd in os.listdir("/proc/self/fd")[:-1]}}
while True:
    connection, _ = listener.accept()
    facts = dict(
        argv=sys.argv[1:], pid=os.getpid(), group=os.getpgid(0), cwd=os.getcwd(), fds=fds,
        environ=dict(os.environ), score=int(read("oom_score_adj")), cgroup=read("cgroup"),
        listening=listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN),
    )
    try:
        connection.sendall(json.dumps(facts).encode())
    except OSError:
        pass
    connection.close()
"""


@dataclass
class World:
    """Directories of one test, and what the daemon would do in them."""

    root: Path
    sockets: Path
    stub: Path
    bundles: list[Path] = field(default_factory=list)

    def bundle(self, name: str = ID) -> Path:
        path = self.root / name
        (path / "rootfs").mkdir(parents=True, exist_ok=True)
        self.bundles.append(path)
        return path

    def argv(self, *words: str, id_: str = ID, server: str = "") -> list[str]:
        flags = ["-namespace", NS, "-address", A, "-publish-binary", "/containerd", "-id", id_]
        return [sys.executable, "-c", PROGRAM, server or str(self.stub), *flags, *words]

    def environ(self, **more: str) -> dict[str, str]:
        # What `start` spawns here is no Python, so it could be no template either.
        ours = {"TRIOSHIM_SOCKET_DIR": str(self.sockets), "TRIOSHIM_TEMPLATE": "off"}
        return dict(os.environ) | ours | more

    def run(
        self,
        *words: str,
        bundle: Path,
        stdin: bytes = b"",
        id_: str = ID,
        server: str = "",
        **environ: str,
    ) -> subprocess.CompletedProcess[bytes]:
        """As the daemon does: its call returns when all holders of the output are gone."""
        return subprocess.run(
            self.argv(*words, id_=id_, server=server),
            cwd=bundle,
            env=self.environ(**environ),
            input=stdin,
            capture_output=True,
            timeout=GUARD,
            check=False,
        )

    def path(self, id_: str = ID) -> Path:
        address = bootstrap.socket_address(A, NS, id_, str(self.sockets))
        return Path(bootstrap.plain_path(address))


@contextmanager
def open_world(tmp_path: Path) -> Iterator[World]:
    """A world whose servers end with it."""
    # pytest's own directories have names that are too long for a unix socket.
    with tempfile.TemporaryDirectory(prefix="ts-") as short:
        stub = tmp_path / "stub"
        stub.write_text(STUB.format(python=sys.executable))
        stub.chmod(0o755)
        there = World(tmp_path, Path(short) / "s", stub)
        try:
            yield there
        finally:
            for bundle in there.bundles:
                end_server(bundle)


def end_server(bundle: Path) -> None:
    """Kill the server that `start` has noted in the bundle, if there is one."""
    pid_file = bundle / "shim.pid"
    if pid_file.exists():
        end(int(pid_file.read_text()))


def end(pid: int) -> None:
    """Kill one process of ours and see that it is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with os.fdopen(pidfd) as gone:
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return
        poll = select.poll()
        poll.register(gone.fileno(), select.POLLIN)
        assert poll.poll(GUARD * 1000)


def ask(path: Path) -> dict[str, Any]:
    """The stub's account of itself."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(GUARD)
        client.connect(str(path))
        data = b""
        while chunk := client.recv(65536):
            data += chunk
    facts = json.loads(data)
    assert isinstance(facts, dict)
    return facts


# Both verbs warn, and do something more; for `PRELUDE`.
NOISE = """
import warnings
import trioshim.bootstrap._start, trioshim.bootstrap._delete
def noisy(do):
    def doing(*arguments):
        warnings.warn("noise")
        {more}
        do(*arguments)
    return doing
trioshim.bootstrap._start.start = noisy(trioshim.bootstrap._start.start)
trioshim.bootstrap._delete.delete = noisy(trioshim.bootstrap._delete.delete)
"""

# Notes how it was called, and does something then.
FAKE_RUNC = """#!/bin/sh
echo "$@" >> {log}
{then}
"""


def fake_runc(world: World, bundle: Path, then: str = "exit 0") -> Path:
    """A runtime that notes how it was called."""
    program = world.root / "fake-runc"
    log = world.root / "calls"
    program.write_text(FAKE_RUNC.format(log=log, then=then))
    program.chmod(0o755)
    (bundle / "runtime").write_text(str(program))
    return log


def answer(done: subprocess.CompletedProcess[bytes]) -> DeleteResponse:
    """What a `delete` that succeeded has said."""
    assert done.returncode == 0, done.stderr
    return DeleteResponse.FromString(done.stdout)
