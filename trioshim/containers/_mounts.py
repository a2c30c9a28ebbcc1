"""What is mounted into a container: binds and tmpfs of the user's, and what its rootfs is made of.

A rootfs is told to the shim as mounts (`trioshim.abc.Mount`), everything else to runc in
config.json.  Nothing here mounts anything.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from .._mountinfo import mounts_below
from .._specs import Mount
from ._checks import check_path, check_text, size_in_bytes

# Of the host's other file systems only these are shown: programs and what they read.
_HOST_PARTS = ("/usr", "/opt", "/nix", "/gnu", "/lib", "/lib64", "/bin", "/sbin", "/etc")
_HOST_FRESH = (("/tmp", 0o1777), ("/run", 0o755), ("/var/tmp", 0o1777))


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or directory of the host, seen in the container.

    Attributes:
        source: its absolute path on the host; it has to be there.
        target: its absolute path in the container.
        read_only: nothing can be written through it.  Other file systems that are mounted below
            a source stay as they are.
    """

    source: str
    target: str
    read_only: bool = False

    def to_json(self) -> dict[str, object]:
        """An entry of config.json's `mounts`.

        Raises:
            ValueError: a path is not absolute, or there is no source.
        """
        source = check_path(os.fspath(self.source), "the source of a bind")
        if not os.path.exists(source):
            raise ValueError(f"there is no {source} on the host to bind: make it first")
        return {
            "destination": _target(self.target),
            "type": "bind",
            "source": source,
            "options": ["rbind", "rprivate", "ro" if self.read_only else "rw"],
        }


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """An empty file system in memory, gone with the container; its bytes count as memory of it.

    Attributes:
        target: its absolute path in the container.
        size: at most this many bytes (an int, or such as "64m"); None: half of the memory.
        mode: permissions of its top directory.
    """

    target: str
    size: int | str | None = None
    mode: int = 0o1777

    def to_json(self) -> dict[str, object]:
        """An entry of config.json's `mounts`.

        Raises:
            ValueError: the path is not absolute, or the size is none.
        """
        size = [] if self.size is None else [f"size={size_in_bytes(self.size, 'size of a tmpfs')}"]
        return {
            "destination": _target(self.target),
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "nodev", f"mode={self.mode:o}", *size],
        }


def _target(path: str) -> str:
    target = check_path(os.fspath(path), "the target of a mount")
    if target == "/" or (target + "/").startswith("/proc/"):
        raise ValueError(f"nothing can be mounted on {target} of a container: choose another path")
    return target


def parse_mount(text: str) -> Bind:
    """Read "source:target" or "source:target:ro", docker's -v.

    Raises:
        ValueError: it is something else.
    """
    source, *rest = check_text(text, "a mount").split(":")
    if len(rest) not in (1, 2) or (len(rest) == 2 and rest[1] not in ("ro", "rw")):
        raise ValueError(
            f"mount {text!r} is not understood: write '/source:/target' or '/source:/target:ro';"
            " Bind(...) takes paths with a ':'"
        )
    if not source.startswith("/"):
        raise ValueError(
            f"mount {text!r} begins with no absolute path: there are no named volumes here"
        )
    return Bind(source, rest[0], read_only=rest[1:] == ["ro"])


def mounts_to_json(mounts: Sequence[Bind | Tmpfs | str]) -> list[dict[str, object]]:
    """Entries for config.json.

    Raises:
        ValueError: one of them is wrong, or two have the same target.
    """
    if isinstance(mounts, str):
        raise ValueError(f"mounts is {mounts!r}: give a list, such as [{mounts!r}]")
    entries = [
        (parse_mount(mount) if isinstance(mount, str) else mount).to_json() for mount in mounts
    ]
    targets = [str(entry["destination"]) for entry in entries]
    twice = {target for target in targets if targets.count(target) > 1}
    if twice:
        raise ValueError(f"two mounts on {min(twice)}: leave one out")
    return entries


# ---------------------------------------------------------------- the rootfs


def overlay_mount(lower: str, upper: str, work: str) -> Mount:
    """A rootfs that shows `lower` and keeps all changes in `upper`.

    Args:
        lower: an unpacked image; it is never changed.
        upper: an empty directory, or that of an earlier time.
        work: an empty directory on the same file system as `upper`.

    Raises:
        ValueError: a path is relative, or has a character that means something to overlayfs.
    """
    options = []
    for name, path in (("lowerdir", lower), ("upperdir", upper), ("workdir", work)):
        plain = check_path(os.fspath(path), name)
        if set(plain) & set(',:\\"'):
            raise ValueError(
                f"{name} {plain!r} has a ',', ':', '\\' or '\"': overlayfs cannot use it"
            )
        options.append(f"{name}={plain}")
    return Mount(type="overlay", source="overlay", options=tuple(options))


def host_root_mounts(mountinfo: bytes | None = None) -> list[Mount]:
    """A rootfs that is the host's own, read-only.

    Its programs can be run without an image; `host_root_tmpfs` has to go into config.json too.
    Of other file systems only those with programs are shown (a /usr of its own): not /home, not
    /proc, not /run.

    Args:
        mountinfo: /proc/self/mountinfo, if it has been read already.
    """
    if mountinfo is None:
        with open("/proc/self/mountinfo", "rb") as file:
            mountinfo = file.read()
    mounted = set(mounts_below(mountinfo, "/"))
    # Private, or a mount below it would show up on the host's own / where that is shared.
    options = ("bind", "ro", "private")
    parts = sorted(
        point for point in mounted if any((point + "/").startswith(f"{p}/") for p in _HOST_PARTS)
    )
    return [
        Mount(type="bind", source="/", options=options),
        *(Mount(type="bind", source=part, target=part, options=options) for part in parts),
    ]


def host_root_tmpfs() -> tuple[Tmpfs, ...]:
    """What is empty and writable on the host's root: /tmp, and /run, where the host's sockets are.

    A read-only socket can still be connected to; so they must not be seen.
    """
    there = ((path, mode) for path, mode in _HOST_FRESH if os.path.isdir(path))
    return tuple(Tmpfs(path, mode=mode) for path, mode in there if not os.path.islink(path))
