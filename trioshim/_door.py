"""The door of a shim for a group: its socket's name in the file system.

Rule: the name goes under the lock that every `start` takes, so a `start` either joins this shim or
makes the next one, and none is told of a shim that is about to end.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from .bootstrap._files import remove
from .bootstrap._sockets import SocketLock
from .shim import Door

__all__ = ["SocketDoor"]

log = logging.getLogger("trioshim")

_AGAIN = 0.02  # seconds: a `start` holds the lock for milliseconds


class SocketDoor(Door):
    """The socket's name in the file system: it is removed under the lock that `start` takes."""

    def __init__(self, path: str, first: str) -> None:
        self._path = path
        self._first = first
        self._mark = _mark(path)

    @property
    def first(self) -> str:
        return self._first

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        lock = SocketLock(self._path)
        entered = await self._enter(lock)
        try:
            yield
        finally:
            if entered:
                lock.leave()

    async def _enter(self, lock: SocketLock) -> bool:
        while True:
            try:
                if lock.enter_now():
                    return True
            except FileNotFoundError:  # nobody finds a socket whose directory is gone
                return False
            except OSError as error:
                log.warning("cannot lock %s: %s", self._path, error)
                await trio.sleep(1)
            await trio.sleep(_AGAIN)

    def shut(self) -> None:
        if self._mark is not None and _mark(self._path) == self._mark:  # not a later shim's
            remove(self._path)


def _mark(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
