"""MemoryPublisher: a daemon that writes events down, and can be away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio
from google.protobuf.message import Message

from ..abc import Publisher
from ..errors import UnavailableError
from ..proto import events_pb2

if TYPE_CHECKING:
    from ..proto.types_pb2 import Envelope

__all__ = ["MemoryPublisher", "unpack"]


class MemoryPublisher(Publisher):
    """`Publisher` into a list.

    Args:
        step: awaited before each delivery: takes time, or fails.

    Attributes:
        envelopes: what was delivered, in order.
        away: while true, every delivery fails with UNAVAILABLE.
        closed: `aclose` was called; nothing can be published any more.
    """

    def __init__(self, *, step: Callable[[], Awaitable[None]] | None = None) -> None:
        self.envelopes: list[Envelope] = []
        self.away = False
        self.closed = False
        self._step = step

    async def publish(self, envelope: Envelope) -> None:
        await trio.lowlevel.checkpoint()
        if self._step is not None:
            await self._step()
        if self.closed:
            raise UnavailableError("the publisher is closed")
        if self.away:
            raise UnavailableError("the daemon is away")
        delivered = type(envelope)()
        delivered.CopyFrom(envelope)
        self.envelopes.append(delivered)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed = True

    @property
    def events(self) -> list[Message]:
        """The events themselves."""
        return [unpack(envelope) for envelope in self.envelopes]


def unpack(envelope: Envelope) -> Message:
    """The event in an envelope.

    Raises:
        KeyError: not an event of `containerd.events`.
    """
    name = envelope.event.type_url.rpartition("/")[2].rpartition(".")[2]
    if name not in events_pb2.DESCRIPTOR.message_types_by_name:
        raise KeyError(f"{envelope.event.type_url!r} is not an event of containerd.events")
    cls: type[Message] = getattr(events_pb2, name)
    return cls.FromString(envelope.event.value)
