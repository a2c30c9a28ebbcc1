"""A container's cgroup on v1: one directory in each controller's hierarchy.

What holds here:
- The kernel says "out of memory" through an eventfd, which adds up, so nothing is missed between
  opening and the first wait.  It says so *before* it kills, and once more when the cgroup goes.
- How many were killed is in `memory.oom_control` since Linux 4.13; before, notices are counted.
  There a cgroup counts only its own, so those below are added: a container may make some.
- The number never goes down, and what was seen stays true when the cgroup has gone.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import trio

from ._cgroup_files import Notice, cgroups_below, open_if_there, pids_below, read_at, read_open
from ._metrics_text import page_sizes, pairs
from ._metrics_v1 import metrics_v1

if TYPE_CHECKING:
    from ..proto.cgroups_v1_pb2 import Metrics

# Seconds from the notice to the kill, as far as we are ready to look for it.
_AFTER_NOTICE = (0.0, 0.001, 0.01, 0.1, 1.0)


class CgroupV1:
    """`trioshim.abc.Cgroup` on cgroup v1."""

    def __init__(self, paths: Mapping[str, str], listing: Sequence[str]) -> None:
        """Open what is there.

        Args:
            paths: controller to directory; a controller without its directory is left out.
            listing: directories that can tell the processes; the first that is there is asked.

        Raises:
            OSError: no directory of `listing` can be opened, or we have no fds left.
        """
        self._kills = 0
        self._notices = 0
        self._counted = False
        self._control: int | None = None
        self._eventfd: int | None = None
        with ExitStack() as fds:
            opened: dict[str, int] = {}
            self._directories = {
                name: fd
                for name, path in paths.items()
                if (fd := _open_once(path, opened, fds)) is not None
            }
            fds_of_listing = (_open_once(path, opened, fds) for path in listing)
            self._listing = next((fd for fd in fds_of_listing if fd is not None), None)
            if self._listing is None:
                raise FileNotFoundError(errno.ENOENT, "no cgroup directory", *listing[:1])
            hugetlb = self._directories.get("hugetlb")
            self._page_sizes = [] if hugetlb is None else page_sizes(os.listdir(hugetlb))
            self._notice = self._register(fds)
            self._fds = fds.pop_all()

    def _register(self, fds: ExitStack) -> Notice | None:
        """Have the kernel write to an eventfd; None where it does not do that."""
        memory = self._directories.get("memory")
        if memory is None:
            return None
        try:
            control = os.open("memory.oom_control", os.O_RDONLY | os.O_CLOEXEC, dir_fd=memory)
            self._control = _close_with(fds, control)
            self._counted = "oom_kill " in read_open(control)
            eventfd = _close_with(fds, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
            register = os.open("cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC, dir_fd=memory)
            try:
                os.write(register, f"{eventfd} {control}".encode())
            finally:
                os.close(register)
        except OSError:
            return None  # not fatal: the counter can still be read; `oom_changed` will say so
        self._eventfd = eventfd
        return Notice(eventfd)

    def oom_kills(self) -> int:
        """How many processes were killed in it and below; after its end, what was seen last."""
        self._kills = max(self._kills, self._count())
        return self._kills

    def _count(self) -> int:
        if self._control is None:
            return 0
        try:
            taken = 0 if self._counted else self._take_notices()
            own = dict(pairs(read_open(self._control)))  # fails if it has gone:
            self._notices += taken  # then one of the notices was not about memory
            memory = self._directories["memory"]
            below = (path for path in cgroups_below(memory) if path != ".")
            kills = own.get("oom_kill", self._notices)
            return kills + sum(_kills_in(memory, path) for path in below)
        except OSError:
            return 0

    def _take_notices(self) -> int:
        try:
            return 0 if self._eventfd is None else os.eventfd_read(self._eventfd)
        except BlockingIOError:
            return 0

    async def oom_changed(self) -> None:
        """Return when `oom_kills` has grown, or there was a notice and nobody was killed for it.

        Raises:
            OSError: the kernel does not watch this cgroup (ENOTSUP), it was removed (ENODEV), or
                `close` was called (EBADF).
        """
        await trio.lowlevel.checkpoint()
        before = self._kills
        if self.oom_kills() > before:
            return
        await self._watched().wait()
        if self._counted:
            self._take_notices()
        for seconds in _AFTER_NOTICE:
            await trio.sleep(seconds)
            if self.oom_kills() > before:
                return
            self._watched()

    def _watched(self) -> Notice:
        if self._listing is None:
            raise OSError(errno.EBADF, "the cgroup is closed")
        if self._notice is None or self._control is None:
            raise OSError(errno.ENOTSUP, "the kernel does not watch this cgroup's memory")
        read_open(self._control)
        return self._notice

    def stats(self) -> Metrics:
        """Everything that its controllers tell; next to nothing after its end.

        Raises:
            OSError: EMFILE, ENFILE or ENOMEM.
        """
        return metrics_v1(self._read, self._page_sizes)

    def _read(self, name: str) -> str | None:
        if name == "partitions":
            return None if self._listing is None else read_at(self._listing, "/proc/partitions")
        directory = self._directories.get(name.partition(".")[0])
        return None if directory is None else read_at(directory, name)

    def pids(self) -> list[int]:
        """Every process in it and below it, ascending; empty once it is gone.

        Raises:
            OSError: EMFILE, ENFILE or ENOMEM.
        """
        return [] if self._listing is None else pids_below(self._listing)

    def close(self) -> None:
        """Let go of it.  A task in `oom_changed` gets its OSError.  Again: nothing happens."""
        if self._notice is not None:
            self._notice.closing()
        self._directories = {}
        self._control = self._eventfd = self._listing = self._notice = None
        self._fds.close()


def _open_once(path: str, opened: dict[str, int], fds: ExitStack) -> int | None:
    if path not in opened:
        fd = open_if_there(path)
        if fd is None:
            return None
        opened[path] = _close_with(fds, fd)
    return opened[path]


def _close_with(fds: ExitStack, fd: int) -> int:
    fds.callback(os.close, fd)
    return fd


def _kills_in(memory: int, path: str) -> int:
    return dict(pairs(read_at(memory, f"{path}/memory.oom_control"))).get("oom_kill", 0)
