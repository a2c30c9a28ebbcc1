"""The small reader of protobuf messages agrees with the large one, and refuses what is broken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioshim.bootstrap._wire import Fields, block_field, integer_field
from trioshim.proto.bootstrap_pb2 import BootstrapParams


@given(st.text(), st.text(), st.integers(-(1 << 31), (1 << 31) - 1))
def test_the_reader_agrees_with_protobuf(first: str, second: str, level: int) -> None:
    """Strings and negative enums come out as protobuf put them in."""
    data = BootstrapParams(instance_id=first, socket_dir=second, log_level=level)  # type: ignore[arg-type]
    fields = Fields(data.SerializeToString())
    assert (fields.text(1), fields.text(9), fields.integer(3)) == (first, second, level)


@given(st.integers(0, (1 << 63) - 1), st.binary())
def test_the_writer_agrees_with_the_reader(number: int, block: bytes) -> None:
    """What is written can be read."""
    fields = Fields(integer_field(1, number) + block_field(300, block))
    assert (fields.integer(1), fields.block(300)) == (number, block)


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",
        b"\x0a\x05abc",
        b"\x08",
        b"\x08\x80",
        b"\x08" + b"\xff" * 11,
        b"\x0b",
        b"\x00\x01",
        b"\x0d\1",
    ],
)
def test_broken_messages_are_refused(data: bytes) -> None:
    """Cut short, too long, groups and field 0."""
    with pytest.raises(ValueError, match=r"cut short|longer|wire type|field number"):
        Fields(data)


def test_fixed_width_fields_are_skipped() -> None:
    """Fields of later versions do not stop the reader."""
    assert Fields(b"\x0d\1\2\3\4\x11" + b"\1" * 8 + b"\x1a\1x").text(3) == "x"
