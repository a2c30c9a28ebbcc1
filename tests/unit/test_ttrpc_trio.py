"""Client and server over trio streams: order, cancellation, peers that are deaf, rude or gone."""

import contextlib
import socket

import pytest
import trio
import trio.testing

from trioshim.errors import (
    Code,
    DeadlineExceededError,
    NotFoundError,
    ResourceExhaustedError,
    ShimError,
    StatusError,
    UnavailableError,
)
from trioshim.ttrpc import (
    MAX_LENGTH,
    NEED_DATA,
    Connection,
    ConnectionClosed,
    Event,
    Mode,
    Request,
    Response,
    Role,
    open_client,
    serve_connection,
)
from trioshim.ttrpc._frames import Frame, FrameType
from trioshim.ttrpc._outbox import Outbox


class Peer:
    """The other end of a stream, driven by hand."""

    def __init__(self, stream: trio.abc.Stream, role: Role) -> None:
        self.stream = stream
        self.connection = Connection(role)

    async def send(self, *events: Event) -> None:
        await self.stream.send_all(b"".join(map(self.connection.send, events)))

    async def request(self, payload: bytes = b"", **other: object) -> None:
        await self.send(Request(self.connection.next_stream_id, "s", "m", payload, **other))

    async def receive(self) -> Event:
        while (event := self.connection.next_event()) is NEED_DATA:
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                data = b""
            self.connection.receive_data(data)
        return event


@contextlib.asynccontextmanager
async def serving(dispatch, streams=None, **options):
    """A server with `dispatch`, and its client driven by hand; ends with the connection."""
    ours, theirs = streams or trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_connection(ours, dispatch, **options))
        yield Peer(theirs, Role.CLIENT)
        await theirs.aclose()


@contextlib.asynccontextmanager
async def connected(dispatch, streams=None):
    """A client and a server with `dispatch`."""
    ours, theirs = streams or trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, ours, dispatch)
        async with open_client(theirs) as client:
            yield client


@contextlib.asynccontextmanager
async def calling(streams=None):
    """A client, and its server driven by hand."""
    ours, theirs = streams or trio.testing.memory_stream_pair()
    async with open_client(ours) as client:
        yield client, Peer(theirs, Role.SERVER)


def narrow_socketpair() -> tuple[trio.SocketStream, trio.SocketStream]:
    pair = trio.socket.socketpair()
    for end in pair:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return trio.SocketStream(pair[0]), trio.SocketStream(pair[1])


async def echo(request: Request) -> bytes:
    return request.payload


async def forever(request: Request) -> bytes:
    await trio.sleep_forever()
    raise AssertionError


class Gates:
    """A dispatch that answers when it is told to, and remembers who was cancelled."""

    def __init__(self) -> None:
        self.opened: dict[bytes, trio.Event] = {}
        self.cancelled: list[bytes] = []

    async def dispatch(self, request: Request) -> bytes:
        gate = self.opened[request.payload] = trio.Event()
        try:
            await gate.wait()
        except trio.Cancelled:
            self.cancelled.append(request.payload)
            raise
        return request.payload


# ---------------------------------------------------------------- the server


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


@pytest.mark.parametrize("last", [b"", b"\0\0", Frame(5, 1, 0, b"body").encode()[:12]])
async def test_when_the_peer_is_gone_its_calls_are_cancelled(last):
    """Whether it stops between frames or inside of one; that is a normal return."""
    gates = Gates()
    async with serving(gates.dispatch) as peer:
        await peer.request(b"a")
        await peer.request(b"b")
        await trio.testing.wait_all_tasks_blocked()
        await peer.stream.send_all(last)
        await peer.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(gates.cancelled) == [b"a", b"b"]


async def test_the_stream_is_closed_when_the_peer_is_gone():
    """A connection leaks nothing, whatever the peer did."""
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"\0")
    await theirs.aclose()
    await serve_connection(ours, echo)
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"x")


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


async def test_cancelling_the_server_does_not_wait_for_a_deaf_peer(autojump_clock):
    """The connection dies with the frame, so nothing has to be finished."""
    streams = trio.testing.lockstep_stream_pair()
    with trio.move_on_after(1):
        async with serving(echo, streams) as peer:
            await peer.request(b"x")
            await trio.sleep_forever()
    assert trio.current_time() == 1
    with pytest.raises(trio.ClosedResourceError):
        await streams[0].send_all(b"x")


