"""Opens the client's ends: fifos and files.

Promises: nothing here waits inside `open` on the event loop, whatever the client does or leaves
undone (moby#36661); what was checked is what is opened, because a path is pinned first and
then opened through /proc.

Rules: of a fifo we hold both ends.  For an output, so that a client that goes away causes no
EPIPE and the bytes stay for the next one; for stdin, so that a client that goes away is not the
end of the input (containerd/nerdctl#5042).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import PurePosixPath

import trio

from ..errors import DeadlineExceededError, InvalidArgumentError
from ._fd import Fd, File, Pipe

OPEN_TIMEOUT = 30.0
_FIRST_PAUSE = 0.001
_LAST_PAUSE = 0.05


class ClientStdin:
    """The client's stdin: a fifo that is checked now and opened when the process runs.

    Not earlier, or a quick client loses its end: ctr can tell us to close stdin only when its
    Create has been answered.  With an open fifo it would have copied a short input by then, found
    its end, told nobody, and the container would wait for more for ever.  (The Go shims open it
    before they answer, and `echo hi | ctr run ... cat` hangs.)

    Raises:
        InvalidArgumentError: not a fifo.
        OSError: it cannot be opened.
    """

    def __init__(self, path: str, owned: AsyncExitStack) -> None:
        self.released = False
        self._path = path
        self._owned = owned
        self._holder: Fd | None = None
        self._pin = owned.enter_context(_pin("stdin", path))
        if not _is(self._pin, stat.S_ISFIFO):
            raise InvalidArgumentError(f"stdin {path!r} is not a fifo")

    def open(self) -> Pipe:
        """The reading end; a writing end of ours keeps it from ending before `release`."""
        reading, writing = os.O_RDONLY | os.O_NONBLOCK, os.O_WRONLY | os.O_NONBLOCK
        reader = self._owned.enter_context(Pipe(_reopen(self._pin, self._path, reading)))
        self._holder = self._owned.enter_context(Fd(_reopen(self._pin, self._path, writing)))
        return reader.widen()

    def release(self) -> None:
        """Let it end when the client has closed it and all is read."""
        self.released = True
        if self._holder is not None:
            self._holder.close()


async def open_output(
    name: str, path: str, owned: AsyncExitStack, *, deadline: float
) -> Pipe | File:
    """The writing end of the client's stdout or stderr: a fifo, or a file that is there.

    Args:
        name: "stdout" or "stderr", for the error's text.
        path: where it is.
        owned: closes what was opened.
        deadline: in trio's time; how long to wait for a client that opens the other end.

    Raises:
        DeadlineExceededError: the client did not open its end.
        InvalidArgumentError: neither a fifo nor a file.
        OSError: it cannot be opened.
    """
    with _pin(name, path) as pin:
        if _is(pin, stat.S_ISREG) or _is(pin, stat.S_ISCHR):
            flags = os.O_WRONLY | os.O_APPEND
            number = await trio.to_thread.run_sync(_reopen, pin, path, flags)
            return owned.enter_context(File(number))
        if not _is(pin, stat.S_ISFIFO):
            raise InvalidArgumentError(f"{name} {path!r} is neither a fifo nor a file")
        writer = owned.enter_context(await _open_writer(name, path, pin, deadline))
        owned.enter_context(Fd(_reopen(pin, path, os.O_RDONLY | os.O_NONBLOCK)))
    return writer.widen()


async def open_log_file(path: str, owned: AsyncExitStack) -> File:
    """A file for `file://`, made with its directories if it is not there, to be appended to.

    Raises:
        InvalidArgumentError: a fifo or something else that is not a file.
        OSError: it cannot be opened.
    """
    file = owned.enter_context(File(await trio.to_thread.run_sync(_create, path)))
    if not _is(file, stat.S_ISREG) and not _is(file, stat.S_ISCHR):
        raise InvalidArgumentError(f"file://{path} is not a regular file")
    return file


async def _open_writer(name: str, path: str, pin: Fd, deadline: float) -> Pipe:
    pause = _FIRST_PAUSE
    with trio.CancelScope(deadline=deadline):
        while True:
            try:
                return Pipe(_reopen(pin, path, os.O_WRONLY | os.O_NONBLOCK))
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
            await trio.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE)
    raise DeadlineExceededError(f"no client has opened {name} {path!r} for reading")


def _pin(name: str, path: str) -> Fd:
    try:
        return Fd(os.open(path, os.O_PATH | os.O_CLOEXEC))
    except OSError as error:
        text = f"cannot open {name}: {error.strerror}"
        raise OSError(error.errno, text, path) from error


def _reopen(pin: Fd, path: str, flags: int) -> int:
    try:
        return os.open(f"/proc/self/fd/{pin.fileno()}", flags | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error


def _is(fd: Fd, kind: Callable[[int], bool]) -> bool:
    return kind(os.fstat(fd.fileno()).st_mode)


def _create(path: str) -> int:
    for parent in reversed(PurePosixPath(path).parents):
        with suppress(FileExistsError):
            os.mkdir(parent, 0o755)
    # O_NONBLOCK: a fifo without a reader must fail here and not hold the thread for ever.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    return os.open(path, flags, 0o644)
