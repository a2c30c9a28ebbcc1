"""`start`'s side of the template process: ask it for a ready shim, or see to it that there is one.

A template (`trioshim.template`) has loaded the server's code and forks a shim from itself: 5 ms
instead of 100, and most of the memory is shared.  It is a gain and never a need.  Promises:

* whatever is odd (nobody listens, another's socket, no answer within a second, a difference that a
  fork could not make good): `fork` says None, and `start` spawns a server as ever;
* a shim that this side has given up does not run: it waits for our last word, and without it, or
  when we are gone, it ends before it has touched the listener;
* one template at a time for a version of the code, a Python and a user: whoever makes one holds a
  lock and hands it down.

The wire, over one connection: nothing is said until `start` knows what it wants.

    start      REQUEST, the listener and, last, the working directory (SCM_RIGHTS)
    shim       ASK                     who adopts what `start` leaves behind? (rarely)
    start      the adopter's pid
    shim       TAKE and its pid        or NO and a reason, for whoever debugs this
    start      GO
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from _socket import AF_UNIX, SCM_RIGHTS, SO_PEERCRED, SOCK_STREAM, SOL_SOCKET, socket

from .._version import __version__
from ._dialects import sha256
from ._files import remove
from ._spawn import Left, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DIRECTORY = "/run/trioshim-template"
MODULE = "trioshim.template"
TEMPLATE_TIMEOUT = 1.0  # seconds for each word of the template
TEMPLATE_RETRY = 60.0  # seconds until a template that did not get ready is tried again
TEMPLATE_IDLE = 600.0  # seconds without a request

MAGIC = b"tsf1"
HEADER = 12  # MAGIC and the length of the rest, in bytes
ASK, TAKE, NO, GO = b"?", b"+", b"-", b"!"
LOCK_FD = 3  # of the template
STARTING = b"a template is starting, or could not\n"

# What decides how a process starts and is not asked again later: a template keeps these.
_EARLY = ("LD_", "LC_", "LANG", "MALLOC_", "GLIBC_", "PROTOCOL_BUFFERS_", "OPENSSL_")


def early_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that have done their work when a process has started."""
    return {key: value for key, value in environ.items() if key.startswith(_EARLY)}


def template_path(environ: Mapping[str, str], kind: str = "") -> str:
    """Where the template for this code, this Python and this user listens; "" for nowhere.

    Args:
        environ: XDG_RUNTIME_DIR in it is for who is not root.
        kind: what it is a template of; "": shims.
    """
    uid = os.geteuid()
    directory = DIRECTORY
    if uid != 0:
        private = environ.get("XDG_RUNTIME_DIR", "")
        if not private.startswith("/"):
            return ""
        directory = private + "/trioshim-template"
    what = f"{__version__}\n{__file__}\n{sys.executable}\n{sys.version}\n{uid}\n{kind}"
    return f"{directory}/{sha256(what.encode('utf-8', 'surrogateescape'))[:16]}.sock"


