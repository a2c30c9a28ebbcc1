"""From a fork of the template to a shim: what a spawned one is, this one becomes.

Rules: nothing of the template's is left (files, handlers, session); until `start` has said its last
word the listener is not touched; whatever goes wrong before is told to `start`, and this process
ends.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from .._compose import serve_forever
from ..bootstrap import Arguments, Verb, check_arguments, parse_arguments
from ..bootstrap._template import ASK, GO, HEADER, MAGIC, NO, TAKE, early_environment
from . import _command_line
from ._likeness import Traits, adopt, ignores, traits_of

__all__ = ["RefusalError", "become_shim"]

_LISTENER_FD = 3
_OUT_OF_THE_WAY = 32  # the lowest number for what is not the shim's
_LIMIT = 8 << 20  # bytes of a request; the kernel's for a command line is less
_CHUNK = 1 << 16
_FD = struct.Struct("i")
_KEPT: list[object] = []


class RefusalError(Exception):
    """Why this fork cannot stand in for a spawned process."""


def become_shim(connection: int, news: int, traits: Traits, known: frozenset[str]) -> int:
    """Ask `start` what it wants, become that, and serve.

    Args:
        connection: to `start`.
        news: a socket for the name of a process whose orphans are adopted as we are.
        traits: those of the template.
        known: such names.

    Returns:
        The exit status; 0 too if `start` has thought better of it.
    """
    start_fd, news = (_move(fd) for fd in (connection, news))
    # First of all: while we wait, the template's lock and socket are not to seem alive.
    os.closerange(_LISTENER_FD, _OUT_OF_THE_WAY)
    with socket.socket(fileno=start_fd) as start:
        try:
            arguments = _become(start, news, traits, known)
            start.sendall(TAKE + str(os.getpid()).encode())
            if start.recv(1) != GO:
                return 0
        except (RefusalError, OSError, ValueError) as error:
            with suppress(OSError):
                start.sendall(NO + str(error).encode()[:60])
            return 0
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    serve_forever(arguments)
    return 0


def _move(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY)


def _become(start: socket.socket, news: int, traits: Traits, known: frozenset[str]) -> Arguments:
    pid = _peer(start)
    _compare(pid, traits)
    argv, environ, fds = _receive(start)
    listener, here = (_move(fd) for fd in fds)
    os.dup2(listener, _LISTENER_FD)
    os.fchdir(here)
    _check_adopter(start, pid, news, known)
    os.closerange(_LISTENER_FD + 1, _OUT_OF_THE_WAY)
    for fd in (listener, here, news):
        os.close(fd)
    arguments = _arguments(argv)
    os.setsid()
    adopt(pid)
    _take_environment(environ)
    _KEPT.append(_command_line.show(argv, environ))
    _forget_the_template(argv, traits)
    return arguments


def _peer(start: socket.socket) -> int:
    pid, uid, gid = struct.unpack(
        "3i", start.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    if (uid, gid) != (os.geteuid(), os.getegid()) or not pid:
        raise RefusalError("another user, or out of sight")
    return int(pid)


def _compare(pid: int, traits: Traits) -> None:
    theirs = traits_of(pid)
    different = [name for name, value in traits.items() if theirs.get(name) != value]
    if different:
        raise RefusalError(f"not alike: {' '.join(different)}")


def _receive(start: socket.socket) -> tuple[list[bytes], list[bytes], list[int]]:
    """The command line, the environment and the file descriptors of a request."""
    # Not socket.recv_fds: it leaves the flag out.
    room = socket.CMSG_SPACE(2 * _FD.size)
    data, messages, _, _ = start.recvmsg(_CHUNK, room, socket.MSG_CMSG_CLOEXEC)
    fds = [fd for _, _, block in messages for (fd,) in _FD.iter_unpack(block)]
    if len(data) < HEADER or data[: len(MAGIC)] != MAGIC or len(fds) != 2:
        raise RefusalError("no request of this version" if data else "nothing is wanted")
    size = HEADER + int.from_bytes(data[len(MAGIC) : HEADER], "big")
    if size > _LIMIT:
        raise RefusalError(f"a request of {size} bytes")
    received = bytearray(data)
    while len(received) < size:
        chunk = start.recv(min(_CHUNK, size - len(received)))
        if not chunk:
            raise RefusalError("half a request")
        received += chunk
    count, *texts = bytes(received[HEADER:]).split(b"\0")
    return texts[: int(count)], texts[int(count) :], fds


def _check_adopter(start: socket.socket, pid: int, news: int, known: frozenset[str]) -> None:
    """Whether an orphan of `start` gets the parent that we have got."""
    above = _parent(pid)
    name = f"{above} {_begun(above)} {os.getppid()}"
    if name in known:
        return
    start.sendall(ASK)
    if int(start.recv(32) or b"0") != os.getppid():
        raise RefusalError("another process adopts its orphans")
    os.write(news, name.encode())


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the third on."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b") ")[2].split()


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _begun(pid: int) -> int:
    """When a process started; with its number, this names it for ever.  0: out of sight."""
    return int(_stat(pid)[19]) if pid else 0


def _arguments(argv: Sequence[bytes]) -> Arguments:
    words = [os.fsdecode(word) for word in argv]
    if words[:4] != [sys.executable, "-I", "-m", "trioshim"]:
        raise RefusalError("another command line than a server's")
    arguments = parse_arguments(words[4:])
    check_arguments(arguments)
    if arguments.verb is not Verb.SERVE:
        raise RefusalError("no server is wanted")
    return arguments


def _take_environment(environ: Sequence[bytes]) -> None:
    pairs = {}
    for variable in environ:
        key, equals, value = variable.partition(b"=")
        if not key or not equals:
            raise RefusalError("a variable without a name")
        pairs[key] = value
    theirs = {os.fsdecode(key): os.fsdecode(value) for key, value in pairs.items()}
    if early_environment(theirs) != early_environment(os.environ):
        raise RefusalError("not alike: environment")
    os.environ.clear()
    os.environb.update(pairs)
    time.tzset()


def _forget_the_template(argv: Sequence[bytes], traits: Traits) -> None:
    for signum in (signal.SIGTERM, signal.SIGHUP):
        ignored = ignores(traits, signum)  # so it was before the template had a handler, too
        signal.signal(signum, signal.SIG_IGN if ignored else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv[1:] = [os.fsdecode(word) for word in argv[4:]]
    random.seed()
