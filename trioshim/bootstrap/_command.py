"""Run one command to its end, within a time limit: for `delete` and `-info`.

The server never uses this: there every child has one waiter, the kernel port.
"""

from __future__ import annotations

import os
import select

from .._plain import Record
from ._files import read_all
from ._spawn import RESET_SIGNALS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SIGKILL = 9
_OUTPUT_LIMIT = 4 << 20
_KILL_SECONDS = 0.5


class Outcome(Record):
    """How a command ended.

    Attributes:
        status: its exit status, negative for a signal; None: it was killed at the time limit.
        stdout: what it wrote, at most 4 MiB of it.
        stderr: likewise.
    """

    __slots__ = ("status", "stderr", "stdout")
    status: int | None
    stdout: bytes
    stderr: bytes

    def __init__(self, status: int | None, stdout: bytes, stderr: bytes) -> None:
        self._set(status=status, stdout=stdout, stderr=stderr)


def run(argv: Sequence[str], environ: Mapping[str, str], *, limit: float) -> Outcome:
    """Run a program found in PATH, with an empty standard input, in a process group of its own.

    Its output goes to memory files, so what it leaves running in the background cannot keep us.

    Args:
        argv: the program and its arguments.
        environ: its environment; NOTIFY_SOCKET is left out.
        limit: seconds; then its whole group is killed.

    Raises:
        OSError: it could not be started (FileNotFoundError: there is no such program).
    """
    stdout = os.memfd_create("stdout")
    try:
        stderr = os.memfd_create("stderr")
        try:
            pid = _spawn(argv, environ, stdout, stderr)
            status = _wait(pid, limit)
            return Outcome(status, _content(stdout), _content(stderr))
        finally:
            os.close(stderr)
    finally:
        os.close(stdout)


def _spawn(argv: Sequence[str], environ: Mapping[str, str], stdout: int, stderr: int) -> int:
    return os.posix_spawnp(
        argv[0],
        list(argv),
        {key: value for key, value in environ.items() if key != "NOTIFY_SOCKET"},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, stdout, 1),
            (os.POSIX_SPAWN_DUP2, stderr, 2),
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        ],
        setpgroup=0,
        setsigmask=[],
        setsigdef=RESET_SIGNALS,
    )


def _wait(pid: int, limit: float) -> int | None:
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if poll.poll(limit * 1000):
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.killpg(pid, _SIGKILL)
        if poll.poll(_KILL_SECONDS * 1000):  # else it hangs in the kernel: not our turn to wait
            os.waitpid(pid, 0)
        return None
    finally:
        os.close(pidfd)


def _content(fd: int) -> bytes:
    os.lseek(fd, 0, os.SEEK_SET)
    return read_all(fd, _OUTPUT_LIMIT)
