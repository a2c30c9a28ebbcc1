"""Frames: what is put in comes out, however it is cut, and nothing too long is ever held."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioshim.errors import ResourceExhaustedError
from trioshim.ttrpc._frames import MAX_LENGTH, Frame, FrameDecoder, OversizeFrame

frames = st.builds(
    Frame,
    stream_id=st.integers(0, 2**32 - 1),
    type=st.integers(0, 255),
    flags=st.integers(0, 255),
    body=st.binary(max_size=200),
)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


def decode(decoder: FrameDecoder, pieces: list[bytes]) -> list[Frame | OversizeFrame]:
    found = []
    for piece in pieces:
        decoder.feed(piece)
        while (frame := decoder.next_frame()) is not None:
            found.append(frame)
    return found


def test_the_header_is_what_other_implementations_write():
    """Length, stream id, type and flags are big-endian, in this order."""
    encoded = Frame(stream_id=0x01020304, type=1, flags=2, body=b"abc").encode()
    assert encoded == b"\0\0\0\3" + b"\1\2\3\4" + b"\1" + b"\2" + b"abc"


@given(st.lists(frames, max_size=8), st.lists(st.integers(0, 50), max_size=40))
def test_frames_survive_any_cutting(sent, sizes):
    """The pieces in which bytes come do not matter."""
    decoder = FrameDecoder()
    data = b"".join(frame.encode() for frame in sent)
    assert decode(decoder, cut(data, sizes)) == sent
    assert not decoder.mid_frame
    assert decoder.buffered == 0


@given(frames, st.data())
def test_an_unfinished_frame_is_known_to_be_one(frame, data):
    """`mid_frame` is what tells a clean end from a torn one."""
    encoded = frame.encode()
    some = data.draw(st.integers(1, len(encoded) - 1))
    decoder = FrameDecoder()
    assert decode(decoder, [encoded[:some]]) == []
    assert decoder.mid_frame


def test_a_body_of_the_maximum_length_passes():
    """4 MiB is inclusive."""
    frame = Frame(1, 1, 0, bytes(MAX_LENGTH))
    assert decode(FrameDecoder(), [frame.encode()]) == [frame]


def test_a_longer_body_cannot_be_encoded():
    """The sender refuses before it writes."""
    with pytest.raises(ResourceExhaustedError, match="message length 4194305 exceed maximum"):
        Frame(1, 1, 0, bytes(MAX_LENGTH + 1)).encode()


@pytest.mark.parametrize("length", [MAX_LENGTH + 1, 2**24 + 5])
def test_an_oversize_body_is_dropped_and_not_held(length):
    """What is held never grows with the length of the frame, and the next frame is found."""
    decoder = FrameDecoder()
    found = decode(decoder, [struct.pack(">IIBB", length, 7, 1, 0)])
    left = length
    held = 0
    while left:
        size = min(left, 60_000)
        found += decode(decoder, [bytes(size)])
        held = max(held, decoder.buffered)
        left -= size
    found += decode(decoder, [Frame(9, 1).encode()])
    assert found == [OversizeFrame(7, 1, length), Frame(9, 1)]
    assert held == 0


def test_oversize_is_dropped_even_if_nobody_asks_for_frames():
    """`feed` alone keeps the promise, once the header is known."""
    decoder = FrameDecoder()
    assert decode(decoder, [b"\xff" * 10]) == []
    for _ in range(100):
        decoder.feed(bytes(60_000))
    assert decoder.buffered == 0
    assert decoder.mid_frame


def test_an_oversize_frame_and_its_successor_in_one_piece():
    """The bytes behind a dropped body belong to the next frame."""
    oversize = struct.pack(">IIBB", MAX_LENGTH + 1, 7, 1, 0) + bytes(MAX_LENGTH + 1)
    found = decode(FrameDecoder(), [oversize + Frame(9, 3, 5, b"x").encode()])
    assert found == [OversizeFrame(7, 1, MAX_LENGTH + 1), Frame(9, 3, 5, b"x")]


def test_bytes_that_come_one_by_one_are_looked_at_once():
    """Linear time: no header is parsed and nothing is copied before a frame can be complete."""
    decoder = FrameDecoder()
    encoded = Frame(1, 1, 0, bytes(1000)).encode()
    for byte in encoded[:-1]:
        decoder.feed(bytes([byte]))
        assert decoder.next_frame() is None
        assert decoder._needed in (10, len(encoded))
    assert decoder._needed == len(encoded)
    decoder.feed(encoded[-1:])
    assert decoder.next_frame() == Frame(1, 1, 0, bytes(1000))
