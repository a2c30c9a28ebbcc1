"""What h2 is given to eat: whole frames, a few at a time, and not too many that want nothing.

Rules of this file:

* a frame is refused by its 9 bytes of header; h2 would first gather all of its up to 16 MiB;
* a portion is so small that other tasks are not kept waiting while h2 reads it;
* a frame that asks for nothing (PING, SETTINGS, RST_STREAM, PRIORITY, WINDOW_UPDATE, CONTINUATION,
  DATA without data, what nobody knows) costs from an allowance, which fills up with time and with
  every call that is answered.  Who has used it up is cut off: such floods cost him nothing and us
  processor time (CVE-2019-9512, 9514, 9515, 9518, CVE-2023-44487);
* pure: no stream, no clock, no h2.
"""

from __future__ import annotations

__all__ = ["BURST", "MAX_FRAME", "FrameError", "Frames"]

MAX_FRAME = 16384  # bytes; what HTTP/2 starts with, and we announce no other
BURST = 10_000  # frames that ask for nothing, at once
_EACH_SECOND = 1_000  # more of them
_EACH_CALL = 16  # more for a call that was answered, and
_EACH_BYTES = 1024  # one more for so much of its reply: the peer opens windows for it
_PORTION = 64  # frames

_HEADER = 9
_PREFACE = 24
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PUSH_PROMISE = 0, 1, 3, 4, 5
_END_STREAM = 1
_SMALL = 16  # bytes of DATA that are hardly worth a frame
_ERROR_FRAME_SIZE, _ERROR_CALM = 6, 11  # HTTP/2's error codes


class FrameError(Exception):
    """This peer is not listened to any more.

    Attributes:
        code: HTTP/2's error code, for the GOAWAY.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Frames:
    """Bytes in, portions of whole frames out."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._preface = _PREFACE
        self._allowance = float(BURST)
        self._filled = 0.0

    def feed(self, data: bytes | bytearray) -> None:
        """What the peer has sent."""
        self._buffer += data

    def portion(self, now: float) -> bytes:
        """The next few frames, whole; b"": more bytes are needed.

        Args:
            now: seconds, of any clock that does not go back.

        Raises:
            FrameError: a frame is too long, or there are too many that ask for nothing.
        """
        if self._preface:  # no frame; whether it is right is for h2 to say
            return self._take(min(self._preface, len(self._buffer)), preface=True)
        end = 0
        for _ in range(_PORTION):
            size = self._whole(end)
            if not size:
                break
            self._pay(_price(self._buffer[end : end + _HEADER]), now)
            end += size
        return self._take(end)

    @property
    def more(self) -> bool:
        """Whether `portion` has left something, be it whole or not."""
        return bool(self._buffer)

    def earn(self, reply: int) -> None:
        """A call was answered by so many bytes."""
        self._allowance = min(BURST, self._allowance + _EACH_CALL + reply // _EACH_BYTES)

    def _whole(self, start: int) -> int:
        """The size of the frame at `start`; 0: it is not there yet, or must not be read now."""
        buffer = self._buffer
        if len(buffer) - start < _HEADER:
            return 0
        length = int.from_bytes(buffer[start : start + 3], "big")
        if length > MAX_FRAME:
            if start:  # what came before it is still good
                return 0
            raise FrameError(f"frame of {length} bytes, at most {MAX_FRAME}", _ERROR_FRAME_SIZE)
        size = _HEADER + length
        return size if len(buffer) - start >= size else 0

    def _pay(self, price: int, now: float) -> None:
        if not price:
            return
        earned = (now - self._filled) * _EACH_SECOND
        self._filled = now
        self._allowance = min(BURST, self._allowance + earned) - price
        if self._allowance < 0:
            raise FrameError("too many frames that ask for nothing", _ERROR_CALM)

    def _take(self, size: int, *, preface: bool = False) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        if preface:
            self._preface -= size
        return taken


def _price(header: bytearray) -> int:
    """What a frame costs; 0: it is part of a request."""
    length, kind, flags = int.from_bytes(header[:3], "big"), header[3], header[4]
    if kind in (_HEADERS, _PUSH_PROMISE):  # the latter ends the connection anyway
        return 0
    if kind == _DATA:
        return int(length <= _SMALL and not flags & _END_STREAM)
    if kind == _SETTINGS:
        return 10 * (1 + length // 6)  # h2 looks at every stream for some of them
    return 2 if kind == _RST_STREAM else 1