async def test_a_peer_that_does_not_read_is_cut_off(autojump_clock, caplog):
    """After the time limit of one write; its other calls are cancelled."""
    gates = Gates()
    streams = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        peer = Peer(streams[1], Role.CLIENT)
        nursery.start_soon(lambda: serve_connection(streams[0], gates.dispatch, send_timeout=30))
        await peer.request(b"a")
        await peer.request(b"b")
        await trio.testing.wait_all_tasks_blocked()
        gates.opened[b"a"].set()
    assert trio.current_time() == 30
    assert gates.cancelled == [b"b"]
    assert "does not read" in caplog.text


async def test_the_time_limit_is_for_one_write_not_for_all(autojump_clock):
    """A slow reader that reads is served."""
    async with serving(echo, trio.testing.lockstep_stream_pair(), send_timeout=30) as peer:
        for _ in range(5):
            await peer.request(bytes(100_000))
        for number in range(5):
            await trio.sleep(20)
            assert (await peer.receive()).stream_id == 2 * number + 1
    assert trio.current_time() == 100


async def test_the_reader_does_not_wait_for_the_writer():
    """Requests are taken while a reply is stuck (containerd/ttrpc#72)."""
    gates = Gates()
    async with serving(gates.dispatch, trio.testing.lockstep_stream_pair()) as peer:
        await peer.request(b"a")
        await trio.testing.wait_all_tasks_blocked()
        gates.opened[b"a"].set()
        await trio.testing.wait_all_tasks_blocked()
        await peer.stream.send_all(Frame(2, 1).encode())
        await peer.request(b"b")
        await trio.testing.wait_all_tasks_blocked()
        assert set(gates.opened) == {b"a", b"b"}


async def test_a_peer_with_too_many_open_calls_is_cut_off(caplog):
    """The limit itself is allowed."""
    gates = Gates()
    async with serving(gates.dispatch, max_in_flight=3) as peer:
        for payload in (b"a", b"b", b"c"):
            await peer.request(payload)
        await trio.testing.wait_all_tasks_blocked()
        assert gates.cancelled == []
        await peer.request(b"d")
        assert await peer.receive() == ConnectionClosed()
    assert {b"a", b"b", b"c"} <= set(gates.cancelled)
    assert "unanswered" in caplog.text


async def test_calls_that_have_ended_do_not_count():
    """The limit is for what is unanswered now."""
    async with serving(echo, max_in_flight=2) as peer:
        for number in range(10):
            await peer.request(b"x")
            assert await peer.receive() == Response(2 * number + 1, b"x")


async def test_a_peer_that_takes_no_reply_is_gone():
    """It could still send, but its calls cannot be answered: they are cancelled."""
    gates = Gates()
    ours, theirs = trio.testing.memory_stream_pair()

    async def send_all(data):
        raise trio.BrokenResourceError

    ours.send_all = send_all
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, ours, gates.dispatch)
        peer = Peer(theirs, Role.CLIENT)
        await peer.request(b"a")
        await peer.request(b"b")
        await trio.testing.wait_all_tasks_blocked()
        gates.opened[b"a"].set()
    assert gates.cancelled == [b"b"]


async def test_a_peer_that_left_a_reply_unread_is_gone():
    """The kernel says ECONNRESET then, not EOF."""
    gates = Gates()
    ours, theirs = map(trio.SocketStream, trio.socket.socketpair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, ours, gates.dispatch)
        peer = Peer(theirs, Role.CLIENT)
        await peer.request(b"a")
        await peer.request(b"b")
        while len(gates.opened) < 2:
            await trio.lowlevel.checkpoint()
        gates.opened[b"a"].set()
        await trio.lowlevel.wait_readable(theirs.socket)
        await theirs.aclose()
    assert gates.cancelled == [b"b"]


async def test_after_a_write_that_was_cut_short_nothing_is_written(autojump_clock):
    """Whatever is put: a torn frame is the last one (law 10)."""
    writes = []
    ours, _theirs = trio.testing.lockstep_stream_pair()
    send_all = ours.send_all

    async def recorded(data):
        writes.append(data)
        await send_all(data)

    ours.send_all = recorded
    outbox = Outbox(ours, 1)
    outbox.put(b"one")
    with pytest.raises(trio.TooSlowError):
        await outbox.flush()
    outbox.put(b"two")
    await outbox.flush()
    assert writes == [b"one"]


