"""The fifo `log` in a bundle, read as the daemon reads it.

containerd's shims end without a word if it is not there or nobody reads it, and wait while it is
full.  So it is made, held open at both ends, and read until the shim has ended.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

from ..ttrpc._shelter import open_shelter, undisturbed

__all__ = ["ShimLog", "open_shim_log"]

_log = logging.getLogger("trioshim.client.log")

_CHUNK = 64 * 1024
_KEPT = 4096  # bytes


class ShimLog:
    """What a shim has said.  Made by `open_shim_log`."""

    def __init__(self, id_: str, fd: int) -> None:
        self._id = id_
        self._fd = fd
        self._said = b""

    @undisturbed
    async def read(self) -> None:
        """Write what comes to our own log, at level DEBUG."""
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            self._take()

    def _take(self) -> None:
        with suppress(BlockingIOError):
            while data := os.read(self._fd, _CHUNK):
                for line in data.splitlines():
                    _log.debug("%s: %s", self._id, line.decode("utf-8", "replace"))
                self._said = (self._said + data)[-_KEPT:]

    def tail(self) -> str:
        """The end of all that it has said by now."""
        if self._fd >= 0:
            self._take()
        return self._said.decode("utf-8", "replace").strip()


@asynccontextmanager
async def open_shim_log(bundle: str, id_: str) -> AsyncIterator[ShimLog]:
    """Read the log of a shim until the end of the block; a fifo made here is removed then.

    If something else than a fifo has that name, the shim may write there and nothing is read.

    Raises:
        OSError: the fifo can be neither made nor opened.
    """
    path = os.path.join(bundle, "log")
    try:
        os.mkfifo(path, 0o700)
        made = True
    except FileExistsError:
        made = False
    try:
        # For both: it never ends, and a shim that starts later finds a reader (containerd 1.4).
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW) if _is_fifo(path) else -1
        try:
            async with open_shelter() as helpers:
                log = ShimLog(id_, fd)
                if fd >= 0:
                    helpers.start_soon(log.read)
                yield log
        finally:
            if fd >= 0:
                os.close(fd)
    finally:
        if made:
            with suppress(FileNotFoundError):
                os.unlink(path)


def _is_fifo(path: str) -> bool:
    return stat.S_ISFIFO(os.lstat(path).st_mode)
