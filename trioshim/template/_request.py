"""What is asked of a fork, and by whom: the part of the wire that all kinds of templates share.

Rules: nobody is believed whose user is not ours; what a fork cannot make good is a refusal, and
then whoever asked does without.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..bootstrap._template import GO, HEADER, MAGIC, NO, TAKE, early_environment
from . import _command_line
from ._likeness import Traits, adopt, ignores, traits_of

__all__ = [
    "OUT_OF_THE_WAY",
    "RefusalError",
    "agree",
    "check_environment",
    "compare",
    "move",
    "receive",
    "stand_in",
]

OUT_OF_THE_WAY = 32  # the lowest number for what is not the new process's
_LIMIT = 8 << 20  # bytes of a request; the kernel's for a command line is less
_CHUNK = 1 << 16
_FD = struct.Struct("i")
_KEPT: list[object] = []
_USUAL: dict[signal.Signals, Any] = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
}


class RefusalError(Exception):
    """Why this fork cannot stand in for a spawned process."""


def move(fd: int) -> int:
    """A copy of a file descriptor with a high number."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, OUT_OF_THE_WAY)


def agree(asking: socket.socket, become: Callable[[int], None]) -> bool:
    """Become what is wanted, say so, and hear whether it is wanted still.

    Args:
        asking: the connection to whoever asks.
        become: called with its pid.
    """
    try:
        become(_peer(asking))
        asking.sendall(TAKE + str(os.getpid()).encode())
        return asking.recv(1) == GO
    except (RefusalError, OSError, ValueError) as error:
        with suppress(OSError):
            asking.sendall(NO + str(error).encode()[:60])
        return False


def _peer(asking: socket.socket) -> int:
    pid, uid, gid = struct.unpack(
        "3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    if (uid, gid) != (os.geteuid(), os.getegid()) or not pid:
        raise RefusalError("another user, or out of sight")
    return int(pid)


def compare(pid: int, traits: Traits) -> None:
    """Refuse if a process differs from us in what cannot be made good."""
    theirs = traits_of(pid)
    different = [name for name, value in traits.items() if theirs.get(name) != value]
    if different:
        raise RefusalError(f"not alike: {' '.join(different)}")


def receive(asking: socket.socket, count: int) -> tuple[list[bytes], list[bytes], list[int]]:
    """The command line, the environment and the file descriptors of a request.

    Args:
        asking: the connection that it comes from.
        count: of the file descriptors.
    """
    # Not socket.recv_fds: it leaves the flag out.
    room = socket.CMSG_SPACE(count * _FD.size)
    data, messages, _, _ = asking.recvmsg(_CHUNK, room, socket.MSG_CMSG_CLOEXEC)
    fds = [fd for _, _, block in messages for (fd,) in _FD.iter_unpack(block)]
    if len(data) < HEADER or data[: len(MAGIC)] != MAGIC or len(fds) != count:
        raise RefusalError("no request of this version" if data else "nothing is wanted")
    size = HEADER + int.from_bytes(data[len(MAGIC) : HEADER], "big")
    if size > _LIMIT:
        raise RefusalError(f"a request of {size} bytes")
    received = bytearray(data)
    while len(received) < size:
        chunk = asking.recv(min(_CHUNK, size - len(received)))
        if not chunk:
            raise RefusalError("half a request")
        received += chunk
    words, *texts = bytes(received[HEADER:]).split(b"\0")
    return texts[: int(words)], texts[int(words) :], fds


def stand_in(pid: int, argv: list[bytes], environ: Sequence[bytes], traits: Traits) -> None:
    """Be as a child of that process would be after an execve; nothing of the template is left.

    Args:
        pid: of whoever asks.
        argv: the command line, as far as others see it.
        environ: the environment.
        traits: the template's.
    """
    os.setsid()
    adopt(pid)
    _take_environment(environ)
    _KEPT.append(_command_line.show(argv, environ))
    for signum, usual in _USUAL.items():
        ignored = ignores(traits, signum)  # so it was before the template had a handler, too
        signal.signal(signum, signal.SIG_IGN if ignored else usual)
    random.seed()


def check_environment(environ: Mapping[str, str]) -> None:
    """Refuse if one of the variables that count when a process starts is another than ours."""
    if early_environment(environ) != early_environment(os.environ):
        raise RefusalError("not alike: environment")


def _take_environment(environ: Sequence[bytes]) -> None:
    pairs = {}
    for variable in environ:
        key, equals, value = variable.partition(b"=")
        if not key or not equals:
            raise RefusalError("a variable without a name")
        pairs[key] = value
    check_environment({os.fsdecode(key): os.fsdecode(value) for key, value in pairs.items()})
    os.environ.clear()
    os.environb.update(pairs)
    time.tzset()
