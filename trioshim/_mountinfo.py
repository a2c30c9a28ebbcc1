"""What `/proc/self/mountinfo` says.  Pure."""

from __future__ import annotations

_ESCAPES = ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\"))


def _entries(mountinfo: bytes) -> list[tuple[str, bytes]]:
    """Mount point and file system type of each mount, in order."""
    entries = []
    for line in mountinfo.split(b"\n"):
        head, dash, tail = line.partition(b" - ")
        words = head.split(b" ")
        if dash and len(words) >= 6:
            point = words[4]
            for escaped, plain in _ESCAPES:
                point = point.replace(escaped, plain)
            entries.append((point.decode("utf-8", "surrogateescape"), tail.split(b" ")[0]))
    return entries


def mounts_below(mountinfo: bytes, path: str) -> list[str]:
    """The mount points on and below `path`, one for each layer, in the order to unmount them."""
    inside = path.rstrip("/") + "/"
    points = [point for point, _ in _entries(mountinfo)]
    return [point for point in reversed(points) if point == path or point.startswith(inside)]


def cgroup_roots(mountinfo: bytes, root: str = "/sys/fs/cgroup") -> tuple[list[str], bool]:
    """Where the cgroup hierarchies are, and whether they are of version 1.

    Hybrid hosts count as version 1: there the unified hierarchy controls nothing.
    """
    entries = [entry for entry in _entries(mountinfo) if (entry[0] + "/").startswith(root + "/")]
    legacy = [point for point, kind in entries if kind == b"cgroup"]
    unified = [point for point, kind in entries if kind == b"cgroup2"]
    return (legacy, True) if legacy else (unified, False)
