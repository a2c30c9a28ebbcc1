"""The protocol without I/O: both roles, every rule, and any garbage."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioshim.errors import Code, ResourceExhaustedError
from trioshim.ttrpc import (
    MAX_LENGTH,
    NEED_DATA,
    BadFrame,
    Connection,
    ConnectionClosed,
    Data,
    Event,
    LocalProtocolError,
    Mode,
    RemoteProtocolError,
    Request,
    Response,
    Role,
)
from trioshim.ttrpc._frames import Frame, FrameType

texts = st.text(max_size=20)
requests = st.builds(
    Request,
    stream_id=st.integers(0, 2**31 - 1).map(lambda n: 2 * n + 1),
    service=texts,
    method=texts,
    payload=st.binary(max_size=100),
    timeout_nano=st.integers(-(2**63), 2**63 - 1),
    metadata=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
    mode=st.sampled_from(Mode),
)
responses = st.builds(
    Response,
    stream_id=st.just(1),
    payload=st.binary(max_size=100),
    code=st.integers(-(2**31), 2**31 - 1),
    message=texts,
    details=st.lists(st.tuples(texts, st.binary(max_size=20)), max_size=3).map(tuple),
)


def pair() -> tuple[Connection, Connection]:
    return Connection(Role.CLIENT), Connection(Role.SERVER)


def events(connection: Connection, *pieces: bytes) -> list[Event]:
    """What the connection makes of these pieces; up to the end, if one of them is the end."""
    found = []
    for piece in pieces:
        connection.receive_data(piece)
        while (event := connection.next_event()) is not NEED_DATA:
            found.append(event)
            if isinstance(event, ConnectionClosed):
                break
    return found


def begin(mode: Mode = Mode.UNARY) -> tuple[Connection, Connection]:
    """A client and a server with one call, 1, between them."""
    client, server = pair()
    events(server, client.send(Request(1, "s", "m", mode=mode)))
    return client, server


# ---------------------------------------------------------------- round trips


@given(requests)
def test_a_request_arrives_as_it_was_sent(request):
    """What a client sends is what the server receives."""
    client, server = pair()
    assert events(server, client.send(request)) == [request]


@given(responses)
def test_a_response_arrives_as_it_was_sent(response):
    """What a server sends is what the client receives."""
    client, server = begin()
    assert events(client, server.send(response)) == [response]
    assert client.open_streams == server.open_streams == 0


@given(st.lists(st.integers(1, 30), max_size=60), st.integers(1, 5))
def test_the_pieces_do_not_matter(sizes, count):
    """Arbitrary chunks give the same events as one."""
    client, server = pair()
    sent = [Request(2 * n + 1, "service", "method", bytes(20 * n)) for n in range(count)]
    data = b"".join(client.send(request) for request in sent)
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    assert events(server, *filter(None, [*pieces, data]), b"") == [*sent, ConnectionClosed()]


def test_byte_by_byte():
    """The smallest pieces are fine too."""
    client, server = pair()
    request = Request(1, "service", "method", bytes(5000))
    data = client.send(request)
    assert events(server, *(data[i : i + 1] for i in range(len(data)))) == [request]


def test_an_empty_success_is_a_frame_of_length_zero():
    """So does Go answer `Empty`."""
    _, server = begin()
    assert server.send(Response(1)) == struct.pack(">IIBB", 0, 1, 2, 0)


def test_a_status_of_code_zero_is_a_success():
    """An absent status and OK mean the same."""
    client, _ = begin()
    status_ok = Frame(1, FrameType.RESPONSE, 0, b"\x0a\x00\x12\x01x").encode()
    assert events(client, status_ok) == [Response(1, b"x")]


def test_replies_may_come_in_any_order():
    """Streams are independent."""
    client, server = pair()
    for stream_id in (1, 3, 5):
        events(server, client.send(Request(stream_id, "s", "m")))
    replies = [Response(5, b"5"), Response(1, b"1"), Response(3, b"3")]
    assert events(client, *map(server.send, replies)) == replies


# ---------------------------------------------------------------- faults of the peer


def test_an_even_id_is_refused():
    """Even ids are the server's, which never uses them."""
    frame = Frame(2, FrameType.REQUEST).encode()
    expected = "StreamID must be odd for client initiated streams"
    assert events(Connection(Role.SERVER), frame) == [BadFrame(2, 3, expected)]


