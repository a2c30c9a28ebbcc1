"""Blocking clients that add little of their own, so that what is measured is the server.

Promises: every reply is looked at (it has to be the bytes of the first one), and a call that
fails ends the run.  `run` keeps so many calls in flight on one connection and tells how long each
took; making its request is a part of a call.

Rules of this file:

* a raw client is one socket and the fewest system calls: a write, and reads until the replies are
  there.  ttrpc's and HTTP/2's differ in nothing but the frames;
* HTTP/2 requests are what grpc-go sends: after the first one every header is an index of HPACK's
  table.
"""

from __future__ import annotations

import importlib
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

from trioshim.proto import ttrpc_pb2

__all__ = ["SERVICE", "Client", "GrpcioClient", "Http2Client", "TtrpcClient"]

SERVICE = "containerd.task.v2.Task"  # over both wires, as the Go shim of containerd 1.6 has it
_PATIENCE = 10  # seconds without a byte from the server
_CHUNK = 64 * 1024
_PREFIX = struct.Struct(">BI")  # of a gRPC message: compressed flag, length


class Client(Protocol):
    """Asks one question again and again.

    Attributes:
        reply: the bytes of the first answer, and so of each.
    """

    reply: bytes

    def run(self, seconds: float, in_flight: int) -> list[int]:
        """Nanoseconds that each call took."""

    def close(self) -> None:
        """End the connection."""


class _RawClient:
    """The part that is the same for every framing."""

    def __init__(self, path: str) -> None:
        self.reply = b""
        self._next_id = 1
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX)
        # Not settimeout: it would make a poll of each read.
        self._socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _PATIENCE, 0)
        )
        self._socket.connect(path)

    def close(self) -> None:
        self._socket.close()

    def run(self, seconds: float, in_flight: int) -> list[int]:
        sent: dict[int, int] = {}
        took: list[int] = []
        now = time.perf_counter_ns()
        end = now + int(seconds * 1e9)
        while now < end or sent:
            if now < end:
                self._ask(in_flight - len(sent), sent, now)
            data = self._receive()
            now = time.perf_counter_ns()
            took += [now - sent.pop(stream_id) for stream_id in self._answered(data)]
        return took

    def _receive(self) -> bytes:
        data = self._socket.recv(_CHUNK)
        if not data:
            raise ConnectionError("the server has closed the connection")
        return data

    def _ask(self, calls: int, sent: dict[int, int], now: int) -> None:
        requests = []
        for _ in range(calls):
            sent[self._next_id] = now
            requests.append(self._request(self._next_id))
            self._next_id += 2
        self._socket.sendall(b"".join(requests))

    def _check(self, reply: bytes) -> None:
        if reply != self.reply:
            raise ValueError(f"another answer than at first: {reply!r}, not {self.reply!r}")

    def _request(self, stream_id: int) -> bytes:
        raise NotImplementedError

    def _answered(self, data: bytes) -> Iterator[int]:
        """The streams whose replies are whole now."""
        raise NotImplementedError


class TtrpcClient(_RawClient):
    """ttrpc's frames; what an echo server sends back is as good as an answer."""

    _HEADER = struct.Struct(">IIBB")  # length, stream id, type, flags
    _REQUEST = 1

    def __init__(self, path: str, method: str, payload: bytes) -> None:
        super().__init__(path)
        self._body = b""
        self.reply = self.call(method, payload)

    def call(self, method: str, payload: bytes) -> bytes:
        """One call, which is the one that `run` repeats then.

        Raises:
            ValueError: it was refused.
        """
        request = ttrpc_pb2.Request(service=SERVICE, method=method, payload=payload)
        self._body = request.SerializeToString()
        self._ask(1, {}, 0)
        while len(self._buffer) < self._HEADER.size or len(self._buffer) < self._size():
            self._buffer += self._receive()
        self.reply = self._buffer[self._HEADER.size :]
        self._buffer = b""
        if self.reply == self._body:
            return self.reply
        response = ttrpc_pb2.Response.FromString(self.reply)
        if response.status.code:
            raise ValueError(f"{method}: {response.status.message}")
        return response.payload

    def run(self, seconds: float, in_flight: int) -> list[int]:
        payload, self.reply = self.reply, self._whole()
        try:
            return super().run(seconds, in_flight)
        finally:
            self.reply = payload

    def _whole(self) -> bytes:
        """The reply with what is around it."""
        if self.reply == self._body:
            return self.reply
        return ttrpc_pb2.Response(payload=self.reply).SerializeToString()

    def _size(self) -> int:
        return self._HEADER.size + int.from_bytes(self._buffer[:4], "big")

    def _request(self, stream_id: int) -> bytes:
        return self._HEADER.pack(len(self._body), stream_id, self._REQUEST, 0) + self._body

    def _answered(self, data: bytes) -> Iterator[int]:
        buffer = self._buffer + data if self._buffer else data
        start, size = 0, self._HEADER.size
        while len(buffer) - start >= size:
            length, stream_id, _, _ = self._HEADER.unpack_from(buffer, start)
            if len(buffer) - start < size + length:
                break
            self._check(buffer[start + size : start + size + length])
            start += size + length
            yield stream_id
        self._buffer = buffer[start:]


