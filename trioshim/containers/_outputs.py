"""Where the standard streams of a process go: the same four choices as in `subprocess`.

`PIPE` is a stream for the program, `DEVNULL` nothing, None our own stdout or stderr, and a number
or a file whatever is open there.  What is copied is copied by tasks, in threads: to set our own
stdout to non-blocking would set it for everybody who has it open.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

import trio

from ..ttrpc._shelter import undisturbed

__all__ = ["DEVNULL", "PIPE", "Copy", "Output", "Streams"]

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
        terminal: as said.
        out, err: file descriptors to copy to; None: nothing is copied.

    Raises:
        ValueError: none of these.
    """

    def __init__(self, stdin: int, stdout: Output, stderr: Output, *, terminal: bool) -> None:
        if stdin not in (PIPE, DEVNULL):
            raise ValueError(f"stdin={stdin}: use PIPE or DEVNULL")
        self.terminal = terminal
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


class Copy:
    """Copies a stream to a file descriptor, as far as it can be written there.

    After a failure it goes on reading, and drops what it reads: a process whose output nobody
    takes would stand still, and could not be ended in good order.

    Args:
        stream: what a process writes.
        fd: where it goes.
        failed: called once, when it cannot be written.

    Attributes:
        done: set when all is copied, or nothing more will be.
        error: why it cannot be written: nobody reads there any more, the disk is full.
    """

    def __init__(self, stream: trio.abc.ReceiveStream, fd: int, failed: Callable[[], None]) -> None:
        self.done = trio.Event()
        self.error: OSError | None = None
        self._stream = stream
        self._fd = fd
        self._failed = failed
        self._scope = trio.CancelScope()
        self._writing = False
        self._copied = 0
        # Its own thread: the common ones must not run out where nobody reads.
        self._limiter = trio.CapacityLimiter(1)

    @undisturbed
    async def run(self) -> None:
        """Copy to the end of the stream."""
        try:
            with self._scope:
                async for chunk in self._stream:
                    if self.error is None:
                        await self._write(chunk)
        finally:
            self.done.set()

    async def finish(self, idle: float) -> None:
        """Wait until all is copied; but for no more than `idle` seconds if nothing comes."""
        while not self.done.is_set():
            before = self._copied
            with trio.move_on_after(idle):
                await self.done.wait()
            if self._copied == before and not self._writing:
                return

    async def stop(self) -> None:
        """Copy no more.  Where a write stands still, its thread is left behind."""
        self._scope.cancel()
        await self.done.wait()

    async def _write(self, chunk: bytes | bytearray) -> None:
        rest = memoryview(chunk)
        self._writing = True
        try:
            while rest:
                count = await self._write_some(rest)
                self._copied += count
                rest = rest[count:]
        except OSError as error:
            self.error = error
            self._failed()
        finally:
            self._writing = False

    async def _write_some(self, data: memoryview) -> int:
        try:
            return await trio.to_thread.run_sync(
                os.write, self._fd, data, abandon_on_cancel=True, limiter=self._limiter
            )
        except BlockingIOError:  # somebody has set it to non-blocking
            await trio.lowlevel.wait_writable(self._fd)
            return 0
