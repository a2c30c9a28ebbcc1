"""Files of a bundle: whole or not there at all, and never through a symlink.

A bundle may be writable for a remapped root (user namespaces): nothing planted there is followed.
There is no fsync: a bundle does not outlive the machine.
"""

from __future__ import annotations

import os
from posixpath import basename, dirname, join


def write_file(path: str, data: bytes) -> None:
    """Write a file with mode 0600 beside its name, then move it there in one step.

    What was at `path` is replaced, a symlink too; on failure it is as before and nothing new
    is left.

    Raises:
        OSError: the disk is full, or the directory is gone.
    """
    temporary = join(dirname(path), "." + basename(path))
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(temporary, flags, 0o600)
    except FileExistsError:  # left by a process that was killed
        _remove(temporary)
        fd = os.open(temporary, flags, 0o600)
    try:
        try:
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        _remove(temporary)
        raise


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
