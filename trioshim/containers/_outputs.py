"""Where the standard streams of a process go: the same four choices as in `subprocess`.

`PIPE` is a stream for the program, `DEVNULL` nothing, None our own stdout or stderr, and a number
or a file whatever is open there.  What is copied is copied by tasks, in threads: to set our own
stdout to non-blocking would set it for everybody who has it open.
"""

from __future__ import annotations

import os
from typing import Protocol

import trio

__all__ = ["DEVNULL", "PIPE", "Output", "Streams", "copy_to_fd"]

PIPE, DEVNULL = -1, -3  # the numbers of `subprocess`, which we do not import for them


class HasFileno(Protocol):
    """A file, or something else with a file descriptor."""

    def fileno(self) -> int: ...


Output = int | HasFileno | None


class Streams:
    """Which fifos a process needs, and where their other ends go.

    Args:
        stdin: PIPE or DEVNULL.
        stdout, stderr: PIPE, DEVNULL, None for our own, or an open file.
        terminal: all goes through stdout, so there is no stderr; and there is always a stdin.

    Attributes:
        stdin, stdout, stderr: whether there is a fifo.
        out, err: file descriptors to copy to; None: nothing is copied.

    Raises:
        ValueError: none of these.
    """

    def __init__(self, stdin: int, stdout: Output, stderr: Output, *, terminal: bool) -> None:
        if stdin not in (PIPE, DEVNULL):
            raise ValueError(f"stdin={stdin}: use PIPE or DEVNULL")
        self.stdin = terminal or stdin == PIPE
        self.stdout = stdout != DEVNULL
        self.stderr = stderr != DEVNULL and not terminal
        self.out = _target(stdout, 1, "stdout")
        self.err = None if terminal else _target(stderr, 2, "stderr")


def _target(output: Output, inherited: int, name: str) -> int | None:
    """The file descriptor to copy to; None for PIPE and DEVNULL.

    Raises:
        ValueError: a number that is no file descriptor.
    """
    if output is None:
        return inherited
    if not isinstance(output, int):
        return output.fileno()
    if output in (PIPE, DEVNULL):
        return None
    if output < 0:
        raise ValueError(f"{name}={output}: use PIPE, DEVNULL, None or an open file")
    return output


async def copy_to_fd(stream: trio.abc.ReceiveStream, fd: int) -> None:
    """Copy a stream to a file descriptor until its end.

    Raises:
        OSError: nobody reads there any more, the disk is full.
    """
    async for chunk in stream:
        rest = memoryview(chunk)
        while rest:
            written = await trio.to_thread.run_sync(os.write, fd, rest)
            rest = rest[written:]
