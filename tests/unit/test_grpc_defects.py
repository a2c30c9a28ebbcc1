"""The thirteen defects of purerpc's own server (D1 to D13): none of them reaches our users.

They were measured on purerpc 0.8.0.  One test or more for each; the file is the list:
`pytest tests/unit/test_grpc_defects.py -v`.
"""

from __future__ import annotations

import base64
import logging
import struct
from pathlib import Path

import h2.connection
import pytest
import trio
import trio.testing
from google.protobuf.any_pb2 import Any as AnyMessage
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from trioshim import errors
from trioshim.proto import task_v2_pb2 as api
from trioshim.proto import ttrpc_pb2
from trioshim.rpc import _grpc, _grpc_writer
from trioshim.rpc._grpc_frames import MAX_FRAME
from trioshim.rpc._grpc_wire import MAX_MESSAGE

from .both_wires import Footprint, answers_on_grpc, connections, no_errors_logged, on_a_socket
from .grpc_world import TASK_PATH as TASK
from .grpc_world import Peer, Tasks, open_world
from .test_grpc import raising


def detailed(text: str, *details: AnyMessage) -> errors.ShimError:
    """An error that tells a program more than its text does."""
    pairs = tuple((detail.type_url, detail.value) for detail in details)
    return errors.from_status(errors.Code.NOT_FOUND, text, pairs)


# ---------------------------------------------------------------- D1, D2: the connection


async def test_d1_a_connection_on_a_unix_socket_is_served(tmp_path: Path) -> None:
    """D1: purerpc sets options of TCP on it and dies of EOPNOTSUPP."""
    async with on_a_socket(tmp_path / "s", Tasks()):
        assert await answers_on_grpc(await trio.open_unix_socket(tmp_path / "s"))


@pytest.mark.parametrize(
    "said",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 40,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\1\1\5\0\0\0\1\xff",
        b"P" * 100,
    ],
    ids=["a huge frame", "bad headers", "no preface"],
)
async def test_d2_after_an_error_the_connection_is_closed(tmp_path: Path, said: bytes) -> None:
    """D2: purerpc leaves its fd open, and the client waits for its deadline."""
    async with on_a_socket(tmp_path / "s", Tasks()) as server:
        before = Footprint.now()
        stream = await trio.open_unix_socket(tmp_path / "s")
        await stream.send_all(said)
        while await stream.receive_some():
            pass
        await stream.aclose()
        await connections(server, 0)
        before.check_nothing_more()


# ---------------------------------------------------------------- D3, D4: what a handler raises


async def test_d3_an_exception_is_unknown_with_its_text(caplog: pytest.LogCaptureFixture) -> None:
    """D3: purerpc says CANCELLED, which containerd takes for its own, and shows a traceback."""
    async with open_world() as world:
        world.tasks.answer = raising(LookupError("no such thing"))
        reply = await world.peer.called(f"{TASK}/State")
        assert (reply.code, reply.text) == (errors.Code.UNKNOWN, "no such thing")
        assert "Traceback" in caplog.text  # ours to read, not the client's


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)], ids=["^C", "exit"])
async def test_d4_what_is_no_exception_is_not_swallowed(error: BaseException) -> None:
    """D4: a bare `except` of purerpc eats Cancelled, KeyboardInterrupt and SystemExit."""
    with pytest.RaisesGroup(type(error), flatten_subgroups=True):
        async with open_world() as world:
            world.tasks.answer = raising(error)
            await world.peer.call(f"{TASK}/State")
            await world.ended.wait()


async def test_d4_a_bug_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """D4: purerpc logs a warning of one line."""
    async with open_world() as world:
        world.tasks.answer = raising(AttributeError("a bug"))
        await world.peer.called(f"{TASK}/State")
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "a bug"


# ---------------------------------------------------------------- D5, D6, D7: the end of a call


@pytest.mark.parametrize(
    ("method", "cancelled", "finished"), [("Wait", ["wait"], []), ("Kill", [], ["kill"])]
)
async def test_d5_a_reset_ends_a_read_and_leaves_a_change(
    method: str, cancelled: list[str], finished: list[str]
) -> None:
    """D5: purerpc ignores RST_STREAM; a Wait would last until the container ends."""
    async with open_world() as world:
        stream_id = await world.peer.call(f"{TASK}/{method}")
        await world.tasks.until(lambda: world.tasks.started)
        world.peer.h2.reset_stream(stream_id, ErrorCodes.CANCEL)
        assert await world.peer.still_served()
        world.tasks.go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        assert (world.tasks.cancelled, world.tasks.finished) == (cancelled, finished)