class Template:
    """The template of one `start`: connected to, if there is one.

    Args:
        path: where it would listen; "": there is none, and nobody makes one.
    """

    __slots__ = ("_connection", "_path", "_used")

    def __init__(self, path: str) -> None:
        self._path = path
        self._used = False
        # It forks from now on, while we find out what for.
        self._connection = connect(path) if path else None

    def fork(self, argv: Sequence[str], environ: Mapping[str, str], listener: int) -> Left | None:
        """A shim in the state that a spawned one would be in.

        Args:
            argv: the command line that it is to have.
            environ: its environment.
            listener: the socket that it is to serve, as its fd 3.

        Returns:
            The shim; None: it must be spawned.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return None
        try:
            shim = request(connection, argv, environ, [listener])
        except TimeoutError:
            # Nobody is to wait for it again: it sees that its socket is gone, and ends.
            remove(self._path)
            return None
        except (OSError, ValueError, OverflowError):
            return None
        finally:
            connection.close()
        self._used = shim is not None
        return shim

    def leave_one(self, environ: Mapping[str, str]) -> None:
        """See to it that the next `start` finds a template, if this one has not."""
        if not self._path or self._used:
            return
        try:
            start_template(self._path, environ, words=sys.argv[:1])
        except OSError:
            return  # not here; all goes on without


def connect(path: str) -> socket | None:
    """A connection to a template of our own user, if there is one."""
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        connection.setblocking(False)  # a full backlog is odd enough
        connection.connect(path)
        connection.settimeout(TEMPLATE_TIMEOUT)
        if _peer(connection) == (os.geteuid(), os.getegid()):
            return connection
    except OSError:
        connection.close()
        return None
    connection.close()
    return None


def _peer(connection: socket) -> tuple[int, int]:
    data = connection.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)
    return _integer(data[4:8]), _integer(data[8:12])


def _integer(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


def request(
    connection: socket, argv: Sequence[str], environ: Mapping[str, str], fds: Sequence[int]
) -> Left | None:
    """Have the other side become what is wanted.

    Args:
        connection: from `connect`.
        argv: the command line that it is to have.
        environ: its environment.
        fds: what it is to hold.

    Returns:
        The process; None: it cannot.

    Raises:
        TimeoutError: it does not answer.
        OSError, ValueError, OverflowError: it has gone, or answers nonsense.
    """
    _send_request(connection, argv, environ, fds)
    answer = connection.recv(64)
    if answer == ASK:
        connection.sendall(str(adopter()).encode())
        answer = connection.recv(64)
    if not answer.startswith(TAKE):
        return None
    pid = int(answer[len(TAKE) :])
    # Alive and ours until it gets the last word: so this names it and no other.
    pidfd = os.pidfd_open(pid)
    try:
        connection.sendall(GO)
    except OSError:
        os.close(pidfd)
        raise
    return Left(pid, pidfd)


def _send_request(
    connection: socket, argv: Sequence[str], environ: Mapping[str, str], fds: Sequence[int]
) -> None:
    variables = [f"{key}={value}" for key, value in environ.items()]
    body = os.fsencode("\0".join([str(len(argv)), *argv, *variables]))
    data = MAGIC + len(body).to_bytes(HEADER - len(MAGIC), "big") + body
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        packed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in (*fds, here))
        sent = connection.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, packed)])
        connection.sendall(data[sent:])
    finally:
        os.close(here)


def adopter() -> int:
    """The process that gets what we leave behind: pid 1, or the next subreaper above us.

    No file tells; so an orphan is made, and says who its parent is now.
    """
    ready, begin = os.pipe()
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.fork() == 0:
                os.close(begin)  # so that our death is an end of file, too
                os.read(ready, 1)
                os.write(tell, str(os.getppid()).encode())
        finally:
            os._exit(0)
    try:
        os.close(tell)
        os.waitpid(child, 0)
        os.write(begin, b"!")
        return int(os.read(told, 32))
    finally:
        for fd in (ready, begin, told):
            os.close(fd)


# ---------------------------------------------------------------- when there is none


def start_template(
    path: str, environ: Mapping[str, str], module: str = MODULE, words: Sequence[str] = ()
) -> None:
    """Leave a template behind that gets ready; nothing happens if one is on its way.

    Args:
        path: where it is to listen.
        environ: the environment of whoever needs it.
        module: its program.
        words: more for its command line.

    Raises:
        OSError: it cannot be made here.
    """
    directory = path.rpartition("/")[0]
    _check_directory(directory)
    lock = os.open(lock_path(path), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _may_try(lock, lock_path(path)):
            os.ftruncate(lock, 0)
            os.write(lock, STARTING)
            _spawn_template(path, environ, lock, module, words)
    except BlockingIOError:
        return
    finally:
        os.close(lock)


def lock_path(path: str) -> str:
    """The file whose lock a template holds; it says why there is none, if one has failed."""
    return path.removesuffix(".sock") + ".lock"


def _check_directory(path: str) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        found = os.lstat(path)
        is_directory = found.st_mode & 0o170000 == 0o040000
        if not is_directory or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PermissionError(f"{path} is not a private directory of ours") from None


def _may_try(lock: int, path: str) -> bool:
    """Not if the holder has just removed the lock, or the last attempt has just failed."""
    held = os.fstat(lock)
    try:
        named = os.lstat(path)
    except FileNotFoundError:
        return False
    if not os.path.samestat(held, named):
        return False
    return held.st_size == 0 or not 0 <= time.time() - held.st_mtime < TEMPLATE_RETRY


def _spawn_template(
    path: str, environ: Mapping[str, str], lock: int, module: str, words: Sequence[str]
) -> None:
    argv = [sys.executable, "-I", "-m", module, path, f"{TEMPLATE_IDLE:g}", *words]
    spawn(argv, early_environment(environ), [(lock, LOCK_FD)])