@pytest.mark.parametrize("stream_id", [5, 3])
def test_an_id_that_does_not_increase_is_refused(stream_id):
    """Neither the same id again nor a smaller one; the connection goes on."""
    server = Connection(Role.SERVER)
    events(server, Frame(5, FrameType.REQUEST).encode())
    again = Frame(stream_id, FrameType.REQUEST).encode()
    expected = "StreamID cannot be re-used and must increment"
    assert events(server, again) == [BadFrame(stream_id, 3, expected)]
    assert events(server, Frame(7, FrameType.REQUEST).encode()) == [Request(7, "", "")]


def test_the_answer_to_a_reused_id_leaves_the_first_call_alone():
    """The call that has the id by right is still answered."""
    client, server = begin()
    [bad] = events(server, Frame(1, FrameType.REQUEST).encode())
    refused = Response(1, b"", Code.INVALID_ARGUMENT, bad.message)
    assert events(client, server.send(bad)) == [refused]
    assert server.send(Response(1))


def test_an_undecodable_request_is_refused_and_its_id_is_used():
    """Only that call fails."""
    server = Connection(Role.SERVER)
    [bad] = events(server, Frame(1, FrameType.REQUEST, 0, b"\xff\xff").encode())
    assert (bad.stream_id, bad.code) == (1, Code.INVALID_ARGUMENT)
    assert bad.message.startswith("unmarshal request error: ")
    assert server.open_streams == 0
    assert isinstance(events(server, Frame(1, FrameType.REQUEST).encode())[0], BadFrame)


def test_an_undecodable_response_fails_its_call_only():
    """The framing is intact, so are the other calls."""
    client, _ = begin()
    client.send(Request(3, "s", "m"))
    [bad, good] = events(
        client,
        Frame(1, FrameType.RESPONSE, 0, b"\xff\xff").encode(),
        Frame(3, FrameType.RESPONSE).encode(),
    )
    assert (bad.stream_id, bad.code) == (1, Code.INTERNAL)
    assert good == Response(3)


@pytest.mark.parametrize("role", Role)
def test_an_oversize_body_is_skipped_and_told(role):
    """It is never buffered, and the stream id is there to be answered."""
    connection = Connection(role)
    length = MAX_LENGTH + 1
    assert events(connection, struct.pack(">IIBB", length, 1, 1, 0)) == []
    for _ in range(length // 65_536):
        assert events(connection, bytes(65_536)) == []
        assert connection._decoder.buffered == 0
    [bad] = events(connection, bytes(length % 65_536))
    expected = "message length 4194305 exceed maximum message size of 4194304"
    assert bad == BadFrame(1, Code.RESOURCE_EXHAUSTED, expected)


def test_an_oversize_response_ends_its_call():
    """Nothing else will come for it."""
    client, _ = begin()
    events(client, struct.pack(">IIBB", MAX_LENGTH + 1, 1, 2, 0), bytes(MAX_LENGTH + 1))
    assert client.open_streams == 0


@pytest.mark.parametrize("role", Role)
def test_unknown_types_are_ignored(role):
    """As are the types that only the own role sends."""
    connection = Connection(role)
    own = FrameType.REQUEST if role is Role.CLIENT else FrameType.RESPONSE
    for type_ in (0, 4, 255, own):
        assert events(connection, Frame(1, type_, 0, b"body").encode()) == []


def test_data_for_a_unary_call_is_refused():
    """The Go server crashes on it."""
    client, server = begin()
    data = Frame(1, FrameType.DATA, 0, b"x").encode()
    assert [event.code for event in events(server, data)] == [Code.INVALID_ARGUMENT]
    assert [event.code for event in events(client, data)] == [Code.INTERNAL]
    assert (client.open_streams, server.open_streams) == (0, 1)


@pytest.mark.parametrize("role", Role)
def test_data_for_no_stream_is_refused(role):
    """No such call, or one that has ended."""
    data = Frame(1, FrameType.DATA, 0, b"x").encode()
    expected = BadFrame(1, Code.INVALID_ARGUMENT, "StreamID is no longer active")
    assert events(Connection(role), data) == [expected]


def test_a_reply_to_a_call_that_was_given_up_is_a_bad_frame():
    """The client cancelled; the server could not know."""
    client, server = begin()
    client.abandon(1)
    assert client.open_streams == 0
    [late] = events(client, server.send(Response(1)))
    assert isinstance(late, BadFrame)


# ---------------------------------------------------------------- the end


@pytest.mark.parametrize("role", Role)
def test_the_end_between_frames_is_told_again_and_again(role):
    """`ConnectionClosed` is a state."""
    connection = Connection(role)
    connection.receive_data(b"")
    assert [connection.next_event() for _ in range(2)] == [ConnectionClosed()] * 2


@pytest.mark.parametrize("some", [1, 9, 10, 12])
def test_the_end_inside_of_a_frame_is_an_error(some):
    """In the header or in the body; and it stays one."""
    connection = Connection(Role.SERVER)
    connection.receive_data(Frame(1, 1, 0, b"body").encode()[:some])
    connection.receive_data(b"")
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="middle of a frame"):
            connection.next_event()


