"""Events reach the daemon, or the caller is told; a daemon that restarts is found again."""

import contextlib
import logging
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from trioshim.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    ShimError,
    StatusError,
    UnavailableError,
)
from trioshim.proto.events_service_pb2 import ForwardRequest
from trioshim.proto.types_pb2 import Envelope
from trioshim.publisher import open_publisher
from trioshim.ttrpc import Request, serve_connection


class Daemon:
    """A daemon in memory: what `trio.open_unix_socket` connects to."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.paths: list[str] = []
        self.connections: list[trio.abc.Stream] = []
        self.errors: list[ShimError] = []
        self.reachable = True
        self.deaf = self.silent = self.refusing = False
        self.nursery: trio.Nursery | None = None

    async def open_unix_socket(self, path: str) -> trio.abc.Stream:
        self.paths.append(path)
        if not self.reachable:
            await trio.sleep_forever()
        if self.refusing:
            raise ConnectionRefusedError(path)
        pair = trio.testing.lockstep_stream_pair if self.deaf else trio.testing.memory_stream_pair
        ours, theirs = pair()
        self.connections.append(theirs)
        if not self.deaf:
            self.nursery.start_soon(serve_connection, theirs, self.dispatch)
        return ours

    async def dispatch(self, request: Request) -> bytes:
        self.requests.append(request)
        if self.silent:
            await trio.sleep_forever()
        if self.errors:
            raise self.errors.pop()
        return b""

    async def leave(self) -> None:
        """End every connection."""
        for stream in self.connections:
            await stream.aclose()

    @property
    def topics(self) -> list[str]:
        forwards = (ForwardRequest.FromString(request.payload) for request in self.requests)
        return [forward.envelope.topic for forward in forwards]


@pytest.fixture
async def daemon(monkeypatch, nursery) -> AsyncIterator[Daemon]:
    daemon = Daemon()
    daemon.nursery = nursery
    monkeypatch.setattr(trio, "open_unix_socket", daemon.open_unix_socket)
    return daemon


def event(topic: str = "/tasks/exit") -> Envelope:
    envelope = Envelope(namespace="default", topic=topic)
    envelope.timestamp.seconds = 1
    envelope.event.type_url = "containerd.events.TaskExit"
    return envelope


async def test_an_event_is_one_forward_call(daemon):
    """With the names, the deadline and the metadata that containerd's shims use."""
    async with open_publisher("/run/d.ttrpc") as publisher:
        await publisher.publish(event())
    [request] = daemon.requests
    assert request.service == "containerd.services.events.ttrpc.v1.Events"
    assert request.method == "Forward"
    assert request.timeout_nano == 5_000_000_000
    assert request.metadata == (("containerd-namespace-ttrpc", "default"),)
    assert ForwardRequest.FromString(request.payload).envelope == event()


@pytest.mark.parametrize("address", ["/run/d.ttrpc", "unix:///run/d.ttrpc"])
async def test_the_address_is_a_path_or_a_url(daemon, address):
    """The daemon gives the one, people write the other."""
    async with open_publisher(address) as publisher:
        await publisher.publish(event())
    assert daemon.paths == ["/run/d.ttrpc"]


async def test_another_kind_of_address_is_refused():
    """At once, not at the first event."""
    with pytest.raises(InvalidArgumentError, match="vsock://2:1"):
        async with open_publisher("vsock://2:1"):
            raise AssertionError


async def test_without_a_daemon_events_are_only_logged(daemon, caplog):
    """An empty address: a shim that a person started."""
    caplog.set_level(logging.DEBUG, "trioshim.publisher")
    async with open_publisher("") as publisher:
        await publisher.publish(event("/tasks/oom"))
    assert daemon.paths == []
    assert "/tasks/oom" in caplog.text


async def test_one_connection_serves_all_events(daemon):
    """It is made by the first event, not earlier."""
    async with open_publisher("/d") as publisher:
        assert daemon.paths == []
        for number in range(3):
            await publisher.publish(event(f"/tasks/{number}"))
    assert daemon.topics == ["/tasks/0", "/tasks/1", "/tasks/2"]
    assert len(daemon.paths) == 1


async def test_a_daemon_that_restarted_is_found_again(daemon):
    """Without the caller's help."""
    async with open_publisher("/d") as publisher:
        await publisher.publish(event("/a"))
        await daemon.leave()
        await trio.testing.wait_all_tasks_blocked()
        await publisher.publish(event("/b"))
    assert daemon.topics == ["/a", "/b"]
    assert len(daemon.paths) == 2


async def test_a_connection_that_ends_under_a_call_is_made_anew_once(daemon, nursery):
    """The event is sent again at once; if that fails too, the caller is told."""
    daemon.silent = True
    async with open_publisher("/d") as publisher:
        failed = trio.Event()
        nursery.start_soon(expect_unavailable, publisher, failed)
        for expected in ([1], [1, 1]):
            await trio.testing.wait_all_tasks_blocked()
            assert not failed.is_set()
            assert len(daemon.requests) == len(expected)
            await daemon.connections[-1].aclose()
        await failed.wait()
    assert len(daemon.paths) == 2


async def expect_unavailable(publisher, failed):
    with pytest.raises(UnavailableError):
        await publisher.publish(event())
    failed.set()


async def test_each_attempt_has_a_deadline_of_its_own(daemon, nursery, autojump_clock):
    """A retry under a spent deadline could only fail (containerd#4400)."""
    daemon.silent = True

    async def leave_after(seconds):
        await trio.sleep(seconds)
        await daemon.connections[-1].aclose()

    async with open_publisher("/d") as publisher:
        nursery.start_soon(leave_after, 4)
        with pytest.raises(DeadlineExceededError):
            await publisher.publish(event())
    assert trio.current_time() == 9
    assert [request.timeout_nano for request in daemon.requests] == [5_000_000_000] * 2


