"""gRPC on our own stream: every reply, every refusal, and when a call is over."""

from __future__ import annotations

import struct

import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from trioshim import errors
from trioshim.proto import task_v2_pb2 as api
from trioshim.rpc import _grpc, _grpc_wire
from trioshim.rpc._grpc_wire import MAX_MESSAGE, MAX_STREAMS

from .grpc_world import ONE_OF_EACH, open_world, raising
from .grpc_world import TASK_PATH as TASK

# ---------------------------------------------------------------- replies


async def test_a_unary_call_is_answered_with_message_and_status() -> None:
    """Headers, one message, trailers."""
    async with open_world() as world:
        request = api.ConnectRequest(id="abc").SerializeToString()
        reply = await world.peer.called(f"{TASK}/Connect", request)
        assert reply.code == 0
        answer = api.ConnectResponse.FromString(reply.message)
        assert (answer.shim_pid, answer.version) == (7, "abc")
        assert reply.headers[":status"] == "200"
        assert reply.headers["content-type"] == "application/grpc"


async def test_a_reply_leaves_in_one_write() -> None:
    """One receive of the peer has all of it (law 10)."""
    async with open_world() as world:
        assert await world.peer.still_served()  # the settings are out of the way
        stream_id = await world.peer.call()
        world.peer.take(await world.peer.stream.receive_some())
        assert world.peer.replies[stream_id].ended


