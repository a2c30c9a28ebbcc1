"""What every `Publisher` promises, as cases that know only the port and the daemon behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pytest
import trio

from trioshim.abc import Publisher
from trioshim.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    ShimError,
    UnavailableError,
)
from trioshim.proto.types_pb2 import Envelope

NOT_NOW = (OSError, UnavailableError, DeadlineExceededError)


class Daemon(Protocol):
    """The other side.  It is there when a case begins."""

    received: list[Envelope]

    async def leave(self) -> None:
        """Nobody listens any more, and connections end."""
        ...

    async def come_back(self) -> None: ...

    def refuse(self, error: ShimError) -> None:
        """Answer the next event with this, and do not keep it."""
        ...

    def stall(self) -> trio.Event:
        """Keep no event before this is set."""
        ...


def event(topic: str) -> Envelope:
    envelope = Envelope(namespace="default", topic=topic)
    envelope.timestamp.seconds = 1
    envelope.event.type_url = "containerd.events.TaskExit"
    return envelope


def topics(daemon: Daemon) -> list[str]:
    return [envelope.topic for envelope in daemon.received]


async def check_the_order_is_kept(publisher: Publisher, daemon: Daemon) -> None:
    """Each is delivered once, whole, and before the next."""
    sent = [event(f"/tasks/{number}") for number in range(50)]
    for number, envelope in enumerate(sent, 1):
        await publisher.publish(envelope)
        assert len(daemon.received) == number
    assert daemon.received == sent


async def check_what_is_delivered_does_not_change(publisher: Publisher, daemon: Daemon) -> None:
    """The caller may use its envelope for another event."""
    envelope = event("/first")
    await publisher.publish(envelope)
    envelope.topic = "/second"
    await publisher.publish(envelope)
    assert topics(daemon) == ["/first", "/second"]


async def check_a_daemon_that_is_away(publisher: Publisher, daemon: Daemon) -> None:
    """From the beginning: the caller is told, nothing is kept, and a retry delivers it once."""
    await daemon.leave()
    for _ in range(2):
        with pytest.raises(NOT_NOW):
            await publisher.publish(event("/a"))
    assert daemon.received == []
    await daemon.come_back()
    await publisher.publish(event("/a"))
    assert topics(daemon) == ["/a"]


async def check_a_daemon_that_restarts(publisher: Publisher, daemon: Daemon) -> None:
    """What it got before stays delivered; what it missed is delivered by the retry, once."""
    await publisher.publish(event("/a"))
    await daemon.leave()
    with pytest.raises(NOT_NOW):
        await publisher.publish(event("/b"))
    await daemon.come_back()
    await publisher.publish(event("/b"))
    await publisher.publish(event("/c"))
    assert topics(daemon) == ["/a", "/b", "/c"]


async def check_a_refused_event(publisher: Publisher, daemon: Daemon) -> None:
    """The daemon's own class and text; it is not kept, and the next one is."""
    daemon.refuse(InvalidArgumentError("no such topic"))
    with pytest.raises(InvalidArgumentError, match="no such topic"):
        await publisher.publish(event("/bad"))
    await publisher.publish(event("/good"))
    assert topics(daemon) == ["/good"]


async def check_an_unavailable_answer(publisher: Publisher, daemon: Daemon) -> None:
    """Not now: a retry delivers it once."""
    daemon.refuse(UnavailableError("starting"))
    with pytest.raises(UnavailableError):
        await publisher.publish(event("/a"))
    await publisher.publish(event("/a"))
    assert topics(daemon) == ["/a"]


async def check_a_cancelled_publish(publisher: Publisher, daemon: Daemon) -> None:
    """It ends at once; the event comes once or never, and the next one comes."""
    go = daemon.stall()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.publish, event("/cancelled"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert daemon.received == []
    go.set()
    await publisher.publish(event("/next"))
    assert topics(daemon).count("/next") == 1
    assert topics(daemon).count("/cancelled") <= 1


async def check_a_closed_publisher(publisher: Publisher, daemon: Daemon) -> None:
    """It publishes nothing more, and closing it again is no error."""
    await publisher.publish(event("/a"))
    await publisher.aclose()
    await publisher.aclose()
    with pytest.raises(UnavailableError, match="closed"):
        await publisher.publish(event("/b"))
    assert topics(daemon) == ["/a"]


CASES: tuple[Callable[[Publisher, Daemon], object], ...] = tuple(
    case for name, case in globals().items() if name.startswith("check_")
)
