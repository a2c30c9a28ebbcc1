"""`start`: make the socket, leave a server behind, answer its address.

Promises: the socket listens before the address is said, so an early connection waits instead of
failing; the shim of a group knows of this container before its address is said, and waits for it
(`_sockets`).  The daemon reads standard output and standard error as one stream, until every holder
has closed it: so nothing else is written, and the server's 0, 1 and 2 are /dev/null.  Whatever
fails, neither a server nor a socket is left.
"""

from __future__ import annotations

import os
import sys
from posixpath import dirname

from .._atomic import write_file
from .._plain import Record
from . import _dialects, _group, _sockets, _template
from ._files import read_file, read_stdin, remove, write_all
from ._spawn import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._arguments import Arguments
    from ._dialects import Bootstrap
    from ._spawn import Left
    from ._template import Template

LISTENER_FD = 3
_OOM_SCORE_MAX = 1000


def start(arguments: Arguments, environ: Mapping[str, str], caller: Caller | None = None) -> None:
    """Answer the address of the shim for a container.

    The working directory is the bundle.  If a shim for this id or its group listens already, its
    address is the answer and nothing is started.

    Args:
        arguments: the command line, checked.
        environ: the daemon's environment.  SCHED_CORE: core scheduling for the server's group.
            TRIOSHIM_SOCKET_DIR: where the socket goes, instead of what the daemon says.
            TRIOSHIM_PROTOCOL: `grpc`, for a containerd 1.7 that is to speak gRPC.
            TRIOSHIM_TEMPLATE: `off`: spawn every server, do without a template.
            TRIOSHIM_GROUP: which containers share a shim; see `_group`.
        caller: whom the daemon has run; None: this process.

    Raises:
        ValueError: standard input or the socket's path is too long, or an option, a variable or
            an annotation is wrong.
        OSError: the socket, the bundle's files or the server could not be made, or the shim of
            the group does not answer.
    """
    caller = caller or Caller(environ)
    group = _group.find_group(environ, _read_config)
    # A group may have its shim already: not to take a spare that is then not needed.
    if not group:
        caller.expect_server()
    told = _dialects.read_bootstrap(caller.read_stdin(), arguments.id, arguments.namespace)
    arguments = arguments.replace(
        address=arguments.address or told.address,
        debug=arguments.debug or told.debug,
        group=group,
    )
    answer = _answer(arguments, environ, told)
    _sockets.make_directory(dirname(answer.path))
    with _sockets.SocketLock(answer.path):
        if _join(arguments, answer, caller):
            return
        remove(answer.path)
        _launch(arguments, environ, told, answer, caller)
    caller.end()


class Caller:
    """Whom the daemon has run as `start`, waiting for an answer: this process.

    Args:
        environ: the daemon's environment.
    """

    __slots__ = ("_environ", "_template", "_wanted")

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._wanted = _dialects.wants_template(environ)
        self._template: Template | None = None

    def parent(self) -> int:
        """The daemon's pid; 0 if it is out of sight."""
        return os.getppid()

    def read_stdin(self) -> bytes:
        """What the daemon tells on standard input.

        Raises:
            ValueError: it is too long.
        """
        return read_stdin(_dialects.STDIN_LIMIT)

    def expect_server(self) -> None:
        """A server will be needed in a moment."""
        place = _template.template_path(self._environ) if self._wanted else ""
        self._template = _template.Template(place)

    def leave_server(self, argv: list[str], environ: dict[str, str], listener: int) -> Left:
        """Leave a server behind.

        Args:
            argv: its command line.
            environ: its environment.
            listener: its fd 3.

        Raises:
            OSError: it cannot be run.
        """
        if self._template is None:
            self.expect_server()
        assert self._template is not None
        forked = self._template.fork(argv, environ, listener)
        return forked or spawn(argv, environ, [(listener, LISTENER_FD)])

    def answer(self, data: bytes) -> None:
        """Tell the daemon."""
        write_all(1, data)

    def end(self) -> None:
        """All is done, for a server that is new."""
        if self._template is not None:
            self._template.leave_one(self._environ)


class _Answer(Record):
    """What is said of a shim.

    Attributes:
        path: of its socket.
        kept: for the bundle's file `address`.
        said: for the daemon.
    """

    __slots__ = ("kept", "path", "said")
    path: str
    kept: bytes
    said: bytes

    def __init__(self, path: str, kept: bytes, said: bytes) -> None:
        self._set(path=path, kept=kept, said=said)


def _answer(arguments: Arguments, environ: Mapping[str, str], told: Bootstrap) -> _Answer:
    address = _group.shim_address(arguments, environ.get("TRIOSHIM_SOCKET_DIR") or told.socket_dir)
    wire = _dialects.wanted_wire(environ, told)
    kept = _dialects.announcement(address, wire)
    several = _group.promises_several(arguments.group, told.daemon_version)
    said = _dialects.announcement(address, wire, several=several)
    return _Answer(_dialects.plain_path(address), kept.encode(), said.encode())


def _read_config() -> bytes:
    return read_file("config.json", _group.CONFIG_LIMIT + 1)


def _join(arguments: Arguments, answer: _Answer, caller: Caller) -> bool:
    """Answer with a shim that is there already, if there is one."""
    if arguments.group:
        pid = _sockets.join(answer.path, arguments.id)
        if not pid:
            return False
        write_file("shim.pid", str(pid).encode())
    elif not _sockets.is_listening(answer.path):
        return False
    write_file("address", answer.kept)
    caller.answer(answer.said)
    return True


def _launch(
    arguments: Arguments,
    environ: Mapping[str, str],
    told: Bootstrap,
    answer: _Answer,
    caller: Caller,
) -> None:
    cgroup = _dialects.shim_cgroup(told)
    if environ.get("SCHED_CORE"):
        _share_core()
    listener = _sockets.listen(answer.path)
    server = None
    try:
        # Before the server is there: a daemon that restarts now must be able to find it.
        write_file("address", answer.kept)
        argv = _dialects.server_argv(sys.executable, arguments)
        kept = _dialects.server_environment(environ, told)
        server = caller.leave_server(argv, kept, listener.fileno())
        _raise_oom_score(server.pid, caller.parent())
        if cgroup:
            from ._shim_cgroup import join_shim_cgroup

            join_shim_cgroup(cgroup, server.pid)
        write_file("shim.pid", str(server.pid).encode())
        caller.answer(answer.said)
    except BaseException:
        remove(answer.path)
        if server is not None:
            server.kill()
        raise
    finally:
        listener.close()


def _raise_oom_score(pid: int, daemon: int) -> None:
    """One more than the daemon's: when memory ends, shims die before it (containerd#3380)."""
    try:
        score = int(read_file(f"/proc/{daemon}/oom_score_adj") or _inherited_score()) + 1
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