@pytest.mark.parametrize(
    "error",
    [
        *ONE_OF_EACH,
        errors.RuntimeFailedError("100 % wrong:\n“é”, a/b"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_arrives_as_the_class_that_was_raised(error: errors.ShimError) -> None:
    """Code and text go through trailers, percent-encoded, and back."""
    async with open_world() as world:
        world.tasks.answer = raising(error)
        reply = await world.peer.called(f"{TASK}/State")
        assert (reply.code, reply.text) == errors.to_status(error)
        assert reply.headers.get("grpc-message", "").isascii()


async def test_an_unknown_exception_is_unknown_and_never_cancelled() -> None:
    """containerd would take CANCELLED for its own cancellation."""
    async with open_world() as world:
        world.tasks.answer = raising(RuntimeError("boom"))
        reply = await world.peer.called(f"{TASK}/State")
        assert (reply.code, reply.text) == (errors.Code.UNKNOWN, "boom")


async def test_what_a_dispatcher_lets_through_is_answered_too() -> None:
    """A handler that returns no message fails its call, not its connection."""
    async with open_world() as world:
        world.tasks.answer = lambda: None  # type: ignore[assignment,return-value]
        reply = await world.peer.called(f"{TASK}/State")
        assert reply.code == errors.Code.UNKNOWN
        assert await world.peer.still_served()


async def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    """Clients refuse large trailers; they tell classes apart by the end of the text."""
    async with open_world() as world:
        world.tasks.answer = raising(errors.NotFoundError("begin" + "é " * 9000))
        reply = await world.peer.called(f"{TASK}/State")
        assert len(reply.headers["grpc-message"]) < 8000
        assert reply.text.startswith("begin")
        assert reply.text.endswith(": not found")


async def test_a_text_that_is_no_unicode_is_sent_nevertheless() -> None:
    """File names may be any bytes; Python reads them as lone surrogates."""
    async with open_world() as world:
        world.tasks.answer = raising(errors.NotFoundError("/tmp/\udcff"))
        reply = await world.peer.called(f"{TASK}/State")
        assert reply.text == "/tmp/\\udcff: not found"


async def test_a_reply_too_large_for_any_client_is_an_error() -> None:
    """The limit is that of ttrpc."""
    async with open_world() as world:
        world.tasks.answer = lambda: api.StateResponse(id="x" * MAX_MESSAGE)
        reply = await world.peer.called(f"{TASK}/State")
        assert reply.code == errors.Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("path", [f"{TASK}/Dance", "/no.such.Service/State", f"{TASK}/Create"])
async def test_what_nobody_answers_is_unimplemented(path: str) -> None:
    """An unknown service, an unknown method, a method without an implementation."""
    async with open_world() as world:
        assert (await world.peer.called(path)).code == errors.Code.UNIMPLEMENTED
        assert await world.peer.still_served()


async def test_two_hundred_calls_run_at_the_same_time() -> None:
    """None waits for another."""
    async with open_world() as world:
        ids = [await world.peer.call(f"{TASK}/Wait") for _ in range(200)]
        await trio.testing.wait_all_tasks_blocked()
        assert len(world.tasks.started) == 200
        world.tasks.go_on.set()
        for stream_id in ids:
            assert (await world.peer.reply(stream_id)).code == 0


# ---------------------------------------------------------------- bad requests


@pytest.mark.parametrize(
    ("code", "says", "request_"),
    [
        (12, "/service/method", {"path": f"{TASK}/State/more"}),
        (12, "/service/method", {"path": "*"}),
        (12, "/service/method", {"path": ""}),
        (3, "te header", {"te": ""}),
        (3, "te header", {"te": "gzip"}),
        (3, ":scheme", {":scheme": ""}),
        (3, "content-type", {":status": "200", "content-type": ""}),
        (3, "application/grpc", {"content-type": "text/html"}),
        (3, "content-type", {"content-type": ""}),
        (3, ":method", {":method": "GET"}),
        (3, "timeout", {"grpc-timeout": "5x"}),
        (3, "invalid literal", {"grpc-timeout": "S"}),
        (3, "bad or missing header", {"user-bin": "a"}),
        (3, "ended after 0 of 5", {"body": b""}),
        (3, "ended after 3 of 5", {"body": b"\0\0\0"}),
        (3, "ended after 6 of 8", {"body": b"\0\0\0\0\3x"}),
        (3, "more than one message", {"body": b"\0\0\0\0\0" * 2}),
        (12, "uncompressed", {"body": b"\1\0\0\0\1x"}),
        (12, "gzip", {"grpc-encoding": "gzip"}),
        (8, "limit", {"body": struct.pack(">BI", 0, MAX_MESSAGE + 1) + b"x" * 99}),
        (8, "limit", {"body": b"\0\xff\xff\xff\xff", "end": False}),
        (13, "payload", {"body": b"\0\0\0\0\1\xff"}),
    ],
)
async def test_a_bad_request_hurts_nobody_but_itself(
    code: int, says: str, request_: dict[str, object]
) -> None:
    """It is answered on its own stream, in words, and the connection goes on."""
    async with open_world() as world:
        waiting = await world.peer.call(f"{TASK}/Wait")
        reply = await world.peer.called(**request_)
        assert reply.code == code
        assert says in reply.text
        assert await world.peer.still_served()
        world.tasks.go_on.set()
        assert (await world.peer.reply(waiting)).code == 0


async def test_a_refused_client_learns_what_encoding_we_take() -> None:
    """`grpc-accept-encoding` stands in the reply to a compressed request."""
    async with open_world() as world:
        reply = await world.peer.called(**{"grpc-encoding": "gzip"})
        assert reply.headers["grpc-accept-encoding"] == "identity"


async def test_a_client_that_is_refused_is_told_to_stop_sending() -> None:
    """RST_STREAM(NO_ERROR) after the trailers: a gigabyte need not come in to be thrown away."""
    async with open_world() as world:
        stream_id = await world.peer.call(body=b"\0\xff\xff\xff\xff", end=False)
        await world.peer.receive_until(lambda: world.peer.replies[stream_id].reset is not None)
        assert world.peer.replies[stream_id].reset == ErrorCodes.NO_ERROR


async def test_a_header_of_any_bytes_is_no_reason_to_hang_up() -> None:
    """HTTP/2 says nothing about the encoding of values."""
    async with open_world() as world:
        assert (await world.peer.called(**{"x-user": b"\xff"})).code == 0
        assert await world.peer.still_served()


async def test_a_request_larger_than_the_first_window_arrives() -> None:
    """What is received is acknowledged, again and again."""
    async with open_world() as world:
        await world.peer.receive_until(lambda: bool(world.peer.settings))
        for _ in range(8):  # more than the window of the connection in all
            request = api.ConnectRequest(id="x" * (MAX_MESSAGE - 100)).SerializeToString()
            world.peer.h2.max_outbound_frame_size = 16384
            reply = await world.peer.called(f"{TASK}/State", request)
            assert reply.code == 0


async def test_more_streams_than_agreed_are_refused_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The peer may not know the limit yet; those that run go on."""
    monkeypatch.setattr(_grpc, "MAX_STREAMS", 2)
    monkeypatch.setattr(_grpc_wire, "MAX_STREAMS", 2)
    async with open_world() as world:
        for _ in range(3):  # these make room again
            gone = await world.peer.call(body=b"", end=False)
            world.peer.h2.reset_stream(gone, ErrorCodes.CANCEL)
        first = [await world.peer.call(f"{TASK}/Wait") for _ in range(2)]
        reply = await world.peer.called()
        assert reply.code == errors.Code.RESOURCE_EXHAUSTED
        world.tasks.go_on.set()
        assert [(await world.peer.reply(i)).code for i in first] == [0, 0]
        assert await world.peer.still_served()


async def test_the_limits_are_announced() -> None:
    """A client that knows them queues instead of being refused."""
    async with open_world() as world:
        await world.peer.receive_until(lambda: bool(world.peer.settings))
        assert world.peer.settings[SettingCodes.MAX_CONCURRENT_STREAMS] == MAX_STREAMS


# ---------------------------------------------------------------- time and cancellation


async def test_a_deadline_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    """`grpc-timeout` ends a read with DEADLINE_EXCEEDED."""
    async with open_world() as world:
        reply = await world.peer.called(f"{TASK}/Wait", **{"grpc-timeout": "1500m"})
        assert reply.code == errors.Code.DEADLINE_EXCEEDED
        assert trio.current_time() == 1.5
        assert world.tasks.cancelled == ["wait"]


async def test_a_change_outlives_its_deadline(autojump_clock: trio.testing.MockClock) -> None:
    """The caller is told; the work goes on (law 8)."""
    async with open_world() as world:
        reply = await world.peer.called(f"{TASK}/Kill", **{"grpc-timeout": "2S"})
        assert reply.code == errors.Code.DEADLINE_EXCEEDED
        assert world.tasks.cancelled == []
        world.tasks.go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        assert world.tasks.finished == ["kill"]


@pytest.mark.parametrize(("method", "cancelled"), [("Wait", ["wait"]), ("Kill", [])])
async def test_a_reset_ends_a_read_and_not_a_change(method: str, cancelled: list[str]) -> None:
    """RST_STREAM is how a gRPC client leaves (law 8)."""
    async with open_world() as world:
        stream_id = await world.peer.call(f"{TASK}/{method}")
        await trio.testing.wait_all_tasks_blocked()
        world.peer.h2.reset_stream(stream_id, ErrorCodes.CANCEL)
        await world.peer.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert world.tasks.cancelled == cancelled
        world.tasks.go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        assert world.tasks.finished == ([] if cancelled else ["kill"])
        assert await world.peer.still_served()


@pytest.mark.parametrize("te", ["trailers", ""], ids=["good", "bad"])
async def test_a_request_and_its_reset_in_one_packet_are_no_error(te: str) -> None:
    """h2 has closed the stream before we see its request."""
    async with open_world() as world:
        world.peer.holds = True
        stream_id = await world.peer.call(f"{TASK}/Wait", te=te)
        world.peer.h2.reset_stream(stream_id, ErrorCodes.CANCEL)
        world.peer.holds = False
        await world.peer.flush()
        assert await world.peer.still_served()
        assert world.tasks.finished == []


async def test_a_failure_while_being_cancelled_spares_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A handler that raises on its way out is logged, and its connection lives."""
    async with open_world() as world:

        async def fail(go_on: trio.Event) -> None:
            try:
                await go_on.wait()
            finally:
                raise RuntimeError("in the clean-up")

        async def wait(request: api.WaitRequest) -> api.WaitResponse:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail, world.tasks.go_on)
                nursery.start_soon(trio.sleep_forever)
            return api.WaitResponse()

        world.tasks._last_long = wait  # type: ignore[assignment]
        stream_id = await world.peer.call(f"{TASK}/Wait")
        await trio.testing.wait_all_tasks_blocked()
        world.peer.h2.reset_stream(stream_id, ErrorCodes.CANCEL)
        assert await world.peer.still_served()
        assert "failed" in caplog.text
