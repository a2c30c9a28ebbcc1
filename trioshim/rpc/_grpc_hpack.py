"""HPACK with a memory: a block of headers that has come or gone before is not worked out again.

The headers of a connection are the same for each call, or nearly, and hpack spends more time on
them than the call takes.  Rules of this file:

* what is remembered holds as long as HPACK's table is what it was: a block that changes the table
  is not remembered, and all the others are forgotten with it;
* little is remembered, whatever a peer sends;
* hpack has no type hints: what is its own is `Any`, nothing else.
"""

from __future__ import annotations

from typing import Any

import hpack

__all__ = ["Decoder", "Encoder"]

_MANY = 16  # blocks
_SHORT = 256  # bytes of a block, encoded


class Encoder(hpack.Encoder):  # type: ignore[misc] # untyped
    """Tells the headers of replies."""

    def __init__(self) -> None:
        super().__init__()
        self._memory = _Memory(self.header_table)

    def encode(self, headers: Any, huffman: bool = True) -> Any:
        """As hpack's."""
        key = tuple(headers)
        if self.header_table.resized:  # which the next block has to tell
            return super().encode(key, huffman)
        block = self._memory.recall(key)
        if block is None:
            block = super().encode(key, huffman)
            self._memory.keep(key, block, len(block))
        return block


class Decoder(hpack.Decoder):  # type: ignore[misc] # untyped
    """Reads the headers of requests."""

    def __init__(self) -> None:
        super().__init__()
        self._memory = _Memory(self.header_table)

    def decode(self, data: bytes, raw: bool = False) -> Any:
        """As hpack's; the list is not to be changed, and `raw` the same each time."""
        headers = self._memory.recall(data)
        if headers is None:
            headers = super().decode(data, raw)
            self._memory.keep(data, headers, len(data))
        return headers


class _Memory:
    """What is true of a table of HPACK's until that changes."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self._known: dict[Any, Any] = {}
        self._first: Any = None
        self._rest: tuple[int, int] = (0, 0)

    def recall(self, key: Any) -> Any:
        """None: not known, or not any more."""
        self._look()
        return self._known.get(key)

    def keep(self, key: Any, value: Any, size: int) -> None:
        """Remember it, unless the table has changed since `recall`."""
        if self._look() and size <= _SHORT:
            if len(self._known) >= _MANY:  # what comes once must not keep out what comes again
                self._known.clear()
            self._known[key] = value

    def _look(self) -> bool:
        """Whether the table is what it was.  It grows at its beginning, and shrinks at its end."""
        entries = self._table.dynamic_entries
        first = entries[0] if entries else None
        rest = len(entries), self._table.maxsize
        # `is`: an entry may come again, and push out its like.
        if first is self._first and rest == self._rest:
            return True
        self._first, self._rest = first, rest
        self._known.clear()
        return False
