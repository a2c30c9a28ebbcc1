"""Files of the bundle: whole or not there at all, and never through a symlink."""

from __future__ import annotations

import os


def write_file(path: str, data: bytes) -> None:
    """Write a file with mode 0600 beside its name, then move it there in one step.

    What was at `path` is replaced, a symlink too; on failure it is as before and nothing new
    is left.  There is no fsync: a bundle does not outlive the machine.

    Raises:
        OSError: the disk is full, or the directory is gone.
    """
    # A name of its own each time: a shim that was killed here must not block the next one.
    temporary = f"{path}.{os.urandom(6).hex()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(data)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def make_directory(path: str, mode: int) -> None:
    """Make a directory (the umask applies); nothing to do if it is there.

    Raises:
        OSError: it cannot be made, or something else has the name (FileExistsError).
    """
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
