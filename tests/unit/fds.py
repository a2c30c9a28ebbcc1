"""What tests say about open fds."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


def open_fds() -> list[int]:
    """The numbers that are open in this process."""
    with os.scandir("/proc/self/fd") as entries:
        numbers = [int(entry.name) for entry in entries]
    return sorted(fd for fd in numbers if os.path.exists(f"/proc/self/fd/{fd}"))


@contextmanager
def no_fd_left(*, but: int = 0) -> Iterator[None]:
    """Within it only so many fds can be had; the next open() fails with EMFILE."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open("/", os.O_RDONLY) for _ in range(but + 1)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1], limits[1]))
    for fd in taken:
        os.close(fd)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
