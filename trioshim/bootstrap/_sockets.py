"""The shim's socket in the file system: made, reused or removed by one process at a time.

Rules: who looks whether a socket is alive and then unlinks or binds, holds its lock meanwhile.
The lock is a file beside the socket.  Its holder removes it; who waited for it then holds a lock
on a file that has no name any more, notices, and tries again with the new one.  So two concurrent
`start`s make one server (containerd's own shims can make two), and no lock file is left behind.

A `start` for a group whose shim listens *joins*: still under the lock it says for which container,
and waits for the shim's word.  A shim that has given its word does not end by itself before that
container has come or a minute is over; to end it takes the same lock and removes its socket.  So
the address that a `start` has answered leads to a shim that is there.

    start    JOIN, the container's id and a newline
    shim     JOINED, its pid and a newline       or nothing: it is about to end
"""

from __future__ import annotations

import fcntl
import os
import time
from _socket import AF_UNIX, SOCK_STREAM, socket  # the `socket` module costs 7 ms

from ._files import remove

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

JOIN, JOINED = b"J", b"+"
JOIN_TIMEOUT = 30.0  # seconds; a shim that has just been spawned has to load first
_JOIN_AGAIN = 0.02
_BACKLOG = 4096


class SocketLock:
    """A context in which nobody else makes or removes the socket at `path`.

    Waits for as long as another one is in it.  The directory of the socket must exist.
    """

    __slots__ = ("_fd", "_path")

    def __init__(self, path: str) -> None:
        self._path = path + ".lock"
        self._fd = -1

    def __enter__(self) -> None:
        while not self._take(fcntl.LOCK_EX):
            pass

    def enter_now(self) -> bool:
        """Enter if nobody else is in it; then it is to be left with `leave`."""
        try:
            return self._take(fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False

    def _take(self, how: int) -> bool:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, how)
            if _is_named(fd, self._path):
                self._fd, fd = fd, -1
        finally:
            if fd >= 0:
                os.close(fd)
        return self._fd >= 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Let others in."""
        fd, self._fd = self._fd, -1
        try:
            remove(self._path)
        finally:
            os.close(fd)


def _is_named(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def make_directory(path: str) -> None:
    """Make the directory for sockets, 0700: containerd's old 0600 kept even its owner out."""
    os.makedirs(path, 0o700, exist_ok=True)


def is_listening(path: str) -> bool:
    """Whether a process accepts connections there (or would, if its backlog were not full).

    Raises:
        OSError: it cannot be found out.
    """
    probe = socket(AF_UNIX, SOCK_STREAM)
    try:
        probe.setblocking(False)
        probe.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except BlockingIOError:
        return True
    finally:
        probe.close()
    return True


def join(path: str, id: str) -> int:  # noqa: A002 (the flag)
    """Announce a container to the shim of its group.  Inside `SocketLock` only.

    Args:
        path: of the shim's socket.
        id: the container's.

    Returns:
        The shim's pid; 0: there is none, or none any more.

    Raises:
        TimeoutError: it listens and does not answer.
        OSError: it cannot be found out.
    """
    end = time.monotonic() + JOIN_TIMEOUT
    while (left := end - time.monotonic()) > 0:
        try:
            pid = _ask_to_join(path, id, left)
        except (FileNotFoundError, ConnectionRefusedError):
            return 0
        except TimeoutError:
            break
        if pid:
            return pid
        time.sleep(_JOIN_AGAIN)
    raise TimeoutError(
        f"the shim of this group listens at {path} and has not answered in {JOIN_TIMEOUT:g}"
        " seconds: look whether it is stopped or hangs, or end it"
    )


def _ask_to_join(path: str, id: str, seconds: float) -> int:  # noqa: A002 (the flag)
    """The pid of the shim; 0: it is busy, or about to end."""
    client = socket(AF_UNIX, SOCK_STREAM)
    try:
        client.settimeout(seconds)
        client.connect(path)
        client.sendall(JOIN + id.encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            chunk = client.recv(32)
            if not chunk:
                return 0
            answer += chunk
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        return 0
    finally:
        client.close()
    return int(answer[len(JOINED) :]) if answer.startswith(JOINED) else 0


def listen(path: str) -> socket:
    """A listening socket, mode 0600 from the first moment on.  Inside `SocketLock` only.

    Raises:
        OSError: the path is taken, or cannot be made.
    """
    listener = socket(AF_UNIX, SOCK_STREAM)
    umask = os.umask(0o177)
    try:
        listener.bind(path)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(umask)
    return listener


def remove_dead_socket(path: str) -> bool:
    """Unlink a socket on which nobody listens any more.

    For `delete`, and for the server itself after it has closed its listener: a new shim that has
    taken the same path meanwhile is left alone.

    Returns:
        Whether the path is free now.
    """
    if not os.path.lexists(path):
        return True
    with SocketLock(path):
        if is_listening(path):
            return False
        remove(path)
        return True
