"""A container's cgroup on v2: one directory.

What holds here:
- `oom_kill` is counted, not `oom`: that one is charged to whoever set the limit (containerd#6323).
  The kernel adds the cgroups below by itself.
- Files of a cgroup always look readable.  What changes is EPOLLPRI, from a change to the next
  read *through the same fd*; so they stay open, and reading before waiting misses nothing.
- The number never goes down, and what was seen stays true when the cgroup has gone.
"""

from __future__ import annotations

import errno
import os
import select
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import trio

from ._cgroup_files import Notice, open_directory, pids_below, read_at, read_open
from ._metrics_text import page_sizes, pairs
from ._metrics_v2 import metrics_v2

if TYPE_CHECKING:
    from ..proto.cgroups_v2_pb2 import Metrics

_LOOK_EVERY = 1.0  # seconds, where the kernel has no notices (not a cgroup file system)


class CgroupV2:
    """`trioshim.abc.Cgroup` on cgroup v2."""

    def __init__(self, path: str) -> None:
        """Open it.

        Args:
            path: its directory.

        Raises:
            OSError: it cannot be opened, or we have no fds left.
        """
        self._kills = 0
        with ExitStack() as fds:
            self._directory: int | None = open_directory(path)
            fds.callback(os.close, self._directory)
            self._page_sizes = page_sizes(os.listdir(self._directory))
            self._memory = self._open("memory.events", fds)
            self._state = self._open("cgroup.events", fds)
            self._notice = self._watch(fds)
            self._fds = fds.pop_all()

    def _open(self, name: str, fds: ExitStack) -> int | None:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        except FileNotFoundError:
            return None
        fds.callback(os.close, fd)
        return fd

    def _watch(self, fds: ExitStack) -> Notice | None:
        """One fd that is readable after a change; None where files tell no changes."""
        poll = fds.enter_context(select.epoll())
        try:
            for fd in (self._memory, self._state):
                if fd is not None:
                    poll.register(fd, select.EPOLLPRI)
        except PermissionError:
            return None
        return Notice(poll.fileno())

    def oom_kills(self) -> int:
        """How many processes were killed in it and below; after its end, what was seen last."""
        with suppress(OSError):
            self._look()
        return self._kills

    def _look(self) -> None:
        if self._directory is None:
            raise OSError(errno.EBADF, "the cgroup is closed")
        if self._memory is None:
            raise OSError(errno.ENOTSUP, "the cgroup has no memory controller")
        events = dict(pairs(read_open(self._memory)))
        self._kills = max(self._kills, events.get("oom_kill", 0))

    async def oom_changed(self) -> None:
        """Return when `oom_kills` has grown.

        Raises:
            OSError: the memory controller is not enabled (ENOTSUP), no process is left in the
                cgroup or it was removed (ENODEV), or `close` was called (EBADF).
        """
        await trio.lowlevel.checkpoint()
        before = self._kills
        while True:
            empty = self._is_empty()  # looked at first: a kill that emptied it is seen below
            self._look()
            if self._kills > before:
                return
            if empty:
                raise OSError(errno.ENODEV, "no process is left in the cgroup")
            if self._notice is None:
                await trio.sleep(_LOOK_EVERY)
            else:
                await self._notice.wait()

    def _is_empty(self) -> bool:
        return self._state is not None and ("populated", 0) in pairs(read_open(self._state))

    def stats(self) -> Metrics:
        """Everything that its controllers tell; next to nothing after its end.

        Raises:
            OSError: EMFILE, ENFILE or ENOMEM.
        """
        return metrics_v2(self._read, self._page_sizes)

    def _read(self, name: str) -> str | None:
        return None if self._directory is None else read_at(self._directory, name)

    def pids(self) -> list[int]:
        """Every process in it and below it, ascending; empty once it is gone.

        Raises:
            OSError: EMFILE, ENFILE or ENOMEM.
        """
        return [] if self._directory is None else pids_below(self._directory)

    def close(self) -> None:
        """Let go of it.  A task in `oom_changed` gets its OSError.  Again: nothing happens."""
        if self._notice is not None:
            self._notice.closing()
        self._directory = self._memory = self._state = self._notice = None
        self._fds.close()
