"""The terminal of a process: the socket that its master comes through, and the master itself.

Promises: the socket listens before the runtime runs and its directory is gone afterwards; the
master is one terminal, close-on-exec and non-blocking, or an error; no fd that a wrong message
brought is left open.

Rules: EIO from reading a master means that no process has the terminal open at this moment.
While the process lives it may be opened (again), so we wait; once the process is known to have
ended it is the end of the output.  Nothing else tells the two apart without a race.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import struct
import tempfile
import termios
from contextlib import suppress

import trio

from ..errors import DeadlineExceededError, InternalError
from ._fd import CHUNK, Fd

CONSOLE_TIMEOUT = 10.0
_PATH_LIMIT = 108  # sun_path, with its NUL
_SOME_FDS = 8
_FIRST_PAUSE = 0.001
_LAST_PAUSE = 0.25


class Master(Fd):
    """The master side of a pty."""

    __slots__ = ("_over", "_pause")

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self._over = trio.Event()
        self._pause = _FIRST_PAUSE

    def resize(self, width: int, height: int) -> None:
        """Set the size; numbers that do not fit in 16 bits lose their upper bits."""
        size = struct.pack("HHHH", height & 0xFFFF, width & 0xFFFF, 0, 0)
        fcntl.ioctl(self.fileno(), termios.TIOCSWINSZ, size)

    def process_ended(self) -> None:
        """From now on, nobody at the other side is the end."""
        self._over.set()

    async def read(self) -> bytes:
        """Some bytes; none when the process has ended and all is read."""
        while True:
            try:
                data = os.read(self.fileno(), CHUNK)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.fileno())
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                if self._over.is_set():
                    return b""
                await self._nobody_there()
            else:
                self._pause = _FIRST_PAUSE
                return data

    async def write_some(self, data: memoryview) -> int:
        """Write what fits; none when it had to wait."""
        try:
            return os.write(self.fileno(), data)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(self.fileno())
        return 0

    async def _nobody_there(self) -> None:
        with trio.move_on_after(self._pause):
            await self._over.wait()
        self._pause = min(2 * self._pause, _LAST_PAUSE)


class ConsoleSocket:
    """A socket in a directory of its own, where the runtime sends the master.

    Attributes:
        path: for the runtime's `--console-socket`.

    Raises:
        OSError: the directory or the socket cannot be made.
    """

    def __init__(self) -> None:
        runtime_dir = os.environ.get("XDG_RUNTIME_DIR")
        self._directory = tempfile.mkdtemp(prefix="pty", dir=runtime_dir or None)
        self.path = os.path.join(self._directory, "pty.sock")
        try:
            listener = _listen(self.path, sticky=bool(runtime_dir))
        except OSError:
            self._remove()
            raise
        self._listener = trio.socket.from_stdlib_socket(listener)

    async def receive(self) -> Master:
        """The master.  The runtime has ended, so it waits in the socket or never comes.

        Raises:
            DeadlineExceededError: the runtime sent nothing.
            InternalError: it sent something else.
        """
        with trio.move_on_after(CONSOLE_TIMEOUT):
            connection, _ = await self._listener.accept()
            with connection:
                return await _receive_master(connection)
        raise DeadlineExceededError(
            f"the runtime sent no terminal to {self.path} within {CONSOLE_TIMEOUT:g} s"
        )

    def close(self) -> None:
        """Stop listening and remove the directory.  Again: nothing happens."""
        self._listener.close()
        self._remove()

    def _remove(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.path)
        with suppress(FileNotFoundError):
            os.rmdir(self._directory)


def _listen(path: str, *, sticky: bool) -> socket.socket:
    if len(os.fsencode(path)) >= _PATH_LIMIT:
        text = "the console socket's path is too long; set XDG_RUNTIME_DIR to a shorter directory"
        raise OSError(errno.ENAMETOOLONG, text, path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        if sticky:  # the XDG rules let a cleaner remove what is not sticky
            os.chmod(path, 0o1755)
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener


async def _receive_master(connection: trio.socket.SocketType) -> Master:
    room = socket.CMSG_SPACE(_SOME_FDS * struct.calcsize("i"))
    # Without the flag the fds that Python receives would be inherited by the next runtime.
    _, messages, _, _ = await connection.recvmsg(4096, room, socket.MSG_CMSG_CLOEXEC)
    numbers = array.array("i")
    for level, kind, data in messages:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    if len(numbers) == 1 and os.isatty(numbers[0]):
        os.set_blocking(numbers[0], False)
        return Master(numbers[0])
    for number in numbers:
        os.close(number)
    raise InternalError(f"the runtime sent {len(numbers)} file descriptors, not one terminal")
