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
    with _open(path) as fd, open(fd, "rb", closefd=False) as file:
        data = file.read(limit + 1) or b""
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"more than {limit} bytes", path)
    return data


def read_end(file: str | int, limit: int) -> bytes:
    """The last `limit` bytes of a file: a path, or an fd that stays open.

    Raises:
        OSError: it cannot be read.
    """
    if isinstance(file, int):
        return os.pread(file, limit, max(0, os.fstat(file).st_size - limit))
    with _open(file) as fd:
        return read_end(fd, limit)


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
def memory_file(data: bytes = b"") -> Iterator[int]:
    """An fd of a file in memory: no pipe too small, no disk too full."""
    with open(os.memfd_create("trioshim"), "w+b", buffering=0) as file:
        file.write(data)
        file.seek(0)
        yield file.fileno()


@contextlib.contextmanager
def _open(path: str) -> Iterator[int]:
    # Non-blocking: opening a fifo that nobody writes to would stop the whole shim.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        yield fd
    finally:
        os.close(fd)
