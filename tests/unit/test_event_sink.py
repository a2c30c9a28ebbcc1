"""The event sink: whoever subscribed hears everything, typed, in the order of its coming."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import trio
import trio.testing
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from trioshim.client import Event, EventSink, open_event_sink
from trioshim.errors import InvalidArgumentError, ShimError, UnimplementedError
from trioshim.proto import events_pb2
from trioshim.proto.types_pb2 import Envelope
from trioshim.publisher import open_publisher
from trioshim.ttrpc import open_client

from .fds import open_fds

SERVICE = "containerd.services.events.ttrpc.v1.Events"


def envelope(topic: str = "/tasks/exit", message: Message | None = None) -> Envelope:
    said = message or events_pb2.TaskExit(container_id="c1", id="c1", pid=7, exit_status=3)
    sent = Envelope(topic=topic, namespace="n")
    sent.timestamp.seconds, sent.timestamp.nanos = 5, 7
    sent.event.type_url = said.DESCRIPTOR.full_name
    sent.event.value = said.SerializeToString()
    return sent


async def tell(sink: EventSink, *envelopes: Envelope) -> None:
    """Be a shim with something to say."""
    async with open_publisher(sink.address) as publisher:
        for each in envelopes:
            await publisher.publish(each)


async def call(sink: EventSink, service: str, method: str, payload: bytes) -> bytes:
    async with open_client(await trio.open_unix_socket(sink.address)) as client:
        return await client.call(service, method, payload)


async def test_an_event_arrives_with_its_own_type() -> None:
    """What the shim packed is unpacked, and the envelope's fields are beside it."""
    async with open_event_sink() as sink, sink.subscribe() as events:
        await tell(sink, envelope())
        event = await events.receive()
    exit_ = events_pb2.TaskExit(container_id="c1", id="c1", pid=7, exit_status=3)
    assert event == Event("/tasks/exit", "n", 5_000_000_007, exit_)


@pytest.mark.parametrize(
    ("type_url", "value"),
    [
        ("example.com/Shout", b"\x0a\x01x"),
        ("other.TaskExit", b""),
        ("containerd.events.TaskShout", b""),
        ("containerd.events.TaskExit", b"\xff"),
    ],
)
async def test_what_cannot_be_unpacked_comes_as_it_is(type_url: str, value: bytes) -> None:
    """A shim may tell of things that containerd has no word for, and does not fail by it."""
    sent = envelope()
    sent.event.CopyFrom(Any(type_url=type_url, value=value))
    async with open_event_sink() as sink, sink.subscribe() as events:
        await tell(sink, sent)
        assert (await events.receive()).message == sent.event


async def test_a_type_url_may_have_a_host() -> None:
    """Both spellings of a type are in use."""
    sent = envelope()
    sent.event.type_url = f"type.googleapis.com/{sent.event.type_url}"
    async with open_event_sink() as sink, sink.subscribe() as events:
        await tell(sink, sent)
        assert isinstance((await events.receive()).message, events_pb2.TaskExit)


async def test_a_slow_subscriber_loses_nothing_and_keeps_nobody() -> None:
    """All is taken before the first one is read, and the order is that of the shim."""
    topics = [f"/tasks/{number}" for number in range(200)]
    async with open_event_sink() as sink, sink.subscribe() as events:
        await tell(sink, *(envelope(topic) for topic in topics))
        sink.close()
        assert [event.topic async for event in events] == topics


async def test_each_subscriber_hears_all_from_its_beginning_on() -> None:
    """One that comes late hears only what is new, one that leaves disturbs nobody."""
    async with open_event_sink() as sink, sink.subscribe() as first:
        await tell(sink, envelope("/a"))
        async with sink.subscribe() as second:
            await tell(sink, envelope("/b"))
            assert (await second.receive()).topic == "/b"
        await tell(sink, envelope("/c"))
        sink.close()
        assert [event.topic async for event in first] == ["/a", "/b", "/c"]
        with pytest.raises(trio.ClosedResourceError):
            second.receive_nowait()


