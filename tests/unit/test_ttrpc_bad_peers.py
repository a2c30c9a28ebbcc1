"""The protocol without I/O, against any garbage: one bad frame costs one call at most."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioshim.errors import Code
from trioshim.ttrpc import (
    MAX_LENGTH,
    BadFrame,
    Connection,
    ConnectionClosed,
    LocalProtocolError,
    Mode,
    RemoteProtocolError,
    Request,
    Response,
    Role,
)
from trioshim.ttrpc._frames import Frame, FrameType

from .ttrpc_pair import begin, events

# ---------------------------------------------------------------- faults of one frame


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


def test_an_oversize_frame_leaves_the_call_with_its_id_alone():
    """On the server the call runs on, and is answered."""
    _, server = begin()
    events(server, struct.pack(">IIBB", MAX_LENGTH + 1, 1, 3, 0), bytes(MAX_LENGTH + 1))
    assert server.send(Response(1))


def test_unknown_flags_are_ignored():
    """A request with them is unary; a data frame that says neither message nor end says nothing."""
    server = Connection(Role.SERVER)
    assert events(server, Frame(1, FrameType.REQUEST, 0xF4).encode()) == [Request(1, "", "")]
    _, server = begin(Mode.REMOTE_OPEN)
    assert events(server, Frame(1, FrameType.DATA, 0xF4).encode()) == []


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


# ---------------------------------------------------------------- anything at all


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
