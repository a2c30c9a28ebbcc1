"""The shim's socket: connections of our own user only (SO_PEERCRED), as containerd checks too."""

from __future__ import annotations

import logging
import os
import socket
import struct

import trio

__all__ = ["PrivateListener", "open_listener"]

log = logging.getLogger("trioshim.listener")

_UCRED = struct.Struct("3i")  # pid, uid, gid


class PrivateListener(trio.abc.Listener[trio.abc.Stream]):
    """A unix socket that accepts connections of processes with our effective uid and gid.

    Others are closed without a byte (CVE-2020-15257 was a shim that looked at less).

    Attributes:
        path: where it is in the file system.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.path: str = sock.getsockname()
        self._socket = sock
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        self._self = (os.geteuid(), os.getegid())

    async def accept(self) -> trio.abc.Stream:
        while True:
            stream = await self._listener.accept()
            peer = self._peer(stream.socket)
            if peer == self._self:
                return stream
            log.warning("refused a connection of uid %d, gid %d", *peer)
            await trio.aclose_forcefully(stream)

    def _peer(self, sock: trio.socket.SocketType) -> tuple[int, int]:
        data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        _, uid, gid = _UCRED.unpack(data)
        return uid, gid

    async def aclose(self) -> None:
        await self._listener.aclose()

    def close(self) -> None:
        """The same when trio does not run; again: nothing happens."""
        self._socket.close()


def open_listener(fd: int) -> PrivateListener:
    """The listening socket that `start` left us on a file descriptor.

    Raises:
        OSError: it is no listening unix socket.
    """
    os.set_inheritable(fd, False)
    sock = socket.socket(fileno=fd)
    if sock.family is not socket.AF_UNIX or not sock.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        raise OSError(f"file descriptor {fd} is no listening unix socket")
    sock.setblocking(False)
    return PrivateListener(sock)