class Http2Client(_RawClient):
    """gRPC's frames, encoded beforehand; replies are counted by their ends."""

    _HEADER = struct.Struct(">BHBBI")  # length (of 24 bits), type, flags, stream id
    _DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
    _END_STREAM = _ACK = 1
    _END_HEADERS = 4
    _MAX_WINDOW = 2**31 - 1 - 65535

    def __init__(self, path: str, method: str, payload: bytes) -> None:
        super().__init__(path)
        self._body = _PREFIX.pack(0, len(payload)) + payload
        self._bodies: dict[int, bytes] = {}
        self._block, then = _header_blocks(f"/{SERVICE}/{method}")
        hello = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            self._frame(self._SETTINGS, 0, 0, b""),
            self._frame(self._WINDOW_UPDATE, 0, 0, self._MAX_WINDOW.to_bytes(4, "big")),
        ]
        self._socket.sendall(b"".join(hello))
        self._ask(1, {}, 0)
        while not list(self._answered(self._receive())):
            continue
        self._block = then

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
        return self._HEADER.pack(0, len(payload), kind, flags, stream_id) + payload

    def _request(self, stream_id: int) -> bytes:
        return self._frame(self._HEADERS, self._END_HEADERS, stream_id, self._block) + self._frame(
            self._DATA, self._END_STREAM, stream_id, self._body
        )

    def _answered(self, data: bytes) -> Iterator[int]:
        buffer = self._buffer + data if self._buffer else data
        start, size = 0, self._HEADER.size
        while len(buffer) - start >= size:
            high, low, kind, flags, stream_id = self._HEADER.unpack_from(buffer, start)
            end = start + size + (high << 16 | low)
            if len(buffer) < end:
                break
            if self._take(kind, flags, stream_id, buffer[start + size : end]):
                yield stream_id
            start = end
        self._buffer = buffer[start:]

    def _take(self, kind: int, flags: int, stream_id: int, payload: bytes) -> bool:
        """Whether this was the end of a reply."""
        if kind == self._DATA:
            self._bodies[stream_id] = self._bodies.get(stream_id, b"") + payload
        elif kind == self._HEADERS and flags & self._END_STREAM:
            body = self._bodies.pop(stream_id, b"")
            self.reply = self.reply or body[_PREFIX.size :]
            self._check(body[_PREFIX.size :])
            return True
        elif kind in (self._SETTINGS, self._PING) and not flags & self._ACK:
            echoed = payload if kind == self._PING else b""
            self._socket.sendall(self._frame(kind, self._ACK, 0, echoed))
        elif kind in (self._RST_STREAM, self._GOAWAY):
            raise ConnectionError(f"frame of type {kind} instead of a reply: {payload!r}")
        return False


def _header_blocks(path: str) -> tuple[bytes, bytes]:
    """HPACK (RFC 7541): the headers as the first request tells them, and as the others do."""
    post, http = b"\x83", b"\x86"  # :method and :scheme, in the table from the beginning
    known = ((4, path), (1, "localhost"), (31, "application/grpc"), (58, "grpc-go/1.58.3"))
    new = b"\x40" + _text("te") + _text("trailers")
    told = b"".join(bytes([0x40 | index]) + _text(value) for index, value in known) + new
    # What came last has the index 62.
    indexes = bytes(0x80 | index for index in range(62 + len(known), 61, -1))
    return post + http + told, post + http + indexes


def _text(value: str) -> bytes:
    return bytes([len(value)]) + value.encode()


class GrpcioClient:
    """grpcio's: what a program would use.  It works in threads of C, and costs more."""

    def __init__(self, path: str, method: str, payload: bytes) -> None:
        grpc: Any = importlib.import_module("grpc")  # slow, and it starts threads
        # Else all channels to one path share a connection.
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(f"unix:{path}", options=options)
        self._call = self._channel.unary_unary(f"/{SERVICE}/{method}")
        self._payload = payload
        self.reply: bytes = self._call(payload, timeout=_PATIENCE)

    def close(self) -> None:
        self._channel.close()

    def run(self, seconds: float, in_flight: int) -> list[int]:
        took: list[int] = []
        calls: deque[tuple[int, Any]] = deque()
        now = time.perf_counter_ns()
        end = now + int(seconds * 1e9)
        while now < end or calls:
            if in_flight == 1:
                reply = self._call(self._payload)
                begun = now
            else:
                while now < end and len(calls) < in_flight:
                    calls.append((time.perf_counter_ns(), self._call.future(self._payload)))
                begun, call = calls.popleft()
                reply = call.result()
            now = time.perf_counter_ns()
            took.append(now - begun)
            if reply != self.reply:
                raise ValueError(f"another answer than at first: {reply!r}, not {self.reply!r}")
        return took