async def test_d6_a_time_limit_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    """D6: purerpc reads grpc-timeout and does nothing with it."""
    async with open_world() as world:
        reply = await world.peer.called(f"{TASK}/Wait", **{"grpc-timeout": "250m"})
        assert (reply.code, trio.current_time()) == (errors.Code.DEADLINE_EXCEEDED, 0.25)


async def test_d7_a_client_that_vanishes_leaves_nothing_that_waits(tmp_path: Path) -> None:
    """D7: purerpc's handlers wait for ever for a window that nobody opens, 20 of 20."""
    tasks = Tasks()
    tasks.answer = lambda: api.StateResponse(id="x" * 100_000)
    async with on_a_socket(tmp_path / "s", tasks) as server:
        before = Footprint.now()
        for _ in range(20):
            peer = Peer(await trio.open_unix_socket(tmp_path / "s"))
            peer.opens_window = False
            peer.h2.initiate_connection()
            replies = peer.replies[await peer.call(f"{TASK}/State")]
            await peer.receive_until(lambda replies=replies: len(replies.body) == 65535)
            await peer.stream.aclose()
        await connections(server, 0)
        before.check_nothing_more()


# ---------------------------------------------------------------- D8, D9, D10: requests


@pytest.mark.parametrize(
    ("code", "request_"),
    [
        (12, {"path": f"{TASK}/State/more"}),
        (3, {"te": ""}),
        (3, {"body": b""}),
        (8, {"body": struct.pack(">BI", 0, MAX_MESSAGE + 1)}),
        (12, {"body": b"\1\0\0\0\1x"}),
    ],
    ids=["path", "no te", "no message", "too large", "compressed"],
)
async def test_d8_a_bad_request_hurts_nobody_but_itself(
    code: int, request_: dict[str, object]
) -> None:
    """D8: one of these kills or wedges a whole connection of purerpc's."""
    async with open_world() as world:
        waiting = await world.peer.call(f"{TASK}/Wait")
        assert (await world.peer.called(**request_)).code == code
        world.tasks.go_on.set()
        assert (await world.peer.reply(waiting)).code == 0


async def test_d9_a_frame_that_is_too_long_is_refused_by_its_header() -> None:
    """D9: 9 bytes are enough to say no; h2 gathers up to 16 MiB before it looks."""
    async with open_world() as world:
        assert await world.peer.still_served()
        header = (MAX_FRAME + 1).to_bytes(3, "big") + b"\0\0\0\0\0\1"
        await world.peer.stream.send_all(header)
        await world.ended.wait()
        await world.peer.receive_rest()
        assert world.peer.goaway == ErrorCodes.FRAME_SIZE_ERROR


async def test_d9_the_limits_are_announced() -> None:
    """D9: purerpc has no limit for messages but 32 MiB, and windows of 64 MiB to a GiB."""
    async with open_world() as world:
        await world.peer.receive_until(lambda: bool(world.peer.settings))
        assert world.peer.settings[SettingCodes.INITIAL_WINDOW_SIZE] == MAX_MESSAGE


async def test_d9_requests_on_their_way_have_a_limit_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """D9: 4096 streams of 4 MiB each, none of them whole, would be 16 GiB."""
    monkeypatch.setattr(_grpc, "_MAX_ARRIVING", 20_000)
    async with open_world() as world:
        part = struct.pack(">BI", 0, 9000) + bytes(7000)
        first, second, third = [await world.peer.call(body=part, end=False) for _ in range(3)]
        assert (await world.peer.reply(third)).code == errors.Code.RESOURCE_EXHAUSTED
        world.peer.h2.reset_stream(second, ErrorCodes.CANCEL)
        assert await world.peer.still_served()
        world.peer.h2.send_data(first, bytes(2000), end_stream=True)  # still welcome
        await world.peer.flush()
        assert (await world.peer.reply(first)).code != errors.Code.RESOURCE_EXHAUSTED
        for _ in range(10):  # and what came whole, was reset or refused does not count
            part = struct.pack(">BI", 0, 7000) + bytes(7000)
            assert (await world.peer.called(body=part)).code == errors.Code.INTERNAL


