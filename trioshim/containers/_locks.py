"""Locks that a dead program cannot keep: flock on what they protect.

A lock is a file descriptor.  The kernel lets go of it when the last process that has it ends, by
kill -9 too, so "nobody holds it" means "nobody is at work here".
"""

from __future__ import annotations

import fcntl
import os

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = _FLAGS | os.O_CREAT
_DIRECTORY = _FLAGS | os.O_DIRECTORY


def try_lock(path: str, *, create: bool = False) -> int | None:
    """Lock what is at `path` now, without waiting.

    Args:
        path: a directory; with `create` a file.
        create: make an empty file if nothing is there.

    Returns:
        A file descriptor, to be closed; None if somebody else holds the lock, or if there is
        no such directory (any more).

    Raises:
        OSError: it cannot be opened.
    """
    try:
        fd = os.open(path, _FILE if create else _DIRECTORY, 0o600)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        there = is_at(fd, path)
    except BlockingIOError:
        there = False
    except BaseException:
        os.close(fd)
        raise
    if there:
        return fd
    os.close(fd)
    return None


def is_at(fd: int, path: str) -> bool:
    """Whether `path` still names what `fd` is: not moved or removed while we came to it."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(fd))