async def test_a_daemon_that_does_not_answer(daemon, autojump_clock):
    """5 seconds; the connection stays for the next try."""
    daemon.silent = True
    async with open_publisher("/d") as publisher:
        with pytest.raises(DeadlineExceededError):
            await publisher.publish(event("/a"))
        assert trio.current_time() == 5
        daemon.silent = False
        await publisher.publish(event("/a"))
    assert daemon.topics == ["/a", "/a"]
    assert len(daemon.paths) == 1


async def test_a_daemon_that_does_not_read(daemon, autojump_clock, caplog):
    """5 seconds, then another connection is tried by the next event."""
    daemon.deaf = True
    async with open_publisher("/d") as publisher:
        with pytest.raises((DeadlineExceededError, UnavailableError)):
            await publisher.publish(event("/a"))
        daemon.deaf = False
        await publisher.publish(event("/b"))
    assert daemon.topics == ["/b"]


async def test_a_connect_that_hangs(daemon, autojump_clock):
    """5 seconds, and the address is in the message."""
    daemon.reachable = False
    async with open_publisher("/d") as publisher:
        with pytest.raises(DeadlineExceededError, match="connect to /d"):
            await publisher.publish(event())
        assert trio.current_time() == 5


async def test_an_unreachable_daemon_is_an_os_error(daemon):
    """And once it is there, events flow."""
    daemon.refusing = True
    async with open_publisher("/d") as publisher:
        with pytest.raises(ConnectionRefusedError):
            await publisher.publish(event())
        daemon.refusing = False
        await publisher.publish(event())
    assert len(daemon.requests) == 1


@pytest.mark.parametrize(
    "error", [InvalidArgumentError("topic"), UnavailableError("busy"), StatusError("odd")]
)
async def test_the_daemons_refusal_is_told_and_not_retried(daemon, error):
    """Also UNAVAILABLE, if the connection stands."""
    daemon.errors = [error]
    async with open_publisher("/d") as publisher:
        with pytest.raises(type(error), match=str(error)):
            await publisher.publish(event())
    assert len(daemon.requests) == 1


async def test_events_at_the_same_time_share_one_connection(daemon, nursery):
    """The second waits for the connection that the first makes."""
    async with open_publisher("/d") as publisher, trio.open_nursery() as tasks:
        for number in range(5):
            tasks.start_soon(publisher.publish, event(f"/{number}"))
    assert len(daemon.requests) == 5
    assert len(daemon.paths) == 1


@pytest.mark.parametrize("state", ["unreachable", "deaf", "silent"])
async def test_a_cancelled_publish_leaves_a_working_publisher(daemon, state):
    """Cancelled while it connects, writes or waits; the next event gets through."""
    daemon.reachable = state != "unreachable"
    daemon.deaf = state == "deaf"
    daemon.silent = state == "silent"
    async with open_publisher("/d") as publisher:
        async with trio.open_nursery() as tasks:
            tasks.start_soon(publisher.publish, event("/a"))
            await trio.testing.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        daemon.reachable, daemon.silent = True, False
        if daemon.deaf:
            daemon.deaf = False
            daemon.nursery.start_soon(serve_connection, daemon.connections[0], daemon.dispatch)
        await publisher.publish(event("/b"))
    assert daemon.topics[-1] == "/b"


async def test_the_last_events_of_a_cancelled_shim_get_through(daemon):
    """The queue drains inside of a shield; the connection lives until the block ends."""
    with trio.CancelScope() as outer:
        async with open_publisher("/d") as publisher:
            await publisher.publish(event("/a"))
            outer.cancel()
            with trio.CancelScope(shield=True):
                await publisher.publish(event("/b"))
                await daemon.leave()
                await publisher.publish(event("/c"))
            await trio.lowlevel.checkpoint()
    assert outer.cancelled_caught
    assert daemon.topics == ["/a", "/b", "/c"]


async def test_a_closed_publisher_says_so(daemon):
    """After the block, or after `aclose`; its connection is closed."""
    async with open_publisher("/d") as publisher:
        await publisher.publish(event())
        await publisher.aclose()
        await publisher.aclose()
        assert await ended(daemon.connections[0])
        with pytest.raises(UnavailableError, match="publisher is closed"):
            await publisher.publish(event())
    with contextlib.suppress(ValueError):
        async with open_publisher("/d") as publisher:
            raise ValueError
    with pytest.raises(UnavailableError, match="publisher is closed"):
        await publisher.publish(event())


async def ended(stream) -> bool:
    await trio.testing.wait_all_tasks_blocked()
    try:
        await stream.send_all(b"x")
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return True
    return False


async def test_over_a_real_socket(tmp_path):
    """The one thing that the daemon in memory cannot show: the path is connected to."""
    path = str(tmp_path / "events.ttrpc")
    seen = []

    async def dispatch(request):
        seen.append(request.method)
        return b""

    with trio.socket.socket(trio.socket.AF_UNIX) as listener:
        await listener.bind(path)
        listener.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_next, listener, dispatch)
            async with open_publisher(f"unix://{path}") as publisher:
                await publisher.publish(event())
    assert seen == ["Forward"]
    async with open_publisher(f"{path}.nobody") as publisher:
        with pytest.raises(FileNotFoundError):
            await publisher.publish(event())


async def serve_next(listener, dispatch):
    connection, _ = await listener.accept()
    await serve_connection(trio.SocketStream(connection), dispatch)
