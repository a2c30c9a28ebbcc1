"""The gRPC client and a server whose replies are wrong: one call is hurt, and is told why."""

from __future__ import annotations

import base64

import h2.connection
import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes

from trioshim import errors
from trioshim.proto.ttrpc_pb2 import Status

from .grpc_client_world import HEAD, OK, answers, calling, framed

# ---------------------------------------------------------------- replies that are wrong

HTML = {":status": "200", "content-type": "text/html"}
WEB = {**HEAD, "content-type": "application/grpc-web"}
BAD_DETAILS = {"grpc-status": "5", "grpc-message": "x", "grpc-status-details-bin": "?"}
BAD_TEXT = {"grpc-status": "5", "grpc-message": "%ff%4"}
BAD_REPLIES = {
    "no message": ((HEAD, None, OK), errors.InternalError, "no message"),
    "no status": ((HEAD, framed(b"x"), None), errors.InternalError, "without a status"),
    "no headers": ((OK, None, None), errors.InternalError, "no message"),
    "bad status": ((HEAD, b"", {"grpc-status": "²"}), errors.InternalError, "malformed status"),
    "huge status": ((HEAD, b"", {"grpc-status": "9" * 5000}), errors.InternalError, "malformed"),
    "unknown status": ((HEAD, b"", {"grpc-status": "99"}), errors.StatusError, "^$"),
    "torn message": ((HEAD, framed(b"abc")[:-1], OK), errors.InternalError, "7 of 8 bytes"),
    "torn prefix": ((HEAD, b"\0\0", OK), errors.InternalError, "after 2 bytes"),
    "two messages": ((HEAD, framed(b"a") * 2, OK), errors.InternalError, "more than one"),
    "compressed": ((HEAD, b"\1" + framed(b"a")[1:], OK), errors.InternalError, "compressed"),
    "too long": ((HEAD, b"\0\0\x40\0\1", None), errors.ResourceExhaustedError, "4194305 bytes"),
    "html": ((HTML, b"<p>", None), errors.StatusError, "text/html"),
    "web": ((WEB, b"", None), errors.StatusError, "web"),
    "502": (({":status": "502"}, b"", None), errors.UnavailableError, "502"),
    "404": (({":status": "404"}, None, None), errors.UnimplementedError, "404"),
    "418": (({":status": "418"}, None, None), errors.StatusError, "418"),
    "length": (({**HEAD, "content-length": "3"}, framed(b"a"), OK), errors.InternalError, "Length"),
    "no number": (({**HEAD, "content-length": "x"}, b"", OK), errors.InternalError, "malformed"),
    "bad details": ((HEAD, b"", BAD_DETAILS), errors.NotFoundError, "^x: not found$"),
    "bad text": ((HEAD, b"", BAD_TEXT), errors.NotFoundError, "^\ufffd%4: not found$"),
}


@pytest.mark.parametrize("name", BAD_REPLIES)
async def test_a_bad_reply_hurts_one_call(name: str) -> None:
    """It says what is wrong; another call and the connection do not notice."""
    (head, body, end), error, text = BAD_REPLIES[name]
    async with calling() as (client, server), answers(client) as calls:
        await calls.start("good", b"good")
        await calls.start("bad", b"bad")
        await server.until(lambda: 3 in server.asked and server.asked[3].ended)
        await server.say(3, head, body, end)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(error, match=text):
            raise calls.came["bad"]  # type: ignore[misc]  # bytes would fail the test
        await server.answer(1, b"x")
        await trio.testing.wait_all_tasks_blocked()
        assert calls.came["good"] == b"x"
        assert not client.closed


@pytest.mark.parametrize("trailers", [False, True])
async def test_frames_in_the_wrong_order_hurt_one_call(trailers: bool) -> None:
    """Data before the headers; headers, headers again and no end."""
    async with calling() as (client, server), answers(client) as calls:
        await calls.start("bad")
        stream_id = await server.request()
        if trailers:
            server.h2.send_headers(stream_id, list(HEAD.items()))
            await server.flush()
            frame = h2.connection.HeadersFrame(stream_id, server.h2.encoder.encode(OK))
            frame.flags.add("END_HEADERS")
        else:
            frame = h2.connection.DataFrame(stream_id, b"x")
        await server.stream.send_all(frame.serialize())
        await calls.start("next")
        assert isinstance(calls.came["bad"], errors.InternalError)
        server.asked.pop(stream_id, None)
        await server.answer(await server.request())


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (ErrorCodes.REFUSED_STREAM, errors.UnavailableError),
        (ErrorCodes.CANCEL, errors.StatusError),
        (ErrorCodes.ENHANCE_YOUR_CALM, errors.ResourceExhaustedError),
        (ErrorCodes.INTERNAL_ERROR, errors.InternalError),
        (77, errors.InternalError),
    ],
)
async def test_a_reset_is_an_answer(code: int, error: type[errors.ShimError]) -> None:
    """REFUSED_STREAM says that nothing was begun, so trying again may help."""
    async with calling() as (client, server), answers(client) as calls:
        await calls.start("one")
        server.h2.reset_stream(await server.request(), code)
        await server.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert type(calls.came["one"]) is error


async def test_the_text_of_the_details_counts_more() -> None:
    """If they are of the same code: the plain text may have been shortened for the header."""
    async with calling() as (client, server), answers(client) as calls:
        for code, message in ((5, "all of it"), (6, "another story")):
            details = base64.b64encode(Status(code=code, message=message).SerializeToString())
            end = {"grpc-status": "5", "grpc-message": "some"}
            end["grpc-status-details-bin"] = details.rstrip(b"=").decode()
            await calls.start(message)
            await server.say(await server.request(), HEAD, b"", end)
        await trio.testing.wait_all_tasks_blocked()
        assert [str(error) for error in calls.came.values()] == [
            "all of it: not found",
            "some: not found",
        ]


async def test_a_late_window_update_is_not_the_end() -> None:
    """Servers send it for a stream that is closed, when the application has read the request."""
    async with calling() as (client, server), answers(client) as calls:
        for name in ("one", "two"):  # a new stream makes h2 forget the closed one
            await calls.start(name)
            await server.answer(await server.request())
        frame = h2.connection.WindowUpdateFrame(1)
        frame.window_increment = 1000
        await server.stream.send_all(frame.serialize())
        await calls.start("three")
        await server.answer(await server.request())
        await trio.testing.wait_all_tasks_blocked()
        assert calls.came == {"one": b"", "two": b"", "three": b""}
