"""Which cgroup a process is in, and how it is read there.

What holds here:
- v2 if /sys/fs/cgroup itself is a cgroup2 mount, else v1: a hybrid host counts as v1, because
  the controllers are there.  The mount table says it; Python has no `statfs` that would.
- Paths in /proc/PID/cgroup begin at the root of a hierarchy, mounts may begin further down (when
  this process runs in a container itself), so the mount's own root is taken off.
- On v1 a process that is exiting is shown in the root cgroup, which is never the container's.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._cgroup_v1 import CgroupV1
from ._cgroup_v2 import CgroupV2

if TYPE_CHECKING:
    from ..abc import Cgroup

_PF_EXITING = 0x4
# Whose list of processes is believed first.  `pids` and `memory` are what runc cannot do without.
_LISTING = ("pids", "memory", "devices", "freezer", "cpu", "name=systemd")
# Where the numbers of `stats` are; the other hierarchies would only cost fds.
_STATS = ("memory", "cpu", "cpuacct", "pids", "blkio", "hugetlb", "rdma")


@dataclass(frozen=True, slots=True)
class CgroupMount:
    """A line of the mount table: `root` of the hierarchy is to be found at `point`."""

    unified: bool
    root: str
    point: str
    controllers: frozenset[str]

    def directory(self, path: str) -> str | None:
        """Where the cgroup `path` is; None if it is not below this mount."""
        root = self.root.rstrip("/")
        if path != root and not path.startswith(f"{root}/"):
            return None
        inside = path[len(root) :].strip("/")
        if ".." in inside.split("/"):  # outside of our cgroup namespace
            return None
        return f"{self.point}/{inside}".rstrip("/")


def read_mounts(proc: str = "/proc") -> list[CgroupMount]:
    """The cgroup file systems that we see."""
    with open(f"{proc}/self/mountinfo", encoding="utf-8", errors="replace") as table:
        return list(cgroup_mounts(table))


def open_cgroup(
    pid: int,
    mounts: Sequence[CgroupMount] | None = None,
    *,
    proc: str = "/proc",
    mount_root: str = "/sys/fs/cgroup",
) -> Cgroup:
    """Open the cgroup that a process is in.

    Args:
        pid: the process.
        mounts: what `read_mounts` has found; None: look now.
        proc: where procfs is.
        mount_root: where the cgroup file systems are.

    Raises:
        ProcessLookupError: the process is gone.
        OSError: its cgroup cannot be opened.
    """
    if mounts is None:
        mounts = read_mounts(proc)
    membership = _of_process(f"{proc}/{pid}", "cgroup")
    on_top = [mount for mount in mounts if mount.point == mount_root]
    if on_top and on_top[-1].unified:
        return CgroupV2(unified_directory(membership, on_top[-1]))
    directories = controller_directories(membership, mounts)
    if _is_exiting(_of_process(f"{proc}/{pid}", "stat")):
        raise ProcessLookupError(errno.ESRCH, f"process {pid} has ended")
    stats = {name: directories[name] for name in _STATS if name in directories}
    return CgroupV1(stats, listing_order(directories, mounts))


def cgroup_mounts(mountinfo: Iterable[str]) -> Iterator[CgroupMount]:
    """The cgroup file systems in the lines of /proc/self/mountinfo; the latest is on top."""
    for line in mountinfo:
        mount, _, system = line.partition(" - ")
        match system.rstrip("\n").split(" "):  # the source may be empty
            case [("cgroup" | "cgroup2") as kind, _, options]:
                root, point = (_unescape(word) for word in mount.split()[3:5])
                unified = kind == "cgroup2"
                yield CgroupMount(unified, root, point, frozenset(options.split(",")))


def _unescape(word: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), word)


def _memberships(text: str) -> Iterator[tuple[list[str], str]]:
    """The lines of /proc/PID/cgroup, "5:cpu,cpuacct:/a/b": controllers and path."""
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        yield controllers.split(","), path


def unified_directory(membership: str, mount: CgroupMount) -> str:
    """The directory of the v2 cgroup in the text of /proc/PID/cgroup.

    Raises:
        FileNotFoundError: it is not below the mount.
    """
    for controllers, path in _memberships(membership):
        if controllers == [""] and (directory := mount.directory(path)) is not None:
            return directory
    raise FileNotFoundError(errno.ENOENT, "the process has no cgroup below", mount.point)


def controller_directories(membership: str, mounts: Sequence[CgroupMount]) -> dict[str, str]:
    """Controller (or "name=...") to the directory of the v1 cgroup in the text of /proc/PID/cgroup.

    A hierarchy that is not mounted, or not so that the cgroup could be seen, is left out.
    """
    found = {}
    for controllers, path in _memberships(membership):
        for mount in mounts:
            if not mount.unified and mount.controllers.issuperset(controllers):
                directory = mount.directory(path)
                if directory is not None:
                    found.update(dict.fromkeys(controllers, directory))
                    break
    return found


def listing_order(directories: Mapping[str, str], mounts: Iterable[CgroupMount]) -> list[str]:
    """Which directory to ask for the processes first.

    A hierarchy in which the process is at the top comes last: that one has the whole host's.
    """
    tops = {mount.point for mount in mounts}
    names = dict.fromkeys([*_LISTING, *directories])
    paths = [directories[name] for name in names if name in directories]
    return sorted(dict.fromkeys(paths), key=lambda path: path in tops)


def _of_process(directory: str, name: str) -> str:
    try:
        with open(f"{directory}/{name}", encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, "there is no process at", directory) from None


def _is_exiting(stat: str) -> bool:
    """Whether /proc/PID/stat has PF_EXITING among its flags (the ninth word)."""
    after_name = stat.rpartition(")")[2].split()
    return len(after_name) > 6 and bool(int(after_name[6]) & _PF_EXITING)
