"""The server: every request gets one answer, whatever becomes of the call; none is dropped."""

import pytest
import trio
import trio.testing

from trioshim.errors import Code, NotFoundError
from trioshim.ttrpc import MAX_LENGTH, ConnectionClosed, Mode, Request, Response, serve_connection
from trioshim.ttrpc._frames import Frame, FrameType

from .ttrpc_world import Gates, echo, serving


async def test_calls_run_at_once_and_are_answered_as_they_end():
    """A slow call does not hold up a quick one."""
    gates = Gates()
    async with serving(gates.dispatch) as peer:
        for payload in (b"a", b"b", b"c"):
            await peer.request(payload)
        await trio.testing.wait_all_tasks_blocked()
        answers = []
        for payload in (b"c", b"a", b"b"):
            gates.opened[payload].set()
            answers.append((await peer.receive()).payload)
    assert answers == [b"c", b"a", b"b"]


async def test_a_shim_error_is_a_status():
    """Its code and its text go to the peer, nothing to the log."""

    async def dispatch(request):
        raise NotFoundError("container c")

    async with serving(dispatch) as peer:
        await peer.request()
        assert await peer.receive() == Response(1, b"", 5, "container c: not found")


@pytest.mark.parametrize(
    ("error", "text"),
    [(ValueError("odd"), "odd"), (KeyError(), "KeyError"), (OSError("a\udcff"), "a\\udcff")],
)
async def test_another_error_is_unknown_and_logged(caplog, error, text):
    """The peer gets the text, the log the traceback, the connection goes on."""

    async def dispatch(request):
        if request.payload:
            raise error
        return b""

    async with serving(dispatch) as peer:
        await peer.request(b"x")
        assert await peer.receive() == Response(1, b"", Code.UNKNOWN, text)
        await peer.request()
        assert await peer.receive() == Response(3)
    [record] = caplog.records
    assert record.name == "trioshim.ttrpc"
    assert record.exc_info[1] is error


async def test_no_exception_group_leaves_a_call():
    """A group of one is what it holds; a larger one is UNKNOWN."""

    async def dispatch(request):
        errors = [NotFoundError("c"), ValueError("v")][: int(request.payload)]
        raise ExceptionGroup("outer", [ExceptionGroup("inner", errors)])

    async with serving(dispatch) as peer:
        await peer.request(b"1")
        assert (await peer.receive()).code == Code.NOT_FOUND
        await peer.request(b"2")
        assert (await peer.receive()).code == Code.UNKNOWN


async def test_a_reply_that_is_too_long_becomes_a_status():
    """The Go server would end the connection."""

    async def dispatch(request):
        return bytes(int(request.payload))

    async with serving(dispatch) as peer:
        await peer.request(b"%d" % MAX_LENGTH)
        assert (await peer.receive()).code == Code.RESOURCE_EXHAUSTED
        await peer.request(b"3")
        assert await peer.receive() == Response(3, bytes(3))


async def test_a_reply_of_a_wrong_type_is_an_internal_error(caplog):
    """A bug of ours hurts one call only."""

    async def dispatch(request):
        return 7

    async with serving(dispatch) as peer:
        await peer.request()
        assert (await peer.receive()).code == Code.INTERNAL
    assert len(caplog.records) == 1


@pytest.mark.parametrize("mode", [Mode.REMOTE_OPEN, Mode.REMOTE_CLOSED])
async def test_streams_are_not_implemented(mode):
    """They are answered, and so is the next call."""
    async with serving(echo) as peer:
        await peer.request(mode=mode)
        assert (await peer.receive()).code == Code.UNIMPLEMENTED
        await peer.request(b"x")
        assert await peer.receive() == Response(3, b"x")


async def test_bad_frames_are_answered():
    """On the stream that they came with; the connection goes on."""
    async with serving(echo) as peer:
        for _ in range(2):  # the second has the id of the first again
            await peer.stream.send_all(Frame(1, FrameType.REQUEST, 0, b"\xff\xff").encode())
        peer.connection.send(Request(1, "s", "m"))
        first, second = await peer.receive(), await peer.receive()
        assert first.code == second.code == Code.INVALID_ARGUMENT
        assert "unmarshal" in first.message
        await peer.request(b"x")
        assert await peer.receive() == Response(3, b"x")


async def test_an_error_beside_a_cancellation_stays_inside(caplog):
    """A call that fails while it is cancelled does not take the server down."""

    async def rude():
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("on the way out")

    async def dispatch(request):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rude)
            nursery.start_soon(trio.sleep_forever)
        return b""

    async with serving(dispatch) as peer:
        await peer.request()
        await trio.testing.wait_all_tasks_blocked()
    assert len(caplog.records) == 1


async def test_shutdown_finishes_what_runs():
    """With `reading` cancelled no request is taken, and what runs is answered."""
    gates = Gates()
    reading = trio.CancelScope()
    async with serving(gates.dispatch, reading=reading) as peer:
        await peer.request(b"a")
        await peer.request(b"b")
        await trio.testing.wait_all_tasks_blocked()
        reading.cancel()
        await trio.testing.wait_all_tasks_blocked()
        await peer.request(b"c")
        await trio.testing.wait_all_tasks_blocked()
        for payload in (b"b", b"a"):
            gates.opened[payload].set()
            assert (await peer.receive()).payload == payload
        assert await peer.receive() == ConnectionClosed()
    assert set(gates.opened) == {b"a", b"b"}


async def test_shutdown_of_an_idle_connection_is_its_end():
    """Also if it was asked for before the connection was served."""
    reading = trio.CancelScope()
    reading.cancel()
    ours, theirs = trio.testing.memory_stream_pair()
    await serve_connection(ours, echo, reading=reading)
    assert await theirs.receive_some(1) == b""
