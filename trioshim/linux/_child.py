"""A child with a name: spawned or adopted, and waited for by pidfd.

What holds here:

* A pidfd is opened while the child cannot have been collected, so it never means another
  process that got the same pid later.
* Only `PidfdChild` collects an owned child, once, and no checkpoint lies between collecting
  and storing the exit: a cancelled `wait` loses nothing.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import trio

from ..abc import Child, Exit

# How long a tracer may keep an ended child from us before we look again, in seconds.
_TRACED = 0.01


class PidfdChild(Child):
    """One child process of ours, known by a pidfd.

    Args:
        pid: its pid; it must not have been collected.
        pidfd: its pidfd; closed when it is collected or let go of.
        forget: called once with the pid when this is no longer its owner.
    """

    def __init__(self, pid: int, pidfd: int, forget: Callable[[int], None]) -> None:
        self._pid = pid
        self._pidfd = pidfd
        self._forget = forget
        self._exit: Exit | None = None

    @property
    def pid(self) -> int:
        return self._pid

    async def wait(self) -> Exit:
        """See `Child.wait`.

        Raises:
            trio.ClosedResourceError: it was let go of with `close`.
        """
        if self._exit is not None:
            await trio.lowlevel.checkpoint()
            return self._exit
        while True:
            if self._pidfd < 0:
                raise trio.ClosedResourceError("this child was let go of")
            await trio.lowlevel.wait_readable(self._pidfd)
            exit_ = self._collect()
            if exit_ is not None:
                return exit_
            # Ended, but a tracer has it first: the pidfd stays readable, so do not spin.
            await trio.sleep(_TRACED)

    def signal(self, signum: int) -> None:
        if self._pidfd < 0:
            raise ProcessLookupError(f"process {self._pid} has ended")
        signal.pidfd_send_signal(self._pidfd, signum)

    def close(self) -> None:
        self._release()

    def _collect(self) -> Exit | None:
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        if result is None:
            return None
        self._exit = Exit(status=exit_status(result), at=time.time_ns())
        self._release()
        return self._exit

    def _release(self) -> None:
        if self._pidfd < 0:
            return
        pidfd, self._pidfd = self._pidfd, -1
        trio.lowlevel.notify_closing(pidfd)
        os.close(pidfd)
        self._forget(self._pid)


def exit_status(result: os.waitid_result) -> int:
    """The code, or 128 + the signal's number; a core dump makes no difference."""
    if result.si_code == os.CLD_EXITED:
        return result.si_status
    return 128 + result.si_status