async def test_the_end_of_the_sink_ends_the_iteration() -> None:
    """A reader in another task gets what has come, and does not wait for ever."""
    heard: list[str] = []

    async def listen(sink: EventSink, *, task_status: trio.TaskStatus[None]) -> None:
        async with sink.subscribe() as events:
            task_status.started()
            heard.extend([event.topic async for event in events])

    async with trio.open_nursery() as nursery, open_event_sink() as sink:
        await nursery.start(listen, sink)
        await tell(sink, envelope("/a"))
    assert heard == ["/a"]
    async with sink.subscribe() as late:
        assert [event async for event in late] == []


async def test_the_socket_is_for_its_owner_alone_and_goes_with_the_block() -> None:
    """0600 in a directory of 0700; nothing of it is left, no descriptor either."""
    before = open_fds()
    async with open_event_sink() as sink:
        directory = Path(sink.address).parent
        assert stat.S_IMODE(os.stat(sink.address).st_mode) == 0o600
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        await tell(sink, envelope())
    assert not directory.exists()
    assert open_fds() == before


async def test_a_path_can_be_chosen(tmp_path: Path) -> None:
    """Only the socket is made there, and only it is removed."""
    async with open_event_sink(tmp_path / "e") as sink:
        assert sink.address == str(tmp_path / "e")
        assert stat.S_IMODE(os.stat(sink.address).st_mode) == 0o600
    assert os.listdir(tmp_path) == []


async def test_a_taken_path_is_refused_and_left_alone(tmp_path: Path) -> None:
    """It may be somebody's."""
    (tmp_path / "e").write_text("mine")
    before = open_fds()
    with pytest.raises(OSError, match="in use"):
        async with open_event_sink(tmp_path / "e"):
            raise AssertionError
    assert (tmp_path / "e").read_text() == "mine"
    assert open_fds() == before


async def test_a_path_that_is_too_long_says_what_to_do(tmp_path: Path) -> None:
    """The kernel's own words do not name the limit."""
    with pytest.raises(ValueError, match="use a shorter path"):
        async with open_event_sink(tmp_path / ("e" * 108)):
            raise AssertionError


@pytest.mark.parametrize(
    ("service", "method", "payload", "error"),
    [
        (SERVICE, "Publish", b"", UnimplementedError),
        ("containerd.Other", "Forward", b"", UnimplementedError),
        (SERVICE, "Forward", b"\xff", InvalidArgumentError),
        (SERVICE, "Forward", b"", InvalidArgumentError),
    ],
)
async def test_what_is_no_event_is_refused(
    service: str, method: str, payload: bytes, error: type[ShimError]
) -> None:
    """The caller is told; nobody hears of it, and the next event is taken."""
    async with open_event_sink() as sink, sink.subscribe() as events:
        with pytest.raises(error):
            await call(sink, service, method, payload)
        await tell(sink, envelope("/next"))
        assert (await events.receive()).topic == "/next"


async def test_what_is_said_while_the_block_ends_is_heard() -> None:
    """A cancellation ends the block, not the sink: shims that are being stopped still talk."""
    with trio.CancelScope() as scope:
        async with open_event_sink() as sink, sink.subscribe() as events:
            try:
                scope.cancel()
                await trio.lowlevel.checkpoint()
            finally:
                with trio.CancelScope(shield=True):
                    await tell(sink, envelope("/last"))
                    last = await events.receive()
    assert scope.cancelled_caught
    assert last.topic == "/last"


async def test_shims_talk_at_the_same_time() -> None:
    """The order of each is kept."""
    async with open_event_sink() as sink, sink.subscribe() as events:
        async with trio.open_nursery() as nursery:
            for shim in ("a", "b"):
                nursery.start_soon(tell, sink, *(envelope(f"/{shim}/{n}") for n in range(20)))
        sink.close()
        topics = [event.topic async for event in events]
    for shim in ("a", "b"):
        own = [topic for topic in topics if topic.startswith(f"/{shim}/")]
        assert own == [f"/{shim}/{n}" for n in range(20)]
