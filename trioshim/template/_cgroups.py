"""Into whose cgroups a process belongs, hierarchy by hierarchy.  Pure."""

from __future__ import annotations

from posixpath import join

__all__ = ["moves"]


def moves(mine: bytes, theirs: bytes, mountinfo: bytes) -> list[str]:
    """The `cgroup.procs` files to write to, so that we are where they are.

    Args:
        mine: our /proc/PID/cgroup.
        theirs: the same of the process whose cgroups we want.
        mountinfo: our /proc/self/mountinfo.

    Raises:
        ValueError: it cannot be told where a cgroup is mounted, or the hierarchies differ.
    """
    here, there = _parse(mine), _parse(theirs)
    if here.keys() != there.keys():
        raise ValueError("other cgroup hierarchies")
    changed = {name: path for name, path in there.items() if here[name] != path}
    if not changed:
        return []
    mounts = _mounts(mountinfo)
    return [_procs(name, path, mounts) for name, path in changed.items()]


def _parse(text: bytes) -> dict[str, str]:
    """Controllers ("" for version 2) to the path in their hierarchy."""
    lines = text.decode("utf-8", "surrogateescape").splitlines()
    rows = [line.split(":", 2) for line in lines]
    return {controllers: path for _, controllers, path in rows}


def _mounts(mountinfo: bytes) -> dict[str, tuple[str, str]]:
    """Controllers to the mount's root within its hierarchy, and its mount point."""
    found = {}
    for line in mountinfo.decode("utf-8", "surrogateescape").splitlines():
        head, _, tail = line.partition(" - ")
        words, kind = head.split(" "), tail.split(" ")
        if len(words) < 5 or "\\" in words[3] + words[4]:  # an escaped name: none of ours
            continue
        if kind[0] == "cgroup2":
            found[""] = (words[3], words[4])
        elif kind[0] == "cgroup":
            for option in kind[2].split(","):
                found[option] = (words[3], words[4])
    return found


def _procs(controllers: str, path: str, mounts: dict[str, tuple[str, str]]) -> str:
    root, point = mounts.get(controllers.partition(",")[0], ("", ""))
    below = root.rstrip("/") + "/"
    if not root or not f"{path}/".startswith(below) or ".." in path.split("/"):
        raise ValueError(f"no mount shows the cgroup {path} of {controllers or 'version 2'}")
    return join(point, path[len(below) :], "cgroup.procs")
