"""The system calls that Python has no name for.

Each function here is one call; its error is an `OSError` with the kernel's errno.  The calls
release the GIL, so a worker thread may sit in one while the event loop goes on.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache

_PR_SET_CHILD_SUBREAPER = 36
_CLONE_FS = 0x200


@cache
def libc() -> ctypes.CDLL:
    """The C library of this process; its functions leave errno to `ctypes.get_errno`."""
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, filename: str | None = None) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), filename)


def text(value: str | bytes) -> bytes:
    """A string for C.

    Raises:
        OSError: it contains a NUL byte; C would stop there and act on something else.
    """
    encoded = os.fsencode(value)
    if b"\0" in encoded:
        raise OSError(errno.EINVAL, "a NUL byte in a path or option", os.fsdecode(value))
    return encoded


def become_subreaper(on: bool = True) -> None:
    """Have the orphans below this process given to it instead of to init: prctl(2).

    The shim needs it once, before its first container: runc leaves init to us this way.
    """
    arguments = (ctypes.c_ulong(value) for value in (int(on), 0, 0, 0))
    _check(libc().prctl(_PR_SET_CHILD_SUBREAPER, *arguments))


def mount(source: str, target: str, fstype: str, flags: int, data: str) -> None:
    """mount(2)."""
    _check(
        libc().mount(text(source), text(target), text(fstype), ctypes.c_ulong(flags), text(data)),
        target,
    )


def umount2(target: str, flags: int) -> None:
    """umount2(2)."""
    _check(libc().umount2(text(target), flags), target)


def unshare_working_directory() -> None:
    """unshare(CLONE_FS): from here on this thread's working directory is its own."""
    _check(libc().unshare(_CLONE_FS))
