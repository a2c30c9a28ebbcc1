"""What a container pays before its shim answers, and what the shim then holds: ours beside Go's.

    python -m benchmarks.start [ROUNDS]

Kinds take turns, so a busy machine is busy for all: the Go shims, ours spawned (cold) and ours
from a template (warm).  Needs root and the shims; what is missing is left out, with the reason.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from trioshim.proto import task_v2_pb2 as api

from ._clients import TtrpcClient
from ._figures import machine

GO_V2, GO_V1, TRIO = "containerd-shim-runc-v2", "containerd-shim-runc-v1", "containerd-shim-trio-v1"
CROWD = 20
_ROUNDS = 30
_WARMING = 2  # seconds for the first template to get ready


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to get a shim."""

    name: str
    program: str
    environ: dict[str, str] = field(default_factory=dict)


KINDS = (
    Kind("Go, runc.v2", GO_V2),
    Kind("Go, runc.v1", GO_V1),
    Kind("trioshim, cold", TRIO, {"TRIOSHIM_TEMPLATE": "off"}),
    Kind("trioshim, warm", TRIO, {"TRIOSHIM_TEMPLATE": "on"}),
)


class Shim:
    """One that has just been started, and how long that took.

    Attributes:
        started: milliseconds until `start` was over.
        answered: milliseconds until the first answer.
        pid: of the process that answered.
    """

    def __init__(self, kind: Kind, base: Path, number: int) -> None:
        self.id = f"c{number}"
        self.bundle = base / self.id
        (self.bundle / "rootfs").mkdir(parents=True)
        (self.bundle / "config.json").write_text(json.dumps({"ociVersion": "1.0.2"}))
        os.mkfifo(self.bundle / "log")
        self._log = os.open(self.bundle / "log", os.O_RDWR | os.O_NONBLOCK)
        begun = time.perf_counter()
        path = self._start(kind, base)
        self.started = (time.perf_counter() - begun) * 1e3
        question = api.ConnectRequest(id=self.id).SerializeToString()
        self._client = TtrpcClient(path, "Connect", question)
        self.answered = (time.perf_counter() - begun) * 1e3
        self.pid = api.ConnectResponse.FromString(self._client.reply).shim_pid or _peer(path)

    def _start(self, kind: Kind, base: Path) -> str:
        flags = ["-namespace", base.name, "-address", f"{base}/c.sock", "-publish-binary", "/c"]
        ours = {"TTRPC_ADDRESS": f"{base}/none", "TRIOSHIM_SOCKET_DIR": str(base / "s")}
        done = subprocess.run(
            [str(find(kind.program)), *flags, "-id", self.id, "start"],
            cwd=self.bundle,
            env=dict(os.environ) | ours | kind.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=True,
            timeout=60,
            text=True,
        )
        return done.stdout.strip().removeprefix("unix://")

    def pss(self) -> float:
        """MiB: its own pages, and its part of those that it shares."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text("utf-8")
        return int(text.partition("\nPss:")[2].split()[0]) / 1024

    def end(self) -> None:
        """Shut it down and see it gone."""
        with os.fdopen(os.pidfd_open(self.pid)) as ended:
            request = api.ShutdownRequest(id=self.id).SerializeToString()
            with suppress(ConnectionError):
                self._client.call("Shutdown", request)
            _wait(ended.fileno())
        self._client.close()
        os.close(self._log)
        shutil.rmtree(self.bundle)


def _peer(path: str) -> int:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(path)
        told = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("3i", told)[0])


def _wait(pidfd: int) -> None:
    select.select([pidfd], [], [], 30)


def find(program: str) -> str | None:
    """Our own environment's comes first."""
    own = str(Path(sys.executable).parent)
    return shutil.which(program, path=f"{own}:{os.environ.get('PATH', os.defpath)}")


def measure(kinds: Sequence[Kind], base: Path, rounds: int) -> dict[str, list[Shim]]:
    """One shim of each kind in each round; the round begins with another one each time."""
    shims: dict[str, list[Shim]] = {kind.name: [] for kind in kinds}
    for number in range(rounds):
        at = number % len(kinds)
        for kind in (*kinds[at:], *kinds[:at]):
            shim = Shim(kind, base, number)
            shim.end()
            shims[kind.name].append(shim)
            time.sleep(0.05)  # the template's next spare, and Go's garbage
    return shims


def crowd(kind: Kind, base: Path) -> float:
    """MiB for each of many idle shims."""
    shims = [Shim(kind, base, number) for number in range(CROWD)]
    try:
        time.sleep(0.5)
        return sum(shim.pss() for shim in shims) / CROWD
    finally:
        for shim in shims:
            shim.end()


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else _ROUNDS
    if os.geteuid() != 0:
        sys.exit("benchmarks.start: not root")
    kinds = [kind for kind in KINDS if find(kind.program)]
    for kind in KINDS:
        if kind not in kinds:
            print(f"left out: {kind.name} (no {kind.program})")
    with tempfile.TemporaryDirectory(prefix="tsb-") as directory:
        base = Path(directory, secrets.token_hex(4))  # a namespace may not hold what others do
        base.mkdir()
        _warm(kinds, base)
        shims = measure(kinds, base, rounds)
        pss = {kind.name: crowd(kind, base) for kind in kinds}
    print(
        "| shim | `start`, ms | first answer, ms | × Go, runc.v2 | PSS at 20, MiB | × Go, runc.v1 |"
    )
    print("|---|--:|--:|--:|--:|--:|")
    for name, found in shims.items():
        answered = [shim.answered for shim in found]
        against = [shim.answered for shim in shims.get(KINDS[0].name, [])]
        ratio = median(a / b for a, b in zip(answered, against, strict=True)) if against else 0
        size = pss[name] / pss[KINDS[1].name] if KINDS[1].name in pss else 0
        started = median(shim.started for shim in found)
        row = f"{started:.1f} | {median(answered):.1f} | {ratio:.2f} | {pss[name]:.2f} | {size:.2f}"
        print(f"| {name} | {row} |")
    print(f"\n{rounds} rounds on {machine(['trio', 'protobuf'])}")


def _warm(kinds: Sequence[Kind], base: Path) -> None:
    """Have a template, and everything in the cache."""
    for number, kind in enumerate(kinds):
        Shim(kind, base, 1000 + number).end()
    time.sleep(_WARMING)


if __name__ == "__main__":
    main()
