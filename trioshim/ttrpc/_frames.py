"""Frames: a header of ten bytes and a body, and nothing about what the body means.

Rules of this file:

* pure: bytes in, frames out; no I/O, no protobuf;
* time and memory are linear in what was received, however it was cut into pieces;
* a body above the limit is never stored: it is counted and dropped (containerd/ttrpc#171).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct

from ..errors import ResourceExhaustedError

__all__ = ["MAX_LENGTH", "Flag", "Frame", "FrameDecoder", "FrameType", "OversizeFrame"]

MAX_LENGTH = 4 * 1024 * 1024  # of a body, inclusive
MAX_STREAM_ID = 0xFFFF_FFFF

# length of the body, stream id, type, flags
_HEADER = Struct(">IIBB")


class FrameType(IntEnum):
    """The types that exist; a frame of another type is to be ignored."""

    REQUEST = 1
    RESPONSE = 2
    DATA = 3


class Flag(IntFlag):
    """What a frame says about its sender's half of the stream."""

    REMOTE_CLOSED = 1
    REMOTE_OPEN = 2
    NO_DATA = 4


@dataclass(slots=True)  # not frozen: see `_events`
class Frame:
    """One frame as it is on the wire; `type` and `flags` may hold numbers that nobody knows."""

    stream_id: int
    type: int
    flags: int = 0
    body: bytes = b""

    def encode(self) -> bytes:
        """Header and body in one piece, for one write.

        Raises:
            ResourceExhaustedError: the body is too long.
        """
        length = len(self.body)
        if length > MAX_LENGTH:
            raise ResourceExhaustedError(oversize_text(length))
        return _HEADER.pack(length, self.stream_id, self.type, self.flags) + self.body


@dataclass(frozen=True, slots=True)
class OversizeFrame:
    """A frame whose body was too long, and has been dropped."""

    stream_id: int
    type: int
    length: int


def oversize_text(length: int) -> str:
    """What ttrpc says about a body that is too long."""
    return f"message length {length} exceed maximum message size of {MAX_LENGTH}"


class FrameDecoder:
    """Cuts a stream of bytes into frames."""

    __slots__ = ("_buffer", "_needed", "_oversize", "_to_drop")

    def __init__(self) -> None:
        self._buffer = bytearray()
        # Nothing can be done before the buffer is this long: bytes that come one by one cost
        # one comparison each.
        self._needed = _HEADER.size
        self._oversize: OversizeFrame | None = None
        self._to_drop = 0

    @property
    def buffered(self) -> int:
        """How many bytes are held."""
        return len(self._buffer)

    @property
    def mid_frame(self) -> bool:
        """Whether the bytes so far end inside of a frame."""
        return bool(self._buffer) or self._oversize is not None

    def feed(self, data: bytes | bytearray) -> None:
        """Add what was received."""
        self._buffer += data
        if self._to_drop:
            self._drop()

    def next_frame(self) -> Frame | OversizeFrame | None:
        """The next whole frame; None: more bytes are needed."""
        if self._oversize is not None:
            return self._after_drop()
        if len(self._buffer) < self._needed:
            return None
        length, stream_id, type_, flags = _HEADER.unpack_from(self._buffer)
        end = _HEADER.size + length
        if length > MAX_LENGTH:
            self._oversize = OversizeFrame(stream_id, type_, length)
            self._to_drop = end
            self._drop()
            return self._after_drop()
        if len(self._buffer) < end:
            self._needed = end
            return None
        body = bytes(self._buffer[_HEADER.size : end])
        # CPython moves the start of a bytearray instead of its contents, so this is not quadratic.
        del self._buffer[:end]
        self._needed = _HEADER.size
        return Frame(stream_id, type_, flags, body)

    def _drop(self) -> None:
        dropped = min(self._to_drop, len(self._buffer))
        del self._buffer[:dropped]
        self._to_drop -= dropped

    def _after_drop(self) -> OversizeFrame | None:
        if self._to_drop:
            return None
        oversize, self._oversize = self._oversize, None
        return oversize
