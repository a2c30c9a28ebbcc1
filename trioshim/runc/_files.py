"""Plain reads and removals in a bundle.  Writing there is the kernel port's business.

Nothing here waits: the files are small and local, a fifo in the place of one reads as empty.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator


def read_file(path: str, limit: int) -> bytes:
    """A whole file.

    Raises:
        OSError: it cannot be read, or has more than `limit` bytes (EFBIG).
    """
    data = _read(path, limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"more than {limit} bytes", path)
    return data


def read_end(path: str, limit: int) -> bytes:
    """The last `limit` bytes of a file.

    Raises:
        OSError: it cannot be read.
    """
    return _read(path, limit, from_end=limit)


def read_pid(path: str) -> int:
    """The pid in a pid file.

    Raises:
        OSError: it cannot be read.
        ValueError: there is no pid in it.
    """
    text = read_file(path, 64)
    if not text.strip().isdigit() or int(text) <= 1:
        raise ValueError(f"{path} contains no pid but {text!r}")
    return int(text)


def remove_file(path: str) -> None:
    """Remove a file of ours; one that is left over does no harm."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def remove_directory(path: str) -> None:
    """Remove a directory of ours and what is in it, as far as that goes."""
    shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def memory_file(data: bytes) -> Iterator[int]:
    """An fd to read `data` from; a pipe could be too small to hold it."""
    with open(os.memfd_create("trioshim"), "w+b", buffering=0) as file:
        file.write(data)
        file.seek(0)
        yield file.fileno()


def _read(path: str, size: int, *, from_end: int = 0) -> bytes:
    # Non-blocking: opening a fifo that nobody writes to would stop the whole shim.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(fd, "rb") as file:
        if from_end:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - from_end))
        return file.read(size) or b""