async def test_answers_to_bad_frames_count_as_open_calls(caplog):
    """A peer that only sends garbage and reads nothing cannot fill the memory."""
    streams = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_connection(streams[0], echo, max_in_flight=10))
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await streams[1].send_all(Frame(2, 1).encode())
    assert "unanswered" in caplog.text


async def test_small_replies_that_wait_go_out_together():
    """While one is written the next ones gather."""
    writes = []
    ours, theirs = trio.testing.lockstep_stream_pair()
    send_all = ours.send_all

    async def counted(data):
        writes.append(len(data))
        await send_all(data)

    ours.send_all = counted
    async with serving(echo, (ours, theirs)) as peer:
        for _ in range(5):
            await peer.request()
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(5):
            await peer.receive()
    assert writes == [10, 40]


# ---------------------------------------------------------------- the client


async def test_many_calls_at_a_time_each_get_their_own_answer():
    """Whatever the order of the answers."""
    answers = {}

    async def dispatch(request):
        for _ in range(int(request.payload) % 7):
            await trio.lowlevel.checkpoint()
        return request.payload

    async def call(client, number):
        answers[number] = await client.call("s", "m", b"%d" % number)

    async with connected(dispatch) as client, trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(call, client, number)
    assert answers == {number: b"%d" % number for number in range(100)}


async def test_the_whole_request_reaches_the_dispatch():
    """Names, payload, the time limit and the metadata."""
    seen = []

    async def dispatch(request):
        seen.append(request)
        return b""

    async with connected(dispatch) as client:
        await client.call("svc", "Do", b"p", timeout=1.5, metadata=[("k", "v"), ("k", "w")])
        await client.call("svc", "Do", b"")
    assert seen == [
        Request(1, "svc", "Do", b"p", 1_500_000_000, (("k", "v"), ("k", "w"))),
        Request(3, "svc", "Do"),
    ]


async def test_the_class_raised_in_the_server_is_the_class_caught():
    """With the same text."""

    async def dispatch(request):
        if request.payload:
            raise StatusError("cannot start a running process")
        raise NotFoundError("container c")

    async with connected(dispatch) as client:
        with pytest.raises(NotFoundError, match=r"^container c: not found$"):
            await client.call("s", "m", b"")
        with pytest.raises(StatusError, match="cannot start"):
            await client.call("s", "m", b"x")


async def test_when_the_connection_ends_every_call_learns_it():
    """Those that wait, and those that come later."""
    async with calling() as (client, server):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(expect_closed, client)
            await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope() as waiting:
                waiting.cancel()
                await client.wait_closed()
            assert waiting.cancelled_caught
            assert not client.closed
            await server.stream.aclose()
            await client.wait_closed()
        assert client.closed
        await expect_closed(client)


async def expect_closed(client):
    with pytest.raises(UnavailableError, match="ttrpc: closed"):
        await client.call("s", "m", b"")


async def test_leaving_the_block_ends_the_calls():
    """A call that outlives the client is told so, and so is a later one."""
    ours, _theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        async with open_client(ours) as client:
            nursery.start_soon(expect_closed, client)
            await trio.testing.wait_all_tasks_blocked()
        await expect_closed(client)
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"x")


async def test_a_server_that_ends_in_a_frame_is_gone():
    """A torn frame is the end of the connection."""
    async with calling() as (client, server):
        await server.stream.send_all(b"\0\0")
        await server.stream.aclose()
        await client.wait_closed()
        await expect_closed(client)


async def test_a_deadline_that_passes(autojump_clock):
    """On time, with containerd's text, and the connection goes on; the late answer is ignored."""

    async def dispatch(request):
        await trio.sleep(float(request.payload))
        return request.payload

    async with connected(dispatch) as client:
        with pytest.raises(DeadlineExceededError, match=r"^context deadline exceeded$"):
            await client.call("s", "m", b"3", timeout=2)
        assert trio.current_time() == 2
        assert await client.call("s", "m", b"5", timeout=6) == b"5"
        assert client._connection.open_streams == 0


