"""A socket read and written with the fewest system calls; other streams as they are.

trio's own stream tries, waits, tries again, and gives the others a turn: before a read and after
a write.  Rules of this file:

* a read waits once, which is the others' turn, then reads;
* a write that would have to wait is none: it is for who can wait;
* the number of the socket is not kept over a wait: it may be another one's after a close.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trio.abc import ReceiveStream, SendStream

__all__ = ["receive_some", "send_at_once"]

_CHUNK = 64 * 1024


async def receive_some(stream: ReceiveStream) -> bytes | bytearray:
    """What comes next, at least one byte; `b""` is the end.  Always a checkpoint.

    Raises:
        trio.BrokenResourceError, trio.ClosedResourceError: as the stream's own.
    """
    if not isinstance(stream, trio.SocketStream):
        return await stream.receive_some(_CHUNK)
    while (fd := stream.socket.fileno()) >= 0:
        await trio.lowlevel.wait_readable(fd)
        try:
            return os.read(stream.socket.fileno(), _CHUNK)
        except BlockingIOError:  # it was readable, and is no more
            continue
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error
    raise trio.ClosedResourceError


def send_at_once(stream: SendStream, data: bytes | bytearray) -> int:
    """How many bytes could be sent without a wait.

    What is wrong with the stream is not told here: its `send_all`, for the rest, does it.
    """
    if not data or not isinstance(stream, trio.SocketStream):
        return 0
    try:
        return os.write(stream.socket.fileno(), data)
    except OSError:
        return 0