def test_the_end_inside_of_an_oversize_body_is_an_error():
    """A frame that is dropped is a frame."""
    connection = Connection(Role.SERVER)
    connection.receive_data(b"\xff" * 50)
    connection.receive_data(b"")
    with pytest.raises(RemoteProtocolError):
        connection.next_event()


def test_what_came_before_the_end_is_told_first():
    """The end takes nothing with it."""
    server = Connection(Role.SERVER)
    server.receive_data(Frame(1, FrameType.REQUEST).encode())
    server.receive_data(b"")
    assert server.next_event() == Request(1, "", "")
    assert server.next_event() == ConnectionClosed()


def test_nothing_comes_after_the_end():
    """Whoever feeds data after the end has mixed up two connections."""
    connection = Connection(Role.SERVER)
    connection.receive_data(b"")
    with pytest.raises(LocalProtocolError):
        connection.receive_data(b"x")


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=10), st.sampled_from(Role))
def test_garbage_is_the_peers_fault_and_nobody_elses(pieces, role):
    """Any bytes give events, or `RemoteProtocolError`."""
    connection = Connection(role)
    try:
        events(connection, *pieces, b"")
    except RemoteProtocolError:
        assert pieces


small_frames = st.builds(
    Frame,
    stream_id=st.integers(0, 8),
    type=st.integers(0, 4),
    flags=st.integers(0, 7),
    body=st.binary(max_size=12),
)


@given(st.lists(small_frames, max_size=20), st.sampled_from(Role))
def test_any_sequence_of_frames_is_survived(frames, role):
    """Well-formed frames are never fatal, and every fault of a client can be answered."""
    connection = Connection(role)
    if role is Role.CLIENT:
        for stream_id, mode in ((1, Mode.UNARY), (3, Mode.REMOTE_OPEN), (5, Mode.REMOTE_CLOSED)):
            connection.send(Request(stream_id, "s", "m", mode=mode))
    found = events(connection, *(frame.encode() for frame in frames), b"")
    assert found[-1] == ConnectionClosed()
    if role is Role.SERVER:
        for event in found:
            if isinstance(event, BadFrame):
                assert connection.send(event)


# ---------------------------------------------------------------- streams


def test_a_stream_in_both_directions():
    """Data flows both ways until each side has said that it is the last."""
    client, server = begin(Mode.REMOTE_OPEN)
    up = [Data(1, b"a"), Data(1, b""), Data(1, None, last=True)]
    down = [Data(1, b"b"), Data(1, b"c", last=True)]
    assert events(server, *map(client.send, up)) == up
    assert events(client, *map(server.send, down)) == down
    assert client.open_streams == server.open_streams == 0


def test_a_response_ends_a_stream():
    """An error, or the one result of a stream of requests."""
    client, server = begin(Mode.REMOTE_OPEN)
    assert events(client, server.send(Response(1, code=5))) == [Response(1, code=5)]
    assert client.open_streams == server.open_streams == 0
    late = Frame(1, FrameType.DATA, 0, b"x").encode()
    assert isinstance(events(server, late)[0], BadFrame)