async def test_d9_replies_wait_for_a_peer_that_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """D9: its window may be 2 GiB; what is encoded and unwritten may not."""
    monkeypatch.setattr(_grpc_writer, "_MUCH", 100_000)
    ours, theirs = trio.testing.memory_stream_pair()
    queued: list[int] = []
    go_on = trio.Event()

    async def write() -> None:
        queued.append(len(ours.send_stream.get_data_nowait()))
        await go_on.wait()

    async with open_world(lambda: (ours, theirs)) as world:
        world.tasks.answer = lambda: api.StateResponse(id="x" * 60_000)
        world.peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
        world.peer.h2.increment_flow_control_window(2**31 - 1 - 65535)
        await world.peer.flush()
        await trio.testing.wait_all_tasks_blocked()
        ours.send_stream.send_all_hook = write
        world.peer.holds = True
        for _ in range(50):
            await world.peer.call(f"{TASK}/State")
        world.peer.holds = False
        await world.peer.flush()
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        assert max(queued) < 300_000  # what had come together, before it could be written
        assert sum(queued) > 50 * 60_000


async def test_d10_gzip_is_answered_properly() -> None:
    """D10: purerpc takes zlib's format for gzip's: the client kills its connection."""
    async with open_world() as world:
        reply = await world.peer.called(body=b"\1\0\0\0\1x", **{"grpc-encoding": "gzip"})
        assert reply.code == errors.Code.UNIMPLEMENTED
        assert reply.headers["grpc-accept-encoding"] == "identity"
        assert await world.peer.still_served()


# ---------------------------------------------------------------- D11: details


async def test_d11_details_go_along() -> None:
    """D11: purerpc cannot send `grpc-status-details-bin`: a google.rpc.Status, base64 unpadded."""
    detail = AnyMessage(type_url="types.example/Why", value=b"\1\2\3")
    async with open_world() as world:
        world.tasks.answer = raising(detailed("container x", detail))
        reply = await world.peer.called(f"{TASK}/State")
        encoded = reply.headers["grpc-status-details-bin"]
        assert "=" not in encoded
        status = ttrpc_pb2.Status.FromString(base64.b64decode(encoded + "=" * (-len(encoded) % 4)))
        assert (status.code, status.message) == (reply.code, reply.text)
        assert list(status.details) == [detail]


async def test_d11_details_that_no_client_takes_are_left_out() -> None:
    """Trailers of more than 8 KiB cost the client the whole reply."""
    detail = AnyMessage(value=bytes(6000))
    async with open_world() as world:
        world.tasks.answer = raising(detailed("container x", detail))
        reply = await world.peer.called(f"{TASK}/State")
        assert reply.text == "container x: not found"
        assert "grpc-status-details-bin" not in reply.headers


async def test_d11_no_details_no_header() -> None:
    """It says nothing that code and text do not say."""
    async with open_world() as world:
        world.tasks.answer = raising(errors.NotFoundError("x"))
        reply = await world.peer.called(f"{TASK}/State")
        assert "grpc-status-details-bin" not in reply.headers


# ---------------------------------------------------------------- D12, D13


async def test_d12_stopping_says_goaway_with_the_last_stream() -> None:
    """D12: purerpc says nothing; a client cannot know which of its requests were heard."""
    async with open_world() as world:
        running = [await world.peer.call(f"{TASK}/Wait") for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked()
        last: list[int] = []

        def note(frame: h2.connection.GoAwayFrame) -> tuple[list[object], list[object]]:
            last.append(frame.last_stream_id)
            return [], []

        world.peer.h2._frame_dispatch_table[h2.connection.GoAwayFrame] = note
        world.reading.cancel()
        world.tasks.go_on.set()
        for stream_id in running:
            assert (await world.peer.reply(stream_id)).code == 0
        await world.peer.receive_rest()
        assert last == [running[-1]]


async def test_d13_an_error_out_of_a_nursery_keeps_its_class() -> None:
    """D13: purerpc makes CANCELLED of a group with one status in it."""
    group = ExceptionGroup("nursery", [ExceptionGroup("inner", [errors.NotFoundError("x")])])
    async with open_world() as world:
        world.tasks.answer = raising(group)
        reply = await world.peer.called(f"{TASK}/State")
        assert (reply.code, reply.text) == (errors.Code.NOT_FOUND, "x: not found")


async def test_all_of_it_is_quiet(tmp_path: Path) -> None:
    """No good call and no bad request is an error in our log."""
    with no_errors_logged():
        async with open_world() as world:
            assert await world.peer.still_served()
            await world.peer.called(te="")
