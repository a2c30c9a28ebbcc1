"""`start`: make the socket, leave a server behind, answer its address.

Promises: the socket listens before the address is said, so an early connection waits instead of
failing.  The daemon reads standard output and standard error as one stream, until every holder has
closed it: so nothing else is written, and the server's 0, 1 and 2 are /dev/null.  Whatever fails,
neither a server nor a socket is left.
"""

from __future__ import annotations

import os
import sys
from posixpath import dirname

from .._atomic import write_file
from . import _dialects, _sockets
from ._command import RESET_SIGNALS
from ._files import read_file, read_stdin, remove, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._arguments import Arguments
    from ._dialects import Bootstrap

_SIGKILL = 9
_LISTENER_FD = 3
_OOM_SCORE_MAX = 1000


def start(arguments: Arguments, environ: Mapping[str, str]) -> None:
    """Answer the address of the shim for a container, on standard output.

    The working directory is the bundle.  If a shim for this id listens already, its address is
    the answer and nothing is started.

    Args:
        arguments: the command line, checked.
        environ: the daemon's environment.  SCHED_CORE: core scheduling for the server's group.
            TRIOSHIM_SOCKET_DIR: where the socket goes, instead of what the daemon says.
            TRIOSHIM_PROTOCOL: `grpc`, for a containerd 1.7 that is to speak gRPC.

    Raises:
        ValueError: standard input or the socket's path is too long, or an option or the protocol
            is wrong.
        OSError: the socket, the bundle's files or the server could not be made.
    """
    told = _dialects.read_bootstrap(
        read_stdin(_dialects.STDIN_LIMIT), arguments.id, arguments.namespace
    )
    arguments = arguments._replace(
        address=arguments.address or told.address, debug=arguments.debug or told.debug
    )
    address = _dialects.socket_address(
        arguments.address,
        arguments.namespace,
        arguments.id,
        environ.get("TRIOSHIM_SOCKET_DIR") or told.socket_dir,
    )
    answer = _dialects.announcement(address, _dialects.wanted_wire(environ, told)).encode()
    path = _dialects.plain_path(address)
    _sockets.make_directory(dirname(path))
    with _sockets.SocketLock(path):
        if _sockets.is_listening(path):
            write_file("address", answer)
            write_all(1, answer)
            return
        remove(path)
        _launch(arguments, environ, told, path, answer)


def _launch(
    arguments: Arguments, environ: Mapping[str, str], told: Bootstrap, path: str, answer: bytes
) -> None:
    cgroup = _dialects.shim_cgroup(told)
    if environ.get("SCHED_CORE"):
        _share_core()
    listener = _sockets.listen(path)
    pid = 0
    try:
        # Before the server is there: a daemon that restarts now must be able to find it.
        write_file("address", answer)
        pid = _spawn(arguments, _dialects.server_environment(environ, told), listener.fileno())
        _raise_oom_score(pid)
        if cgroup:
            from ._shim_cgroup import join_shim_cgroup

            join_shim_cgroup(cgroup, pid)
        write_file("shim.pid", str(pid).encode())
        write_all(1, answer)
    except BaseException:
        _undo(pid, path)
        raise
    finally:
        listener.close()


def _spawn(arguments: Arguments, environ: dict[str, str], listener: int) -> int:
    return os.posix_spawn(
        sys.executable,
        _dialects.server_argv(sys.executable, arguments),
        environ,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, listener, _LISTENER_FD),
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
        ],
        setpgroup=0,
        setsigmask=[],
        setsigdef=RESET_SIGNALS,
    )


def _undo(pid: int, path: str) -> None:
    remove(path)
    if pid:
        os.kill(pid, _SIGKILL)
        os.waitpid(pid, 0)


def _raise_oom_score(pid: int) -> None:
    """One more than the daemon's: when memory ends, shims die before it (containerd#3380)."""
    try:
        score = int(read_file(f"/proc/{os.getppid()}/oom_score_adj") or _inherited_score()) + 1
        fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY)
        try:
            write_all(fd, str(min(score, _OOM_SCORE_MAX)).encode())
        finally:
            os.close(fd)
    except PermissionError:  # rootless, or in a user namespace: a wish, not a must
        return


def _inherited_score() -> bytes:
    # Of a parent that has just ended, or is outside our pid namespace, where its number is 0.
    return read_file("/proc/self/oom_score_adj")


def _share_core() -> None:
    """Give our process group, and so the server, a core-scheduling cookie of its own."""
    import ctypes

    pr_sched_core, create, scope_process_group = 62, 1, 2
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(pr_sched_core, create, 0, scope_process_group, 0) != 0:
        raise OSError(ctypes.get_errno(), "SCHED_CORE is set, but core scheduling is not possible")
