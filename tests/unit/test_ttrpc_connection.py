"""The protocol without I/O: what one side says the other hears, and nonsense is not said."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioshim.errors import Code, ResourceExhaustedError
from trioshim.ttrpc import (
    MAX_LENGTH,
    BadFrame,
    ConnectionClosed,
    Data,
    LocalProtocolError,
    Mode,
    Request,
    Response,
    Role,
)
from trioshim.ttrpc._frames import Frame, FrameType

from .ttrpc_pair import begin, events, pair

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
