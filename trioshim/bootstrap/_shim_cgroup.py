"""Put the server into the cgroup that the options ask for (`shim_cgroup`)."""

from __future__ import annotations

import os

from .._mountinfo import cgroup_roots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_CPUSET_FILES = ("cpuset.cpus", "cpuset.mems")


def join_shim_cgroup(path: str, pid: int) -> None:
    """Move a process into a cgroup, made if it is not there: in every hierarchy of version 1.

    Args:
        path: relative to the root of each hierarchy.
        pid: the process.

    Raises:
        OSError: a cgroup cannot be made or joined, or there is no hierarchy at all.
    """
    with open("/proc/self/mountinfo", "rb") as file:
        roots, legacy = cgroup_roots(file.read())
    if not roots:
        raise FileNotFoundError(f"no cgroup hierarchy is mounted: cannot join {path!r}")
    join_cgroup(path, pid, roots, legacy=legacy)


def join_cgroup(path: str, pid: int, roots: Iterable[str], *, legacy: bool) -> None:
    """As `join_shim_cgroup`, below the given roots.

    Raises:
        OSError: a cgroup cannot be made or joined.
    """
    for root in roots:
        directory = root
        for part in path.split("/"):
            parent, directory = directory, os.path.join(directory, part)
            os.makedirs(directory, 0o755, exist_ok=True)
            if legacy:
                _inherit_cpuset(parent, directory)
        _write(os.path.join(directory, "cgroup.procs"), str(pid))


def _inherit_cpuset(parent: str, directory: str) -> None:
    # A new cpuset of version 1 is empty, and an empty one takes no process (ENOSPC).
    for name in _CPUSET_FILES:
        if os.path.exists(os.path.join(directory, name)):
            with open(os.path.join(directory, name)) as file:
                empty = not file.read().strip()
            if empty:
                with open(os.path.join(parent, name)) as file:
                    _write(os.path.join(directory, name), file.read())


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
