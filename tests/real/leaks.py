"""What a container can leave behind on a host, and how to see it.

Everything is looked for by the names of one daemon: its directory and its namespace.  So other
containerds may work on the same host at the same time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

SOCKETS = Path("/run/containerd/s")
RUNC = Path("/run/containerd/runc")


def look(base: Path, namespace: str, containers: Iterable[str]) -> set[str]:
    """One line for each trace: process, mount, cgroup, socket, runc state, bundle."""
    return {
        *(f"process {pid}: {argv}" for pid, argv in processes(base)),
        *(f"mount {target}" for target in mounts(base)),
        *(f"cgroup {path}" for path in cgroups(namespace)),
        *(f"socket {path}" for path in sockets(base / "c.sock", namespace, containers)),
        *(f"runc state {path}" for path in _children(RUNC / namespace)),
        *(f"bundle {path}" for path in _bundles(base)),
    }


def processes(base: Path) -> Iterator[tuple[int, str]]:
    """Whoever names `base` in its arguments, environment or working directory.

    containerd's own environment does not name it; a shim's does (TTRPC_ADDRESS), also that of a
    shim whose arguments say nothing.
    """
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):  # it ended while we looked
            argv = (entry / "cmdline").read_bytes()
            facts = (argv, (entry / "environ").read_bytes(), os.readlink(entry / "cwd").encode())
            if any(bytes(base) in fact for fact in facts):
                yield int(entry.name), argv.replace(b"\0", b" ").decode("utf-8", "replace")


def templates() -> set[int]:
    """Template processes (not their spares): no daemon's, and there may be one from before."""
    found = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if (entry / "cmdline").read_bytes().startswith(b"trioshim-template\0"):
                found.add(int(entry.name))
    return found


def mounts(base: Path) -> list[str]:
    """Mount points at or below `base`, the innermost last."""
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        targets = [line.split()[4] for line in table]
    return [target for target in targets if target.startswith(f"{base}/") or target == str(base)]


def cgroups(namespace: str) -> list[Path]:
    """What is below our namespace's cgroup in every hierarchy of v1 and in v2; deepest last."""
    return sorted(
        path
        for root in _cgroup_roots()
        for path in (root / namespace).glob("**/")
        if path != root / namespace
    )


def sockets(address: Path, namespace: str, containers: Iterable[str]) -> list[Path]:
    """Those of these containers' shims, alive or dead."""
    paths = [socket_of(address, namespace, container) for container in containers]
    return [path for path in paths if path.exists()]


def socket_of(address: Path, namespace: str, container: str) -> Path:
    """Where the shim of a container that is in no group listens.

    The name is a hash: so nobody can tell whose a socket is without knowing the container.
    """
    return SOCKETS / hashlib.sha256(f"{address}/{namespace}/{container}".encode()).hexdigest()


def sweep(base: Path, namespace: str, containers: Iterable[str] = ()) -> None:
    """Remove all that a daemon and its shims may have left.  For the end, after all the asserts."""
    for pid, _ in processes(base):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for target in reversed(mounts(base)):
        subprocess.run(["umount", "--lazy", target], check=False, capture_output=True)
    for path in reversed(cgroups(namespace)):
        with suppress(OSError):
            path.rmdir()
    for path in sockets(base / "c.sock", namespace, containers):
        path.unlink(missing_ok=True)
    shutil.rmtree(RUNC / namespace, ignore_errors=True)
    for root in _cgroup_roots():
        with suppress(OSError):
            (root / namespace).rmdir()


def _cgroup_roots() -> list[Path]:
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        rows = [line.split() for line in table]
    return [Path(row[4]) for row in rows if row[row.index("-") + 1] in {"cgroup", "cgroup2"}]


def _bundles(base: Path) -> list[Path]:
    """Bundles, and what containerd renames them to before it removes them."""
    return list(base.glob("state/io.containerd.runtime.v2.task/*/*"))


def _children(path: Path) -> list[Path]:
    with suppress(OSError):
        return list(path.iterdir())
    return []
