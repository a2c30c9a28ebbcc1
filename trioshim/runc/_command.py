"""One command of the runtime: run it, listen to it, and never leave it behind.

Rules:
  * The end of a command is the end of its process, never the end of its output: the container's
    init inherits the same pipe and may hold it for years.
  * Its output is read while it runs: a runtime that has more to say than a pipe holds would
    otherwise wait for us while we wait for it (containerd#4434).
  * However this ends - well, late, cancelled - the process group is gone and every fd is closed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from ..abc import Child, Exit, Kernel
from ..errors import DeadlineExceededError
from ._argv import Verb
from ._files import read_end
from ._log import Excerpt, Result, last_error, not_started

MAX_LOG = 4 * 1024 * 1024
# A pipe holds 1 MiB at most (fs.pipe-max-size), so this is more than is ever left in one.
_READS_AFTER_END = 32
_READ_SIZE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long one command may take, in seconds.

    Attributes:
        create: create, restore and checkpoint.
        kill: kill.
        other: everything else.
        patience: how long to wait for a command that has been killed.
    """

    create: float = 120
    kill: float = 10
    other: float = 60
    patience: float = 5

    def of(self, verb: Verb) -> float:
        if verb in (Verb.CREATE, Verb.RESTORE, Verb.CHECKPOINT):
            return self.create
        return self.kill if verb is Verb.KILL else self.other


@dataclass(frozen=True, slots=True)
class Command:
    """What to run.

    Attributes:
        verb: what it does.
        argv: the whole command line.
        log: an fd of ours; what it is of, is the file that the command writes its log to.
        timeout: seconds it may take.
        patience: seconds to wait for it once it has been killed.
        fds: its fd numbers to ours.
        capture: its fds 1 and 2 are ours to read.
    """

    verb: Verb
    argv: tuple[str, ...]
    log: int
    timeout: float
    patience: float
    fds: Mapping[int, int] = field(default_factory=dict)
    capture: bool = True


class Listener:
    """Our end of the pipe that a command writes to; without one it hears nothing."""

    def __init__(self, ours: int | None = None, theirs: int | None = None) -> None:
        self._excerpt = Excerpt()
        self._ours = ours
        self._theirs = theirs

    def fds(self, fds: Mapping[int, int]) -> dict[int, int]:
        if self._theirs is None:
            return dict(fds)
        return {**fds, 1: self._theirs, 2: self._theirs}

    async def listen(self) -> None:
        """Read until cancelled.  There is no end: our own copy of theirs keeps the pipe open."""
        while self._ours is not None:
            await trio.lowlevel.wait_readable(self._ours)
            self._read_some()

    def text(self) -> str:
        """What was heard, with what is still in the pipe.  Does not wait."""
        for _ in range(_READS_AFTER_END):
            if not self._read_some():
                break
        return self._excerpt.text()

    def close(self) -> None:
        for fd in (self._ours, self._theirs):
            if fd is not None:
                os.close(fd)

    def _read_some(self) -> bool:
        if self._ours is None:
            return False
        try:
            self._excerpt.add(os.read(self._ours, _READ_SIZE))
        except BlockingIOError:
            return False
        return True


async def run(kernel: Kernel, command: Command) -> Result:
    """Run a command to its end.

    Raises:
        DeadlineExceededError: it took longer than it may; it was killed.
        RuntimeFailedError: it could not be started.
    """
    with _open_listener(command.capture) as listener:
        ended = await _run(kernel, command, listener)
        output = listener.text()
    logged = last_error(read_end(command.log, MAX_LOG))
    if ended is None:
        raise _too_late(command, logged or output)
    return Result(command.verb, command.argv, ended.status, output, logged)


async def _run(kernel: Kernel, command: Command, listener: Listener) -> Exit | None:
    """How it ended; None: not in time."""
    try:
        child = kernel.spawn(command.argv, fds=listener.fds(command.fds))
    except OSError as error:
        raise not_started(command.verb, command.argv, error) from error
    ended = None
    try:
        ended = await _wait(child, listener, command.timeout)
    finally:
        if ended is None:
            await _kill(kernel, child, command.patience)
        child.close()
    return ended


async def _wait(child: Child, listener: Listener, timeout: float) -> Exit | None:
    ended: Exit | OSError | None = None
    with trio.move_on_after(timeout):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.listen)
            try:
                ended = await child.wait()
            except OSError as error:  # kept out of the nursery, which would wrap it in a group
                ended = error
            nursery.cancel_scope.cancel()
    if isinstance(ended, OSError):
        raise ended
    return ended


async def _kill(kernel: Kernel, child: Child, patience: float) -> None:
    """End a command and all that it started; one that cannot die is left to the reaper."""
    kernel.kill_group(child)
    with trio.move_on_after(patience, shield=True):
        await child.wait()


@contextmanager
def _open_listener(capture: bool) -> Iterator[Listener]:
    listener = Listener()
    if capture:
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(ours, False)  # ours alone: the runtime expects a plain stderr
        listener = Listener(ours, theirs)
    try:
        yield listener
    finally:
        listener.close()


def _too_late(command: Command, said: str) -> DeadlineExceededError:
    name = f"{command.argv[0]} {command.verb}"
    last = f"; it said: {said}" if said else ""
    return DeadlineExceededError(
        f"{name} did not end within {command.timeout:g} s; it was killed"
        f" (look for a frozen cgroup, a process in state D or an overloaded host){last}"
    )
