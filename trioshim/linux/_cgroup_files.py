"""Cgroup directories and notices, through fds that stay open.

Rules: a name is looked up below an open directory, never by its whole path, so a cgroup of the
same name that comes later is not taken for this one.  What is not there, or cannot be read,
is None; but when *we* are short of fds or memory, that is an error and not an answer: a daemon
that is told "no processes" for it declares a live container leaked (containerd#13784).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import trio

_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_CHUNK = 65536
_CHILDLESS = 2  # names of a directory: its own and "."; each one below it has "..", too


def read_open(fd: int) -> str:
    """The whole text behind an open fd, from its beginning.

    Raises:
        OSError: it cannot be read; ENODEV: the cgroup is gone.
    """
    chunks = []
    offset = 0
    while chunk := os.pread(fd, _CHUNK, offset):
        chunks.append(chunk)
        offset += len(chunk)
    return b"".join(chunks).decode("utf-8", "replace")


def read_at(directory: int, name: str) -> str | None:
    """The text of a file in an open directory; None if it is not there or not readable.

    Raises:
        OSError: EMFILE, ENFILE or ENOMEM.
    """
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            return read_open(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in _SHORTAGE:
            raise
        return None


def open_directory(path: str, *, below: int | None = None) -> int:
    """An fd of a directory, which may not be a symlink."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, dir_fd=below)


def open_if_there(path: str) -> int | None:
    """As `open_directory`; None if it is not there or not for us.

    Raises:
        OSError: EMFILE, ENFILE or ENOMEM.
    """
    try:
        return open_directory(path)
    except OSError as error:
        if error.errno in _SHORTAGE:
            raise
        return None


def cgroups_below(directory: int) -> Iterator[str]:
    """The paths of this cgroup (".") and of all below it, relative to it."""
    todo = ["."]  # no recursion: the container decides how deep its cgroups go
    while todo:
        path = todo.pop()
        yield path
        todo += [f"{path}/{name}" for name in _children(directory, path)]


def _children(directory: int, path: str) -> list[str]:
    try:
        found = os.stat(path, dir_fd=directory, follow_symlinks=False)
        if found.st_nlink == _CHILDLESS:
            return []
        fd = open_directory(path, below=directory)
        try:
            with os.scandir(fd) as entries:
                return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        finally:
            os.close(fd)
    except OSError as error:  # it went while we were looking
        if error.errno in _SHORTAGE:
            raise
        return []


def pids_below(directory: int) -> list[int]:
    """The processes in a cgroup and in all below it, ascending.

    Raises:
        OSError: EMFILE, ENFILE or ENOMEM.
    """
    pids: set[int] = set()
    for path in cgroups_below(directory):
        text = read_at(directory, f"{path}/cgroup.procs") or ""
        pids.update(int(line) for line in text.split())
    return sorted(pids - {0})  # 0: a process that our pid namespace does not show


class Notice:
    """An fd that becomes readable, and that may be closed while a task waits for it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiting = False

    async def wait(self) -> None:
        """Return when the fd is readable.

        Raises:
            OSError: EBADF: `closing` was called.
        """
        self._waiting = True
        try:
            await trio.lowlevel.wait_readable(self._fd)
        except trio.ClosedResourceError:
            raise OSError(errno.EBADF, "the cgroup was closed") from None
        finally:
            self._waiting = False

    def closing(self) -> None:
        """Call before the fd is closed: a task that waits gets its error."""
        if self._waiting:
            trio.lowlevel.notify_closing(self._fd)