def test_a_last_message_with_a_body_is_delivered_and_refused():
    """The order is the Go server's."""
    _, server = begin(Mode.REMOTE_OPEN)
    text = "data close message cannot include data"
    found = events(server, Frame(1, FrameType.DATA, 1, b"x").encode())
    assert found == [Data(1, b"x", last=True), BadFrame(1, Code.INVALID_ARGUMENT, text)]


@pytest.mark.parametrize("mode", [Mode.REMOTE_OPEN, Mode.REMOTE_CLOSED])
def test_data_after_the_last_is_refused(mode):
    """Whether the request said it or a data frame."""
    client, server = begin(mode)
    if mode is Mode.REMOTE_OPEN:
        events(server, client.send(Data(1, None, last=True)))
    with pytest.raises(LocalProtocolError):
        client.send(Data(1, b"x"))
    [bad] = events(server, Frame(1, FrameType.DATA, 0, b"x").encode())
    assert bad.code == Code.INVALID_ARGUMENT


# ---------------------------------------------------------------- our own misuse


@pytest.mark.parametrize("stream_id", [0, 2, 1, -1, 2**32 + 1])
def test_a_client_cannot_send_a_bad_id(stream_id):
    """Even, used or out of range; and the refusal uses nothing up."""
    client, _ = begin()
    with pytest.raises(LocalProtocolError):
        client.send(Request(stream_id, "s", "m"))
    assert client.next_stream_id == 3
    assert client.open_streams == 1


@pytest.mark.parametrize(
    ("role", "event"),
    [
        (Role.CLIENT, Response(1)),
        (Role.CLIENT, BadFrame(1, 3, "")),
        (Role.CLIENT, ConnectionClosed()),
        (Role.SERVER, Request(3, "s", "m")),
        (Role.SERVER, ConnectionClosed()),
        (Role.SERVER, Response(3)),
        (Role.SERVER, Data(1, b"x")),
        (Role.CLIENT, Data(1, b"x")),
        (Role.CLIENT, Data(3, b"x")),
    ],
)
def test_what_may_not_be_sent_raises(role, event):
    """Wrong role, no such stream, or data on a unary call; the call goes on."""
    client, server = begin()
    with pytest.raises(LocalProtocolError):
        (client if role is Role.CLIENT else server).send(event)
    assert events(client, server.send(Response(1))) == [Response(1)]


@pytest.mark.parametrize("event", [Data(1, None), Data(1, b"x", last=True)])
def test_data_that_the_server_would_refuse_is_not_sent(event):
    """A frame that says nothing, and a last one with a message."""
    client, _ = begin(Mode.REMOTE_OPEN)
    with pytest.raises(LocalProtocolError):
        client.send(event)


def test_a_call_is_answered_once():
    """The second answer is a bug of the server's."""
    _, server = begin()
    server.send(Response(1))
    with pytest.raises(LocalProtocolError):
        server.send(Response(1))


@pytest.mark.parametrize("text", ["\udcff", b"\xff", 7])
def test_what_the_wire_cannot_hold_is_a_local_error(text):
    """A lone surrogate, as in a file name that is not UTF-8; a value of another type."""
    client, server = begin()
    with pytest.raises(LocalProtocolError):
        client.send(Request(3, text, "m"))
    with pytest.raises(LocalProtocolError):
        server.send(Response(1, code=2, message=text))
    assert server.send(Response(1, code=2, message="said otherwise"))
    assert client.send(Request(3, "s", "m"))


def test_what_is_too_long_is_not_sent_and_changes_nothing():
    """An id is not used up, a call can still be answered."""
    client, server = begin()
    with pytest.raises(ResourceExhaustedError, match="exceed maximum message size"):
        client.send(Request(3, "s", "m", bytes(MAX_LENGTH)))
    assert client.next_stream_id == 3
    with pytest.raises(ResourceExhaustedError):
        server.send(Response(1, bytes(MAX_LENGTH)))
    assert server.send(Response(1, b"shorter"))
