"""HPACK with a memory says what hpack without one says."""

from __future__ import annotations

from typing import Any

import hpack
from hypothesis import given
from hypothesis import strategies as st

from trioshim.rpc._grpc_hpack import Decoder, Encoder

NAMES = st.sampled_from([":status", "content-type", "grpc-status", "grpc-message", "x"])
VALUES = st.sampled_from(["", "200", "application/grpc", "0", "1", "a" * 60, "b" * 200])
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=4)
SIZES = st.sampled_from([0, 40, 100, 200, 4096])


class Ends:
    """Both ends of a connection, with a memory and without."""

    def __init__(self) -> None:
        self.plain, self.ours = hpack.Encoder(), Encoder()
        self.plain_reader, self.reader = hpack.Decoder(), Decoder()

    def resize(self, size: int) -> None:
        if size == self.plain.header_table_size:
            return  # hpack 3 would forget to announce it; `_keep_small` mends that
        for encoder in (self.plain, self.ours):
            encoder.header_table_size = size

    def say(self, headers: list[tuple[str, str]]) -> None:
        block = self.plain.encode(headers)
        assert self.ours.encode(headers) == block
        read: list[Any] = self.plain_reader.decode(block, raw=True)
        assert self.reader.decode(block, raw=True) == read
        assert read == [(name.encode(), value.encode()) for name, value in headers]


@given(st.lists(st.one_of(HEADERS, SIZES), max_size=40))
def test_the_memory_changes_nothing(steps: list[list[tuple[str, str]] | int]) -> None:
    """Whatever is told, and however the table is resized meanwhile."""
    ends = Ends()
    for step in steps:
        if isinstance(step, int):
            ends.resize(step)
        else:
            ends.say(step)


def test_what_was_said_is_remembered() -> None:
    """The third time nothing is worked out; the second time it stood in no table yet."""
    ends = Ends()
    blocks = [ends.ours.encode([("grpc-status", "0")]) for _ in range(3)]
    assert blocks[1] is blocks[2]
    assert [ends.reader.decode(block, raw=True) for block in blocks[:2]]
    assert ends.reader.decode(blocks[1], raw=True) is ends.reader.decode(blocks[2], raw=True)


def test_little_is_remembered() -> None:
    """A peer that says something else each time fills no memory."""
    decoder = Decoder()
    for number in range(1000):
        decoder.decode(b"\x00\x01x\x04%04d" % number, raw=True)
    assert len(decoder._memory._known) <= 16
