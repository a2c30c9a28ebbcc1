"""The exit record survives the shim, and nothing else is taken for one."""

from __future__ import annotations

import pytest

from trioshim._exit_record import ExitRecord, decode, encode

AT = 1_700_000_000_123_456_789


@pytest.mark.parametrize("status", [0, 1, 42, 137, 255])
def test_what_was_encoded_is_decoded(status: int) -> None:
    """A record comes back as it was."""
    assert decode(encode(4711, status, AT)) == ExitRecord(4711, status, AT)


def test_the_text_is_one_line() -> None:
    """The file can be read by people, and by the versions to come."""
    assert encode(4711, 42, AT) == b"4711 42 1700000000123456789\n"


@pytest.mark.parametrize("size", range(len(encode(4711, 42, AT))))
def test_half_a_record_is_no_record(size: int) -> None:
    """A file that was cut short says nothing, rather than something wrong."""
    assert decode(encode(4711, 42, AT)[:size]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 40,
        b"1 2\n",
        b"1 2 3 4\n",
        b"1 -2 3\n",
        b"1 x 3\n",
        b"1 256 3\n",
        b"0 0 3\n",
        b"1 0 0\n",
        b"1  2 3\n",
        b"1 0 3\n1 0 3\n",
        b"1 0 " + b"9" * 30 + b"\n",
        b"9" * 100_000 + b" 0 1\n",
        "1 ٢ 3\n".encode(),
    ],
)
def test_garbage_is_no_record(data: bytes) -> None:
    """Whatever else is in the file is ignored."""
    assert decode(data) is None


def test_a_record_cannot_be_changed() -> None:
    """It is a fact, not a variable."""
    with pytest.raises(AttributeError):
        decode(encode(1, 0, AT)).status = 1  # type: ignore[union-attr]
