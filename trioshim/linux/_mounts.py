"""The mounts of a rootfs, made and unmade.

The functions that say "Blocks" run in worker threads: a mount or umount may take half a minute.

What holds here:

* All mounts of a rootfs, or none: what was made before a failure is undone.
* A mount's `target` is resolved inside the rootfs, as if the rootfs were /: no symlink of an
  image leads a mount out of it.
* Unmounting takes away what is on and below a path, follows no symlink in its last component,
  and never means the root of the machine.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack

import trio

from .._mountinfo import mounts_below
from ..abc import Mount
from . import _libc
from ._mount_options import MS_BIND, MS_RDONLY, MS_REMOUNT, plan_mount

_log = logging.getLogger(__name__)

_READONLY_BIND = MS_BIND | MS_RDONLY
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_MOST_SYMLINKS = 40


def mount_all(mounts: Sequence[Mount], rootfs: str) -> None:
    """Make the mounts in order on `rootfs`, or on their own targets inside it.  Blocks.

    Raises:
        OSError: which one failed and why; those before it are undone.
    """
    with ExitStack() as undo:
        for mount in mounts:
            try:
                _mount_one(mount, rootfs, undo)
            except (OSError, ValueError) as error:
                raise _rootfs_error(mount, rootfs, error) from error
        undo.pop_all()


def _mount_one(mount: Mount, rootfs: str, undo: ExitStack) -> None:
    plan = plan_mount(mount, os.sysconf("SC_PAGESIZE"))
    root = canonical(rootfs)
    if os.path.islink(root):
        raise OSError(errno.ELOOP, "the rootfs must be a directory, not a symlink", root)
    target, options = resolve_below(root, mount.target), plan.options

    _mount_from(plan.cwd, mount.source, target, mount.type, options.flags, options.data)
    if not options.flags & MS_REMOUNT:
        undo.callback(_undo, target)
    if options.propagation:
        # The kernel takes a change of propagation only in a call of its own.
        _libc.mount("", target, "", options.propagation, "")
    if options.flags & _READONLY_BIND == _READONLY_BIND:
        # The first call of a bind ignores "ro".
        _libc.mount("", target, "", options.flags | MS_REMOUNT, "")


def _mount_from(cwd: str, *call: *tuple[str, str, str, int, str]) -> None:
    """mount(2) with a working directory of its own, for relative lower layers.

    The directory of a process is shared by its threads, so this thread leaves the sharing, and
    ends with the call: it must never go back to a pool.  (Paths below /proc/self/fd/N would do
    without a thread, but are four times as long and say nothing to who reads mountinfo.)
    """
    if not cwd:
        _libc.mount(*call)
        return
    from concurrent.futures import ThreadPoolExecutor

    def mount_there() -> None:
        _libc.unshare_working_directory()
        os.chdir(cwd)
        _libc.mount(*call)

    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(mount_there).result()


def _undo(target: str) -> None:
    # Detached, since a recursive bind brought mounts below it that would make it busy.
    try:
        _libc.umount2(target, _MNT_DETACH | _UMOUNT_NOFOLLOW)
    except OSError as error:
        _log.warning("a mount of a failed rootfs is left on %s: %s", target, error)


def _rootfs_error(mount: Mount, rootfs: str, cause: OSError | ValueError) -> OSError:
    where = os.path.join(rootfs, mount.target.lstrip("/")) if mount.target else rootfs
    text = (
        f"failed to mount rootfs component {mount.type or 'mount'} "
        f"{mount.source!r} on {where!r}: {getattr(cause, 'strerror', None) or cause}"
    )
    # With errno and text as two arguments str() would put the number in front.
    error = OSError(text)
    error.errno = getattr(cause, "errno", errno.EINVAL)
    return error


def canonical(path: str) -> str:
    """`path` with the symlinks above its last component resolved: a mount point's one name.

    Raises:
        OSError: it is the root of the machine, or has no last component.
    """
    parent, name = os.path.split(path.rstrip("/"))
    if name in ("", ".", ".."):
        raise OSError(errno.EINVAL, "not a path that a rootfs can have", path)
    return os.path.join(os.path.realpath(parent), name)


def resolve_below(root: str, path: str) -> str:
    """`path` inside `root`, every symlink and `..` taken as if `root` were /.

    Raises:
        OSError: too many symlinks (ELOOP).
    """
    done: list[str] = []
    todo = path.split("/")[::-1]
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            del done[-1:]
        elif part not in ("", "."):
            link = _link("/".join((root, *done, part)))
            if link is None:
                done.append(part)
                continue
            links += 1
            if links > _MOST_SYMLINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if link.startswith("/"):
                done.clear()
            todo += link.split("/")[::-1]
    return "/".join((root, *done))


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        # No symlink or nothing there: the mount itself will say so.
        return None


# ---------------------------------------------------------------- unmounting

_TRIES = 50
_PAUSE = 0.05


async def unmount_all(target: str) -> None:
    """Unmount every layer on and below `target`; each busy one is tried 50 times, 50 ms apart.

    Raises:
        OSError: a mount that cannot be unmounted, by name.
    """
    tries = 1
    while busy := await trio.to_thread.run_sync(unmount_pass, target):
        if tries == _TRIES:
            raise busy
        tries += 1
        await trio.sleep(_PAUSE)


def unmount_pass(target: str) -> OSError | None:
    """Unmount what can be unmounted now.  Returns the error of the deepest busy mount.  Blocks."""
    if not target:
        return None
    path = canonical(target)
    while True:
        errors = [_unmount_point(point) for point in mounts_below(_mountinfo(), path)]
        # Again if that helped and some are left: a mount may have hidden another.  Not otherwise:
        # to read the table takes 2 µs for each mount of the machine, of which containers have many.
        if errors.count(None) in (0, len(errors)):
            return next((error for error in errors if error and error.errno == errno.EBUSY), None)


def _unmount_point(point: str) -> OSError | None:
    try:
        _libc.umount2(point, _UMOUNT_NOFOLLOW)
    except OSError as error:
        # EINVAL: no mount (any more), or hidden below another.
        if error.errno not in (errno.EINVAL, errno.ENOENT, errno.EBUSY):
            raise
        return error
    return None


def _mountinfo() -> bytes:
    with open("/proc/self/mountinfo", "rb") as file:
        return file.read()
