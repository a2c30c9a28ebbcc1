"""What no client should ever send to a shim's socket.

Each test promises three things: the client is told what was wrong, the shim goes on and still
knows its container, and it has no more fds and children than before.
"""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, suppress

import pytest
import trio

from trioshim.errors import InternalError, UnimplementedError
from trioshim.proto import task_v2_pb2 as api
from trioshim.proto.ttrpc_pb2 import Request, Response
from trioshim.ttrpc import open_client
from trioshim.ttrpc._frames import Frame, FrameDecoder, FrameType

from .shim_parts import open_raw
from .shim_world import BOX, Shim

TASK = "containerd.task.v2.Task"


def frame(stream_id: int, method: str = "Connect", payload: bytes = b"") -> bytes:
    body = Request(service=TASK, method=method, payload=payload).SerializeToString()
    return Frame(stream_id, FrameType.REQUEST, 0, body).encode()


class Replies:
    """What comes back on a raw connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._decoder = FrameDecoder()

    async def next(self) -> tuple[int, int, str]:
        """Stream, code and text of the next reply."""
        with trio.fail_after(10):
            while (reply := self._decoder.next_frame()) is None:
                data = await self._stream.receive_some()
                assert data, "the shim closed the connection"
                self._decoder.feed(data)
        assert isinstance(reply, Frame)
        status = Response.FromString(reply.body).status
        return reply.stream_id, status.code, status.message


@pytest.mark.parametrize(
    ("service", "method", "complaint"),
    [("no.such.Service", "Create", "service no.such.Service"), (TASK, "Fly", "method Fly")],
)
async def test_what_is_not_served_is_unimplemented(
    shim: Shim, service: str, method: str, complaint: str
) -> None:
    """Newer daemons ask for methods that older shims lack, and look at this code."""
    async with open_raw(shim.address) as stream, open_client(stream) as client:
        with pytest.raises(UnimplementedError, match=complaint):
            await client.call(service, method, b"")


async def test_an_undecodable_payload_is_told(shim: Shim) -> None:
    """The answer names the method, and the connection is as good as before."""
    async with open_raw(shim.address) as stream, open_client(stream) as client:
        with pytest.raises(InternalError, match="cannot read the payload of State"):
            await client.call(TASK, "State", b"\xff\xff\xff")
        assert await client.call(TASK, "Connect", b"")


def _random_bytes(first: bytes) -> bytes:
    return first + random.Random(7).randbytes(5000)


@pytest.mark.parametrize(
    "garbage",
    [
        _random_bytes(b"\xff"),
        b"GET / HTTP/1.1\r\nHost: shim\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: shim\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\1\0\0\0\0\0\1x",
    ],
    ids=["random", "http", "post", "http2"],
)
async def test_a_stranger_is_hung_up_on(shim: Shim, garbage: bytes) -> None:
    """Who speaks neither ttrpc nor gRPC sees the end of the connection."""
    async with open_raw(shim.address) as stream:
        with trio.fail_after(10), suppress(trio.BrokenResourceError):  # not read to our end
            await stream.send_all(garbage)
            while await stream.receive_some():
                pass  # gRPC says GOAWAY


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"\0",
        b"\0\0\0\5\0",
        b"\0\0\0\5\0\0\0\1\1\0hi",
        b"\0\xff\xff\xff\0\0\0\1\1\0" + b"x" * 100_000,
        b"PRI * HT",
        _random_bytes(b"\0"),
    ],
    ids=["nothing", "byte", "header", "body", "oversize", "http2", "random"],
)
async def test_half_a_frame_is_the_end_of_its_connection_only(shim: Shim, beginning: bytes) -> None:
    """A client that was killed while it spoke."""
    async with open_raw(shim.address) as stream:
        await stream.send_all(beginning)


async def test_a_thousand_clients_leave_half_way(shim: Shim) -> None:
    """400 at a time, each cut off at another byte of its request for a Wait."""
    request = frame(1, "Wait", api.WaitRequest(id=BOX).SerializeToString())
    for _ in range(3):
        with ExitStack() as crowd:
            for number in range(400):
                client = crowd.enter_context(socket.socket(socket.AF_UNIX))
                client.connect(shim.address.removeprefix("unix://"))
                client.sendall(request[: number % (len(request) + 1)])
            await shim.state(BOX)


async def test_an_oversize_frame_is_refused_alone(shim: Shim) -> None:
    """5 MiB are skipped; the next request on the connection is answered."""
    async with open_raw(shim.address) as stream:
        replies = Replies(stream)
        size = 5 * 1024 * 1024
        await stream.send_all(size.to_bytes(4, "big") + b"\0\0\0\1\1\0" + bytes(size))
        text = f"message length {size} exceed maximum message size of 4194304"
        assert await replies.next() == (1, 8, text)
        await stream.send_all(frame(3))
        assert await replies.next() == (3, 0, "")


async def test_a_stream_id_is_odd_and_new(shim: Shim) -> None:
    """Even ones, used ones and smaller ones are refused; the connection goes on."""
    async with open_raw(shim.address) as stream:
        replies = Replies(stream)
        await stream.send_all(frame(5))
        assert await replies.next() == (5, 0, "")
        for number, complaint in [(8, "must be odd"), (5, "re-used"), (3, "must increment")]:
            await stream.send_all(frame(number))
            stream_id, code, text = await replies.next()
            assert (stream_id, code) == (number, 3)
            assert complaint in text
        await stream.send_all(frame(7))
        assert await replies.next() == (7, 0, "")


async def test_two_hundred_waits_end_with_their_client(shim: Shim) -> None:
    """Nothing of them is left in the shim, and another client's Wait goes on."""
    wait = api.WaitRequest(id=BOX).SerializeToString()
    async with open_raw(shim.address) as stream:
        replies = Replies(stream)
        await stream.send_all(b"".join(frame(2 * n + 1, "Wait", wait) for n in range(200)))
        await stream.send_all(frame(401))
        assert await replies.next() == (401, 0, "")
    with trio.move_on_after(0.5) as patience:
        await shim.wait(BOX)
    assert patience.cancelled_caught
