"""The real kernel: processes waited for by name, strangers swept up behind them.

What holds here:

* One waiter per child.  An owned child (spawned or adopted) is collected by its own `wait` and
  by nobody else; the reaper collects only pids that nobody owns.  Two waiters would turn exit
  codes into 0 (trioshim's law; seen in containerd-shim-systemd-v1#26).  So nothing else in the
  process may fork or wait.
* Inside `birth` no stranger is collected: a pid that the runtime wrote down stays what it was
  until `adopt` has named it, even if the process has ended already.
* The reaper never waits for a consumer and never spins (rust-extensions#146): it stops at an
  owned zombie, and whoever collects that one wakes it again.

Everything here belongs to trio's thread, and that must be the main thread (signals).
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

import trio

from .._atomic import write_file
from ..abc import Child, Kernel
from . import _files, _mounts
from ._child import PidfdChild, exit_status
from ._spawn import spawn_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..abc import Cgroup, Mount, Stdio, StdioSpec
    from ._cgroup import CgroupMount

_log = logging.getLogger(__name__)


class LinuxKernel(Kernel):
    """`Kernel` on this machine.  One for each process; it knows which children have owners."""

    def __init__(self) -> None:
        self._owned: dict[int, PidfdChild] = {}
        self._births = 0
        self._wake = trio.Event()
        self._cgroup_mounts: list[CgroupMount] = []

    def now(self) -> int:
        return time.time_ns()

    # ------------------------------------------------------------ children

    @contextmanager
    def birth(self) -> Iterator[None]:
        self._births += 1
        try:
            yield
        finally:
            self._births -= 1
            if not self._births:
                self._wake.set()

    def spawn(
        self,
        argv: Sequence[str],
        *,
        fds: Mapping[int, int] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Child:
        pid = spawn_process(argv, fds or {}, env)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            # Out of fds.  Nobody could wait for it: end it and leave it to the reaper.
            os.killpg(pid, signal.SIGKILL)
            raise
        return self._own(pid, pidfd)

    def adopt(self, pid: int) -> Child:
        if not self._births:
            raise RuntimeError("adopt() outside of birth(): the pid may be another process by now")
        if pid in self._owned:
            raise RuntimeError(f"process {pid} has an owner already")
        try:
            return self._own(pid, _open_child(pid))
        except ProcessLookupError:
            raise
        except OSError:
            _kill_child(pid)
            raise

    def kill_group(self, child: Child) -> None:
        # While its leader is not collected, the group's number cannot be given to another.
        if self._owned.get(child.pid) is child:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

    def _own(self, pid: int, pidfd: int) -> PidfdChild:
        child = PidfdChild(pid, pidfd, self._disown)
        self._owned[pid] = child
        return child

    def _disown(self, pid: int) -> None:
        del self._owned[pid]
        self._wake.set()

    # ------------------------------------------------------------ strangers

    async def reap_strangers(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> NoReturn:
        """See `Kernel.reap_strangers`.  Once per process, in the main thread.

        Wakes for SIGCHLD, after an owned child is collected or let go of, and after the last
        birth: each may uncover strangers whose own signal has been spent.
        """
        with trio.open_signal_receiver(signal.SIGCHLD) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._wake_for, signals)
                task_status.started()
                while True:
                    self._wake = trio.Event()
                    self._collect_strangers()
                    await self._wake.wait()
        raise AssertionError("the reaper ends only by cancellation")

    async def _wake_for(self, signals: AsyncIterator[int]) -> None:
        async for _ in signals:
            self._wake.set()

    def _collect_strangers(self) -> None:
        while not self._births:
            pid = _ended_child()
            if pid is None or pid in self._owned:
                return
            result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
            if result is None:
                return
            _log.debug("stranger %d ended with status %d", pid, exit_status(result))

    # ------------------------------------------------------------ cgroups, streams, files, mounts

    def cgroup(self, pid: int) -> Cgroup:
        from ._cgroup import open_cgroup, read_mounts

        # Each container with a rootfs makes the mount table longer, and these stay where they are.
        if not self._cgroup_mounts:
            self._cgroup_mounts = read_mounts()
        try:
            return open_cgroup(pid, self._cgroup_mounts)
        except FileNotFoundError:  # unless somebody has moved them
            self._cgroup_mounts = read_mounts()
            return open_cgroup(pid, self._cgroup_mounts)

    def open_stdio(self, spec: StdioSpec) -> AbstractAsyncContextManager[Stdio]:
        from ._stdio import open_stdio

        return open_stdio(spec, self)

    async def mount(self, mounts: Sequence[Mount], target: str) -> None:
        """See `Kernel.mount`.  Once begun it is not cancelled: half a rootfs would leak."""
        await trio.to_thread.run_sync(_mounts.mount_all, tuple(mounts), target)

    async def unmount(self, target: str) -> None:
        """See `Kernel.unmount`.  May take half a minute (containerd#7496), in a thread.

        Cancelled between two tries it leaves the rest mounted, to be tried again.

        Raises:
            OSError: a mount that cannot be undone, by name; EBUSY after 2.5 seconds of trying.
        """
        await _mounts.unmount_all(target)

    def make_directory(self, path: str, mode: int) -> None:
        _files.make_directory(path, mode)

    def write_file(self, path: str, data: bytes) -> None:
        write_file(path, data)


def _ended_child() -> int | None:
    """The pid of a child that has ended, left where it is; None if there is none."""
    try:
        result = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if result is None else result.si_pid


def _kill_child(pid: int) -> None:
    """SIGKILL without a pidfd, for a child of ours.  Inside `birth`, where no pid comes again."""
    with suppress(ChildProcessError, ProcessLookupError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # or it is another's
        os.kill(pid, signal.SIGKILL)


def _open_child(pid: int) -> int:
    """A pidfd of a child of ours, ended or not.

    Raises:
        ProcessLookupError: no such process, or another's child.
        OSError: no pidfd can be had.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        # EINVAL and ENOENT: not a process's number (0, negative, a thread's).
        if error.errno in (errno.ESRCH, errno.EINVAL, errno.ENOENT):
            raise ProcessLookupError(errno.ESRCH, f"no process {pid}") from error
        raise
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError as error:
        os.close(pidfd)
        raise ProcessLookupError(errno.ESRCH, f"process {pid} is not a child of ours") from error
    return pidfd
