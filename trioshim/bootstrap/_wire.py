"""Just enough protobuf to read what `start` is given and to write what `delete` answers.  Pure.

Importing protobuf costs more than all the rest of `start`.  No schema here: the reader gives
field numbers and values, and the caller knows what they mean.  Varints and length-delimited
fields are read; fixed-width ones are checked and skipped, because no message read here has any.
"""

from __future__ import annotations

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
_UINT64 = (1 << 64) - 1


class Fields:
    """The fields of one message, in the order of the wire.

    Raises:
        ValueError: the bytes are no protobuf message.
    """

    __slots__ = ("blocks", "numbers")

    def __init__(self, data: bytes) -> None:
        self.numbers: list[tuple[int, int]] = []
        self.blocks: list[tuple[int, bytes]] = []
        at = 0
        while at < len(data):
            at = self._read(data, at)

    def _read(self, data: bytes, at: int) -> int:
        tag, at = _read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise ValueError(f"field number {number}")
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            self.numbers.append((number, value))
            return at
        if kind == _LENGTH:
            size, at = _read_varint(data, at)
        elif kind in _WIDTHS:
            size = _WIDTHS[kind]
        else:
            raise ValueError(f"wire type {kind}")
        end = at + size
        if end > len(data):
            raise ValueError(f"field {number} is cut short")
        if kind == _LENGTH:
            self.blocks.append((number, data[at:end]))
        return end

    def all(self, number: int) -> list[bytes]:
        """Every value of a repeated message, string or bytes field."""
        return [value for n, value in self.blocks if n == number]

    def block(self, number: int) -> bytes:
        """The value of a message or bytes field; the last one counts, b"" if absent."""
        found = self.all(number)
        return found[-1] if found else b""

    def text(self, number: int) -> str:
        """The value of a string field.

        Raises:
            ValueError: it is not UTF-8, which proto3 forbids.
        """
        return self.block(number).decode()

    def integer(self, number: int) -> int:
        """The value of a signed or enum field; 0 if absent."""
        found = [value for n, value in self.numbers if n == number]
        value = found[-1] if found else 0
        return value - (1 << 64) if value >> 63 else value


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(10):
        if at + index >= len(data):
            raise ValueError("a number is cut short")
        byte = data[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value & _UINT64, at + index + 1
    raise ValueError("a number is longer than 10 bytes")


def _varint(value: int) -> bytes:
    value &= _UINT64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer_field(number: int, value: int) -> bytes:
    """A varint field; nothing for 0, as proto3 has it."""
    return _varint(number << 3 | _VARINT) + _varint(value) if value else b""


def block_field(number: int, value: bytes) -> bytes:
    """A message, string or bytes field, also when it is empty."""
    return _varint(number << 3 | _LENGTH) + _varint(len(value)) + value
