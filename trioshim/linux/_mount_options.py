"""Mounts as containerd writes them, read: option words to flags, a mount to a plan.  Pure.

What holds here: a word of the table is a flag, every other word goes to the file system as it
is; nothing is dropped in silence, and text that the kernel would cut is an error.
"""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from ..abc import Mount

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_MANDLOCK = 0x40
MS_DIRSYNC = 0x80
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_STRICTATIME = 0x1000000

_SETS = {
    "bind": MS_BIND,
    "defaults": 0,
    "dirsync": MS_DIRSYNC,
    "mand": MS_MANDLOCK,
    "noatime": MS_NOATIME,
    "nodev": MS_NODEV,
    "nodiratime": MS_NODIRATIME,
    "noexec": MS_NOEXEC,
    "nosuid": MS_NOSUID,
    "rbind": MS_BIND | MS_REC,
    "relatime": MS_RELATIME,
    "remount": MS_REMOUNT,
    "ro": MS_RDONLY,
    "strictatime": MS_STRICTATIME,
    "sync": MS_SYNCHRONOUS,
}
_CLEARS = {
    "async": MS_SYNCHRONOUS,
    "atime": MS_NOATIME,
    "dev": MS_NODEV,
    "diratime": MS_NODIRATIME,
    "exec": MS_NOEXEC,
    "nomand": MS_MANDLOCK,
    "norelatime": MS_RELATIME,
    "nostrictatime": MS_STRICTATIME,
    "rw": MS_RDONLY,
    "suid": MS_NOSUID,
}
_PROPAGATIONS = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "rshared": MS_SHARED | MS_REC,
    "rslave": MS_SLAVE | MS_REC,
    "runbindable": MS_UNBINDABLE | MS_REC,
    "shared": MS_SHARED,
    "slave": MS_SLAVE,
    "unbindable": MS_UNBINDABLE,
}
# Left free in the page when overlay's options are measured, as containerd does.
_SPARE = 512
_LOWERDIR = "lowerdir="


@dataclass(frozen=True, slots=True)
class MountOptions:
    """Option words sorted: flags of the mount, its propagation, and text for the file system."""

    flags: int
    propagation: int
    data: str


def parse_options(options: Sequence[str]) -> MountOptions:
    """Sort mount options; of two that contradict each other the later one counts.

    Raises:
        OSError: an option that trioshim cannot honour (EOPNOTSUPP), and which.
    """
    flags = propagation = 0
    data = []
    for option in options:
        if option.startswith(("uidmap=", "gidmap=")):
            raise OSError(
                errno.EOPNOTSUPP,
                f"id-mapped mounts are not supported ({option}): "
                "use a snapshotter that remaps the files itself",
            )
        if option in _PROPAGATIONS:
            propagation = _PROPAGATIONS[option]
        elif option in _CLEARS:
            flags &= ~_CLEARS[option]
        elif option in _SETS:
            flags |= _SETS[option]
        else:
            data.append(option)
    return MountOptions(flags, propagation, ",".join(data))


@dataclass(frozen=True, slots=True)
class MountPlan:
    """What to tell the kernel, and from which directory ("": it does not matter)."""

    options: MountOptions
    cwd: str = ""


def plan_mount(mount: Mount, page: int) -> MountPlan:
    """Decide how to make a mount on a kernel that takes one page of option text.

    Args:
        mount: as containerd sent it.
        page: size of a page in bytes; the text and its final NUL must fit, or it would be cut.

    Raises:
        OSError: its options are not supported (EOPNOTSUPP) or too long (E2BIG).
    """
    cwd, words = "", mount.options
    if mount.type == "overlay" and len(",".join(words).encode()) >= page - _SPARE:
        cwd, words = share_lowerdirs(words)
    options = parse_options(words)
    if len(options.data.encode()) >= page:
        raise OSError(errno.E2BIG, "mount options is too long")
    return MountPlan(options, cwd)


def share_lowerdirs(options: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Take the directory that all of an overlay's lower layers share out of their paths.

    Returns:
        That directory and the options relative to it; "" and the options as they were if the
        layers share none, or are written in a way (escapes, data-only layers) better left alone.
    """
    unchanged = "", tuple(options)
    values = [option for option in options if option.startswith(_LOWERDIR)]
    layers = values[0].removeprefix(_LOWERDIR).split(":") if len(values) == 1 else []
    if not layers or not all(_is_plain(layer) for layer in layers):
        return unchanged
    shared = posixpath.commonpath(layers)
    start = shared + "/"
    if not all(layer.startswith(start) for layer in layers):
        return unchanged
    short = _LOWERDIR + ":".join(layer.removeprefix(start) for layer in layers)
    return shared, tuple(short if option is values[0] else option for option in options)


def _is_plain(layer: str) -> bool:
    return layer.startswith("/") and "\\" not in layer and layer == posixpath.normpath(layer)
