"""Byte strings that no good peer sends: damage to good conversations, from a seed, and a corpus."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

import h2.config
import h2.connection

from trioshim.proto import task_v2_pb2 as api
from trioshim.ttrpc import Connection, Request, Role

from .grpc_world import HEADERS, TASK, TASK_PATH, framed

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
REQUEST = api.ConnectRequest(id="abc").SerializeToString()


@dataclass(frozen=True)
class Wire:
    """How one of the wires looks.

    Attributes:
        preface: what comes before the frames, undamaged in most strings.
        frames: of a good conversation.
        header: bytes of a frame's header; the first of them are the length.
        length: how many they are.
        corpus: strings that were thought of.
    """

    preface: bytes
    frames: tuple[bytes, ...]
    header: int
    length: int
    corpus: dict[str, bytes]


def _grpc_frames() -> tuple[bytes, ...]:
    config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
    peer = h2.connection.H2Connection(config)
    peer.initiate_connection()
    for method in ("Connect", "State", "Wait", "Kill"):
        stream_id = peer.get_next_available_stream_id()
        path = {":path": f"{TASK_PATH}/{method}"}
        peer.send_headers(stream_id, list((HEADERS | path).items()))
        peer.send_data(stream_id, framed(REQUEST), end_stream=True)
    peer.increment_flow_control_window(1000)
    peer.ping(b"12345678")
    return split(peer.data_to_send().removeprefix(PREFACE), 9, 3)


def _ttrpc_frames() -> tuple[bytes, ...]:
    client = Connection(Role.CLIENT)
    return tuple(
        client.send(Request(2 * number + 1, TASK.full_name, method, REQUEST))
        for number, method in enumerate(("Connect", "State", "Wait", "Kill"))
    )


def split(data: bytes, header: int, length: int) -> tuple[bytes, ...]:
    """The frames of a conversation."""
    frames = []
    while data:
        size = header + int.from_bytes(data[:length], "big")
        frames.append(data[:size])
        data = data[size:]
    return tuple(frames)


# ---------------------------------------------------------------- damage

Damage = Callable[[random.Random, Wire, list[bytes]], None]


def _flip_bits(rng: random.Random, wire: Wire, frames: list[bytes]) -> None:
    index = rng.randrange(len(frames))
    frame = bytearray(frames[index] or b"\0")
    for _ in range(rng.choice((1, 1, 2, 8))):
        frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
    frames[index] = bytes(frame)


def _truncate(rng: random.Random, wire: Wire, frames: list[bytes]) -> None:
    """The end of the conversation is missing."""
    keep = rng.randrange(len(frames))
    frames[keep] = frames[keep][: rng.randrange(len(frames[keep]) + 1)]
    del frames[keep + 1 :]


def _lie_about_the_length(rng: random.Random, wire: Wire, frames: list[bytes]) -> None:
    index = rng.randrange(len(frames))
    most = 256**wire.length - 1
    lie = rng.choice((0, 1, len(frames[index]), rng.randrange(300), rng.randrange(most), most))
    frames[index] = lie.to_bytes(wire.length, "big") + frames[index][wire.length :]


def _repeat(rng: random.Random, wire: Wire, frames: list[bytes]) -> None:
    index = rng.randrange(len(frames))
    frames[index:index] = [frames[index]] * rng.choice((1, 1, 2, 50))


def _reorder(rng: random.Random, wire: Wire, frames: list[bytes]) -> None:
    rng.shuffle(frames)


def _insert_noise(rng: random.Random, wire: Wire, frames: list[bytes]) -> None:
    noise = rng.randbytes(rng.choice((1, wire.header, 40, 400)))
    frames.insert(rng.randrange(len(frames) + 1), noise)


def _insert_a_frame(rng: random.Random, wire: Wire, frames: list[bytes]) -> None:
    """Well-formed outside, anything inside: any type, any flags, a stream id near the others."""
    body = rng.randbytes(rng.choice((0, 1, 4, 5, 6, 8, 50)))
    stream_id, kind, flags = rng.randrange(9), rng.randrange(12), rng.choice((0, 1, 4, 5, 8, 255))
    rest = (kind, flags, stream_id) if wire.length == 3 else (stream_id, kind, flags)
    layout = ">BBI" if wire.length == 3 else ">IBB"
    head = len(body).to_bytes(wire.length, "big") + struct.pack(layout, *rest)
    frames.insert(rng.randrange(len(frames) + 1), head + body)


_DAMAGES: tuple[Damage, ...] = (
    _flip_bits,
    _truncate,
    _lie_about_the_length,
    _repeat,
    _reorder,
    _insert_noise,
    _insert_a_frame,
)


def damaged(wire: Wire, seed: int) -> bytes:
    """One malformed string; the same for the same seed."""
    rng = random.Random(seed)
    if rng.random() < 0.1:
        return wire.preface + rng.randbytes(rng.randrange(200))
    frames = list(wire.frames[: rng.randrange(1, len(wire.frames) + 1)])
    for _ in range(rng.choice((1, 1, 2, 3))):
        rng.choice(_DAMAGES)(rng, wire, frames)
        frames = frames or [b""]
    said = wire.preface + b"".join(frames)
    if wire.preface and rng.random() < 0.02:
        return said[: rng.randrange(len(wire.preface))] + b"?" + said
    return said


# ---------------------------------------------------------------- strings that were thought of

_SETTINGS = b"\0\0\0\4\0\0\0\0\0"

_GRPC_CORPUS = {
    "nothing but P": b"P",
    "half a preface": PREFACE[:12],
    "another preface": b"PRI * HTTP/1.1\r\n\r\n" + bytes(40),
    "HTTP/1": b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
    "preface twice": PREFACE + PREFACE,
    "no settings": PREFACE + b"\0\0\x08\6\0\0\0\0\0" + bytes(8),
    "settings of five bytes": PREFACE + b"\0\0\5\4\0\0\0\0\0" + bytes(5),
    "settings on a stream": PREFACE + b"\0\0\0\4\0\0\0\0\1",
    "settings out of range": PREFACE + b"\0\0\6\4\0\0\0\0\0\0\4\xff\xff\xff\xff",
    "an ack that says something": PREFACE + b"\0\0\6\4\1\0\0\0\0\0\1\0\0\0\0",
    "a frame of 16 MiB": PREFACE + _SETTINGS + b"\xff\xff\xff\0\0\0\0\0\1" + bytes(1000),
    "data for nobody": PREFACE + _SETTINGS + b"\0\0\4\0\1\0\0\0\1" + bytes(4),
    "data on stream 0": PREFACE + _SETTINGS + b"\0\0\4\0\0\0\0\0\0" + bytes(4),
    "padding longer than the frame": PREFACE + _SETTINGS + b"\0\0\2\1\x0d\0\0\0\1\xff\0",
    "headers on an even stream": PREFACE + _SETTINGS + b"\0\0\1\1\5\0\0\0\2\x82",
    "a stream that depends on itself": PREFACE + _SETTINGS + b"\0\0\5\2\0\0\0\0\1\0\0\0\1\0",
    "a push promise": PREFACE + _SETTINGS + b"\0\0\5\5\4\0\0\0\1\0\0\0\2\x82",
    "a continuation of nothing": PREFACE + _SETTINGS + b"\0\0\1\x09\4\0\0\0\1\x82",
    "headers and then data": PREFACE
    + _SETTINGS
    + b"\0\0\1\1\0\0\0\0\1\x82"
    + b"\0\0\0\0\1\0\0\0\1",
    "continued without end": PREFACE
    + _SETTINGS
    + b"\0\0\1\1\0\0\0\0\1\x82"
    + b"\0\0\1\x09\0\0\0\0\1\x84" * 100,
    "HPACK index 0": PREFACE + _SETTINGS + b"\0\0\1\1\5\0\0\0\1\x80",
    "HPACK number without end": PREFACE + _SETTINGS + b"\0\0\x0b\1\5\0\0\0\1\x7f" + b"\xff" * 10,
    "HPACK table of gigabytes": PREFACE + _SETTINGS + b"\0\0\6\1\5\0\0\0\1\x3f\xff\xff\xff\xff\7",
    "bad Huffman": PREFACE + _SETTINGS + b"\0\0\6\1\5\0\0\0\1\x40\x84\xff\xff\xff\xff",
    "an empty header block": PREFACE + _SETTINGS + b"\0\0\0\1\5\0\0\0\1",
    "a window of nothing": PREFACE + _SETTINGS + b"\0\0\4\x08\0\0\0\0\0\0\0\0\0",
    "a window without end": PREFACE + _SETTINGS + b"\0\0\4\x08\0\0\0\0\0\x7f\xff\xff\xff" * 2,
    "a window for nobody": PREFACE + _SETTINGS + b"\0\0\4\x08\0\0\0\0\x63\0\0\0\1",
    "a reset of nobody": PREFACE + _SETTINGS + b"\0\0\4\3\0\0\0\0\x63\0\0\0\0",
    "a reset of stream 0": PREFACE + _SETTINGS + b"\0\0\4\3\0\0\0\0\0\0\0\0\0",
    "goaway and then headers": PREFACE
    + _SETTINGS
    + b"\0\0\x08\7\0\0\0\0\0"
    + bytes(8)
    + b"\0\0\1\1\5\0\0\0\1\x82",
    "types that nobody knows": PREFACE + _SETTINGS + b"\0\0\1\xee\0\0\0\0\0x" * 2000,
}

_TTRPC_CORPUS = {
    "nothing but 0": b"\0",
    "half a header": b"\0\0\0\0\0",
    "ten zeros": bytes(10),
    "an empty request": b"\0\0\0\0\0\0\0\1\1\0",
    "the same twice": b"\0\0\0\0\0\0\0\1\1\0" * 2,
    "an even id": b"\0\0\0\0\0\0\0\2\1\0",
    "id 0": b"\0\0\0\0\0\0\0\0\1\0",
    "the largest id and then one": b"\0\0\0\0\xff\xff\xff\xff\1\0" + b"\0\0\0\0\0\0\0\1\1\0",
    "a response": b"\0\0\0\0\0\0\0\1\2\0",
    "data for nobody": b"\0\0\0\1\0\0\0\1\3\0x",
    "a type that nobody knows": b"\0\0\0\1\0\0\0\1\xee\0x",
    "all flags": b"\0\0\0\0\0\0\0\1\1\xff",
    "streaming": b"\0\0\0\0\0\0\0\1\1\2",
    "more than 4 MiB": b"\0\x40\0\1\0\0\0\1\1\0" + bytes(1000),
    "16 MiB less one": b"\0\xff\xff\xff\0\0\0\1\1\0" + bytes(1000),
    "no protobuf": b"\0\0\0\4\0\0\0\1\1\0\xff\xff\xff\xff",
    "a varint without end": b"\0\0\0\x0c\0\0\0\1\1\0\x20" + b"\xff" * 11,
    "a string that is no UTF-8": b"\0\0\0\4\0\0\0\1\1\0\x0a\2\xff\xfe",
    "a length beyond the body": b"\0\0\0\4\0\0\0\1\1\0\x0a\x7fab",
    "a time limit below 0": b"\0\0\0\x0b\0\0\0\1\1\0\x20" + b"\xff" * 9 + b"\1",
    "groups in groups": b"\0\0\0\xc8\0\0\0\1\1\0" + b"\x3b" * 200,
}

GRPC = Wire(PREFACE, _grpc_frames(), 9, 3, _GRPC_CORPUS)
TTRPC = Wire(b"", _ttrpc_frames(), 10, 4, _TTRPC_CORPUS)