@pytest.mark.parametrize("timeout", [0, -1.5])
async def test_a_deadline_that_has_passed(timeout):
    """Nothing is sent."""
    async with calling() as (client, _):
        with pytest.raises(DeadlineExceededError):
            await client.call("s", "m", b"", timeout=timeout)
        assert client._connection.next_stream_id == 1


@pytest.mark.parametrize(("timeout", "nano"), [(1e-12, 1), (1e300, 2**63 - 1), (float("inf"), 0)])
async def test_strange_deadlines_fit_into_the_wire(mock_clock, timeout, nano):
    """No limit is 0, so a tiny one must not become that."""
    async with calling() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: client.call("s", "m", b"", timeout=timeout))
        assert (await server.receive()).timeout_nano == nano
        nursery.cancel_scope.cancel()


async def test_a_deaf_server_does_not_hold_a_caller(autojump_clock, caplog):
    """The caller leaves on time; the connection is given up after the time limit of a write."""
    async with calling(trio.testing.lockstep_stream_pair()) as (client, _):
        with pytest.raises(DeadlineExceededError):
            await client.call("s", "m", b"", timeout=1)
        assert trio.current_time() == 1
        await expect_closed(client)
        assert trio.current_time() == 30
    assert "does not read" in caplog.text


async def test_a_call_cancelled_inside_of_its_frame_leaves_the_framing_intact():
    """The frame that was begun is finished, the next one follows."""
    streams = trio.testing.lockstep_stream_pair()
    async with calling(streams) as (client, server), trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_after_ten_bytes, server, scope)
            await client.call("s", "m", b"one" * 1000)
        assert scope.cancelled_caught
        nursery.start_soon(client.call, "s", "m", b"two")
        assert (await server.receive()).payload == b"one" * 1000
        assert (await server.receive()).payload == b"two"
        nursery.cancel_scope.cancel()


async def cancel_after_ten_bytes(server, scope):
    server.connection.receive_data(await server.stream.receive_some(10))
    scope.cancel()


async def test_a_call_cancelled_before_its_frame_is_never_sent():
    """What has not begun to be written is taken back."""
    streams = trio.testing.lockstep_stream_pair()
    async with calling(streams) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.call, "s", "m", b"one")
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.call("s", "m", b"two")
        nursery.start_soon(client.call, "s", "m", b"three")
        await trio.testing.wait_all_tasks_blocked()
        received = [await server.receive(), await server.receive()]
        assert [request.payload for request in received] == [b"one", b"three"]
        nursery.cancel_scope.cancel()


async def test_faults_of_one_answer_hurt_one_call():
    """Undecodable, or not what a unary call gets."""
    async with calling() as (client, server):
        for type_, code in ((FrameType.RESPONSE, Code.INTERNAL), (FrameType.DATA, Code.INTERNAL)):
            stream_id = client._connection.next_stream_id
            async with trio.open_nursery() as nursery:
                nursery.start_soon(expect_code, client, code)
                await server.receive()
                await server.stream.send_all(Frame(stream_id, type_, 0, b"\xff\xff").encode())
        assert not client.closed


async def expect_code(client, code):
    with pytest.raises(ShimError) as caught:
        await client.call("s", "m", b"")
    assert caught.value.code == code


async def test_frames_for_nobody_are_ignored():
    """Answers to calls that were never made, and bad frames, from a confused server."""
    async with calling() as (client, server), trio.open_nursery() as nursery:
        await server.stream.send_all(Frame(9, 2).encode() + Frame(4, 3).encode())
        nursery.start_soon(answer_one, server)
        assert await client.call("s", "m", b"x") == b"x"


async def answer_one(server):
    request = await server.receive()
    await server.send(Response(request.stream_id, request.payload))


async def test_a_request_that_is_too_long_is_not_sent():
    """The call fails, its id is not used up."""
    async with connected(echo) as client:
        with pytest.raises(ResourceExhaustedError):
            await client.call("s", "m", bytes(MAX_LENGTH))
        assert client._connection.next_stream_id == 1
        assert await client.call("s", "m", b"x") == b"x"


async def test_used_up_ids_close_the_connection():
    """2**31 calls fit into one connection; the next one needs another."""
    async with connected(echo) as client:
        client._connection._last_id = 2**32 - 3
        assert await client.call("s", "m", b"last") == b"last"
        await expect_closed(client)
        assert client.closed


