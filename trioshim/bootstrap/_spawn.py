"""Leave a process behind: a session of its own, null devices for 0, 1 and 2, no signal blocked."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SIGKILL, _SIGPIPE, _SIGXFSZ = 9, 13, 25
# CPython ignores these two, and what is ignored is inherited through exec.
RESET_SIGNALS = (_SIGPIPE, _SIGXFSZ)
_END_SECONDS = 5


class Left:
    """A process that was left behind, until nobody needs to take it back any more.

    Attributes:
        pid: its number.
    """

    __slots__ = ("_pidfd", "pid")

    def __init__(self, pid: int, pidfd: int = -1) -> None:
        """Name it.

        Args:
            pid: its number.
            pidfd: for one that is not our child.
        """
        self.pid = pid
        self._pidfd = pidfd

    def signal(self, signum: int) -> None:
        """Send a signal to one that is not our child; nothing happens if it has ended."""
        from signal import pidfd_send_signal

        try:
            pidfd_send_signal(self._pidfd, signum)
        except ProcessLookupError:
            return

    def kill(self) -> None:
        """End it and see it gone."""
        if self._pidfd < 0:
            os.kill(self.pid, _SIGKILL)
            os.waitpid(self.pid, 0)
            return
        import select

        self.signal(_SIGKILL)
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.poll(_END_SECONDS * 1000)


def spawn(argv: Sequence[str], environ: Mapping[str, str], fds: Sequence[tuple[int, int]]) -> Left:
    """Run a program that outlives us.

    Args:
        argv: the program's path and its arguments.
        environ: its environment.
        fds: pairs of a file descriptor of ours and its number there, above 2.

    Raises:
        OSError: it cannot be run.
    """
    pid = os.posix_spawn(
        argv[0],
        list(argv),
        environ,
        file_actions=[
            *((os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in fds),
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=RESET_SIGNALS,
    )
    return Left(pid)
