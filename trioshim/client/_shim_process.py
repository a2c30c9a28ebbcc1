"""The process of a shim that we started but that is not our child: named by a pidfd.

Rules of this file: a signal goes to a pidfd, never to a pid; and a process is only ours if it
carries the mark of our `start` in its environment, or began after we asked for it.  A shim that
was there before belongs to somebody else.  (Both, because some forks are older than the `start`
that takes them, and some programs clear their environment.)
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import suppress

import trio

from ..ttrpc._shelter import undisturbed

__all__ = ["Mark", "ShimProcess", "find_listeners"]

MARK = "TRIOSHIM_LAUNCHED"

_LISTENING = 0x10000  # __SO_ACCEPTCON in the column Flags of /proc/net/unix
_START_TIME = 19  # the 22nd field of /proc/PID/stat, counted behind the name


class Mark:
    """What tells the process of one `start` from all others.

    Attributes:
        variable: to be added to the environment of `start`.
    """

    def __init__(self) -> None:
        self._age = _age_now()
        self._token = secrets.token_hex(16)

    @property
    def variable(self) -> dict[str, str]:
        return {MARK: self._token}

    def is_on(self, process: ShimProcess) -> bool:
        """Whether the process came from this `start`."""
        return process.began >= self._age or self._token == process.mark


def _age_now() -> int:
    """The time since the machine started, in the ticks of `ShimProcess.began`."""
    ticks = os.sysconf("SC_CLK_TCK")
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) * ticks // 1_000_000_000


class ShimProcess:
    """A process that was running when this was made.

    `watch` must be started for it: that closes the pidfd.

    Args:
        pid: its pid.

    Attributes:
        pid: its pid.
        began: when it began, in ticks since the machine did.
        mark: what our `start`s put into environments; "" if there is none to be seen.
        ended: set when it has ended.

    Raises:
        OSError: it is not there, or cannot be looked at.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ended = trio.Event()
        self._pidfd = os.pidfd_open(pid)
        try:
            self.began = _began(pid)
            self.mark = _mark(pid)
        except BaseException:
            os.close(self._pidfd)
            raise

    @undisturbed
    async def watch(self) -> None:
        """Wait for its end; if it is our child after all (we are a subreaper), collect it."""
        try:
            await trio.lowlevel.wait_readable(self._pidfd)
            self._collect()
            self.ended.set()
        finally:
            pidfd, self._pidfd = self._pidfd, -1
            os.close(pidfd)

    def _collect(self) -> None:
        with suppress(ChildProcessError):  # as a rule it is another's
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)

    async def ends_within(self, seconds: float) -> bool:
        """Whether it has ended then; returns as soon as it has."""
        with trio.move_on_after(seconds):
            await self.ended.wait()
        return self.ended.is_set()

    def signal(self, signum: signal.Signals) -> None:
        """Send it a signal; nothing happens if it has ended."""
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signum)


def find_listeners(paths: Collection[str]) -> list[int]:
    """The pids of those who listen at one of these unix sockets; reads a lot of /proc.

    Args:
        paths: as they were bound; an abstract one begins with a NUL.
    """
    wanted = {path.replace("\0", "@", 1) for path in paths}
    sockets = {f"socket:[{inode}]" for inode, path in _listening() if path in wanted}
    if not sockets:
        return []
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return [pid for pid in pids if pid != os.getpid() and not sockets.isdisjoint(_files(pid))]


def _listening() -> Iterator[tuple[str, str]]:
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:
        next(table)
        for line in table:
            _, _, _, flags, _, _, inode, *path = line.rstrip("\n").split(maxsplit=7)
            if path and int(flags, 16) & _LISTENING:
                yield inode, path[0]


def _files(pid: int) -> Iterator[str]:
    """What its descriptors are; those of a process that ends meanwhile are none."""
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                yield os.readlink(f"/proc/{pid}/fd/{fd}")


def _began(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The name stands in parentheses, and may hold some.
        fields = re.split(rb"\s+", file.read().rpartition(b")")[2].strip())
    return int(fields[_START_TIME])


def _mark(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
    except PermissionError:  # it has changed its user, or does not want to be looked at
        return ""
    begin = f"{MARK}=".encode()
    found = (variable for variable in variables if variable.startswith(begin))
    return next(found, b"").removeprefix(begin).decode("ascii", "replace")