async def test_what_the_server_said_before_it_left_is_heard():
    """A write fails, but the answer to an earlier call is there to be read."""
    to_client, from_server = trio.testing.memory_stream_one_way_pair()
    to_server, _ = trio.testing.memory_stream_one_way_pair()
    broken = trio.Event()

    async def send_all(data):
        if broken.is_set():
            raise trio.BrokenResourceError

    to_server.send_all = send_all
    stream = trio.StapledStream(to_server, from_server)
    async with open_client(stream) as client, trio.open_nursery() as nursery:
        nursery.start_soon(expect_answer, client, b"farewell")
        await trio.testing.wait_all_tasks_blocked()
        broken.set()
        nursery.start_soon(expect_closed, client)
        await trio.testing.wait_all_tasks_blocked()
        answer = Connection(Role.SERVER)
        answer.receive_data(Frame(1, 1).encode())
        answer.next_event()
        await to_client.send_all(answer.send(Response(1, b"farewell")))
        await to_client.aclose()


async def test_a_server_that_takes_nothing_and_says_nothing_is_gone(autojump_clock):
    """It has a second for its last words."""
    async with calling() as (client, _):

        async def send_all(data):
            raise trio.BrokenResourceError

        client._stream.send_all = send_all
        await expect_closed(client)
        assert trio.current_time() == 1


async def test_a_server_that_left_a_request_unread_is_gone():
    """The kernel says ECONNRESET then, not EOF."""
    streams = tuple(map(trio.SocketStream, trio.socket.socketpair()))
    async with calling(streams) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(expect_closed, client)
        await trio.lowlevel.wait_readable(server.stream.socket)
        await server.stream.aclose()


async def expect_answer(client, payload):
    assert await client.call("s", "m", b"") == payload


async def test_the_blocks_own_error_comes_out_as_it_is():
    """Not in an ExceptionGroup."""
    with pytest.raises(ValueError, match="mine"):
        async with connected_bare():
            raise ValueError("mine")


@contextlib.asynccontextmanager
async def connected_bare():
    ours, _theirs = trio.testing.memory_stream_pair()
    async with open_client(ours) as client:
        yield client


async def test_a_call_inside_of_a_shield_survives_the_cancellation_around():
    """The last Delete of a block that is being cancelled gets through."""
    ours, theirs = trio.testing.memory_stream_pair()
    answer = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, ours, echo)
        with trio.CancelScope() as outer:
            async with open_client(theirs) as client:
                outer.cancel()
                with trio.CancelScope(shield=True):
                    answer = await client.call("s", "m", b"delete")
                await trio.lowlevel.checkpoint()
        assert outer.cancelled_caught
    assert answer == b"delete"


# ---------------------------------------------------------------- both


async def test_floods_in_both_directions_do_not_deadlock():
    """512 calls of 64 KiB each way through buffers of 4 KiB (containerd/ttrpc#72, #168)."""
    done = 0

    async def call(client, number):
        nonlocal done
        payload = number.to_bytes(2, "big") * 32768
        assert await client.call("s", "m", payload) == payload
        done += 1

    async with connected(echo, narrow_socketpair()) as client, trio.open_nursery() as nursery:
        for number in range(512):
            nursery.start_soon(call, client, number)
    assert done == 512


async def test_nothing_is_left_of_calls_that_have_ended(autojump_clock):
    """Answered, refused, cancelled or late: no table grows (containerd/ttrpc#241)."""

    async def dispatch(request):
        if request.payload == b"late":
            await trio.sleep(2)
        elif request.payload == b"fail":
            raise NotFoundError
        return b""

    async with connected(dispatch) as client:
        for _ in range(100):
            await client.call("s", "m", b"")
            with pytest.raises(NotFoundError):
                await client.call("s", "m", b"fail")
            with pytest.raises(DeadlineExceededError):
                await client.call("s", "m", b"late", timeout=1)
            with trio.CancelScope() as scope:
                scope.cancel()
                await client.call("s", "m", b"never")
        await trio.sleep(3)
        assert client._connection.open_streams == 0
        assert (len(client._calls), len(client._outbox), len(client._tasks.child_tasks)) == (
            0,
            0,
            1,
        )
