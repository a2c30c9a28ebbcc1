"""What is answered at once is written and read on the socket itself: whole frames, and turns."""

from __future__ import annotations

import errno
import os

import pytest
import trio
import trio.testing

from trioshim.ttrpc import Connection, Request, Response, Role, _outbox, _socket, serve_connection
from trioshim.ttrpc._socket import receive_some

from .ttrpc_world import (
    Gates,
    Peer,
    echo,
    narrow,
    payload_or_none,
    response,
    serving,
    sockets,
)

# ---------------------------------------------------------------- writes


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much each write at once was to write."""
    sizes: list[int] = []

    def noted(stream: trio.abc.SendStream, data: bytes) -> int:
        sizes.append(len(data))
        return _socket.send_at_once(stream, data)

    monkeypatch.setattr(_outbox, "send_at_once", noted)
    return sizes


async def test_what_came_together_is_answered_together(writes: list[int]) -> None:
    """One read, one write: ten frames of ten bytes and a payload each."""
    async with serving(echo, sockets(), at_once=payload_or_none) as peer:
        await peer.send(*(Request(n, "s", "m", b"x") for n in range(1, 20, 2)))
        for _ in range(10):
            assert (await response(peer)).payload == b"x"
    assert writes == [10 * (10 + len(b"\x12\x01x"))]


async def receive_all(peer: Peer, count: int) -> list[Response]:
    return [await response(peer) for _ in range(count)]


async def test_a_frame_that_the_socket_takes_a_part_of_is_finished() -> None:
    """Whoever writes the rest, and whatever is answered meanwhile (law 10)."""
    async with serving(echo, narrow(sockets()), at_once=payload_or_none) as peer:
        async with trio.open_nursery() as nursery:
            pieces = [bytes([n % 256]) * (n * 37 % 9000) for n in range(500)]  # a few are empty
            requests = [Request(2 * n + 1, "s", "m", piece) for n, piece in enumerate(pieces)]
            nursery.start_soon(peer.send, *requests)
            answers = await receive_all(peer, len(pieces))
        assert {a.stream_id: a.payload for a in answers} == {
            r.stream_id: r.payload for r in requests
        }


async def test_nothing_goes_out_between_a_frame_and_its_rest() -> None:
    """Who comes before the task that writes the rest has to wait for it too (law 10)."""
    ours, theirs = narrow(sockets())
    outbox = _outbox.Outbox(ours, 1)
    frames = [bytes([n]) * 100_000 for n in range(3)]
    outbox.put(frames[0])
    assert not outbox.write_at_once()
    received = await theirs.receive_some(10_000)  # now there is room
    for frame in frames[1:]:
        outbox.put(frame)
        assert not outbox.write_at_once()

    async def write_the_rest() -> None:
        await outbox.flush()
        assert outbox.write_at_once()
        await ours.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_the_rest)
        async with theirs:
            received += b"".join([data async for data in theirs])
    assert received == b"".join(frames)


async def test_a_peer_that_asks_much_before_it_reads_gets_every_answer() -> None:
    """The reader does not wait for the writer (containerd/ttrpc#72)."""
    async with serving(echo, narrow(sockets()), at_once=payload_or_none) as peer:
        await peer.send(*(Request(n, "s", "m", b"x" * 200) for n in range(1, 4000, 2)))
        assert [a.stream_id for a in await receive_all(peer, 2000)] == list(range(1, 4000, 2))


async def test_a_peer_that_never_reads_is_cut_off(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """After the time limit of one write, though its answers were begun without a wait."""
    ours, theirs = narrow(sockets())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: serve_connection(ours, echo, at_once=payload_or_none, send_timeout=30)
        )
        peer = Peer(theirs, Role.CLIENT)
        await peer.send(*(Request(n, "s", "m", b"x" * 500) for n in range(1, 200, 2)))
    assert trio.current_time() == 30
    assert "does not read" in caplog.text
    await theirs.aclose()


async def test_instant_answers_that_nobody_reads_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A peer that only asks cannot fill the memory."""
    streams = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: serve_connection(streams[0], echo, at_once=payload_or_none, max_in_flight=10)
        )
        with pytest.raises(trio.BrokenResourceError):
            for number in range(1, 1000, 2):
                await streams[1].send_all(
                    Connection(Role.CLIENT).send(Request(number, "s", "m", b"x"))
                )
    assert "unanswered" in caplog.text


async def test_a_peer_that_left_before_its_answer_is_gone() -> None:
    """The write that fails at once fails again where errors are told: nothing is raised."""
    gates = Gates()
    ours, theirs = sockets()

    def at_once(request: Request) -> bytes | None:
        if request.payload == b"leave":
            theirs.socket.close()
            return b"x"
        return None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_connection(ours, gates.dispatch, at_once=at_once))
        peer = Peer(theirs, Role.CLIENT)
        await peer.request(b"a")
        await trio.testing.wait_all_tasks_blocked()
        await peer.request(b"leave")
    assert gates.cancelled == [b"a"]


# ---------------------------------------------------------------- reads


async def test_a_read_is_a_checkpoint_though_there_are_bytes() -> None:
    """Who always has more to read does not keep the others waiting."""
    ours, theirs = sockets()
    await theirs.send_all(b"xy")
    with trio.CancelScope() as scope:
        scope.cancel()
        await receive_some(ours)
    assert scope.cancelled_caught
    assert await receive_some(ours) == b"xy"
    await theirs.aclose()
    assert await receive_some(ours) == b""
    await ours.aclose()


async def test_a_socket_that_was_readable_and_is_no_more_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel may say so (select(2), BUGS); that is no error of the connection."""
    ours, theirs = sockets()
    read, refusals = os.read, [BlockingIOError(errno.EAGAIN, "not now")]

    def once_refused(fd: int, size: int) -> bytes:
        if refusals:
            raise refusals.pop()
        return read(fd, size)

    monkeypatch.setattr(os, "read", once_refused)
    await theirs.send_all(b"x")
    assert await receive_some(ours) == b"x"
    await ours.aclose()
    await theirs.aclose()


async def test_a_stream_that_is_closed_meanwhile_says_so() -> None:
    """As trio's own stream does; afterwards its number may be another one's."""
    ours, theirs = sockets()
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await receive_some(ours)

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await ours.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await receive_some(ours)
    assert _socket.send_at_once(ours, b"x") == 0
    await theirs.aclose()
