"""How init ended, in a file of the bundle: it outlives a shim that is killed.  Pure.

The shim writes it before it publishes the exit; the `delete` verb reads it.  So the true status
is reported after `kill -9` of the shim, where other shims make up 137 (containerd#8381).
One line of text: pid, exit status, wall clock in nanoseconds.
"""

from __future__ import annotations

from ._plain import Record

FILE_NAME = "exit"
# When the container was deleted, too: the bytes of `delete`'s answer.
RECEIPT = "deleted"
_MAX_LENGTH = 80


class ExitRecord(Record):
    """How a process ended.

    Attributes:
        pid: its number, as the host saw it.
        status: 0 to 255; 128 + the signal's number when a signal ended it.
        at_ns: wall clock, nanoseconds since 1970.
    """

    __slots__ = ("at_ns", "pid", "status")
    pid: int
    status: int
    at_ns: int

    def __init__(self, pid: int, status: int, at_ns: int) -> None:
        self._set(pid=pid, status=status, at_ns=at_ns)


def encode(pid: int, status: int, at_ns: int) -> bytes:
    """The text of `<bundle>/exit`."""
    return b"%d %d %d\n" % (pid, status, at_ns)


def decode(data: bytes) -> ExitRecord | None:
    """The record, or None for anything that `encode` has not written (half a file, another's)."""
    words = data[:-1].split(b" ")
    if len(data) > _MAX_LENGTH or data[-1:] != b"\n" or len(words) != 3:
        return None
    if not all(word.isdigit() for word in words):
        return None
    record = ExitRecord(*map(int, words))
    sane = 0 < record.pid < 1 << 31 and record.status <= 255 and 0 < record.at_ns < 1 << 63
    return record if sane else None
