"""One ordered queue of events, and the task that forwards it.

The promises (laws 5 and 6 of the design):

* publisher order is `emit` order, also when the daemon is away: the head of the queue is tried
  again in place, nothing overtakes it, nothing is dropped while the shim lives (P41: Go's shims
  drop after five tries, and their retries overtake each other);
* `emit` does not wait, so a change of state and the event that tells it are one step: no
  cancellation can fall between them;
* at the end the queue is drained, for at most `drain` seconds.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ..abc import Publisher
from ..errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ShimError,
    UnimplementedError,
)
from ..proto import events_pb2 as events
from ..proto.types_pb2 import Envelope

__all__ = ["ZERO_TIME", "Emit", "open_events", "pack", "timestamp"]

Emit = Callable[[Message], None]

log = logging.getLogger("trioshim.events")

# The daemon refused this event for what it is; the next try would end the same.
_REFUSALS = (InvalidArgumentError, NotFoundError, FailedPreconditionError, UnimplementedError)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds

TOPICS: dict[type[Message], str] = {
    events.TaskCreate: "/tasks/create",
    events.TaskStart: "/tasks/start",
    events.TaskDelete: "/tasks/delete",
    events.TaskExit: "/tasks/exit",
    events.TaskOOM: "/tasks/oom",
    events.TaskExecAdded: "/tasks/exec-added",
    events.TaskExecStarted: "/tasks/exec-started",
    events.TaskPaused: "/tasks/paused",
    events.TaskResumed: "/tasks/resumed",
    events.TaskCheckpointed: "/tasks/checkpointed",
}

# What containerd's shims send for "has not ended": Go's zero time.  A field left out is read as
# 1970 by daemons since 1.7.
ZERO_TIME = Timestamp(seconds=-62135596800)


def timestamp(ns: int) -> Timestamp:
    """Nanoseconds since 1970 as a message."""
    seconds, nanos = divmod(ns, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)


def pack(message: Message) -> Any:
    """A message in an Any with containerd's spelling of the type: the bare name."""
    return Any(type_url=message.DESCRIPTOR.full_name, value=message.SerializeToString())


@asynccontextmanager
async def open_events(
    publisher: Publisher, *, namespace: str, now: Callable[[], int], drain: float
) -> AsyncIterator[Emit]:
    """The queue and its forwarder.  Leaving the block drains it for at most `drain` seconds."""
    send, receive = trio.open_memory_channel[Envelope](math.inf)

    def emit(event: Message) -> None:
        send.send_nowait(
            Envelope(
                timestamp=timestamp(now()),  # when it happened, kept over every try
                namespace=namespace,
                topic=TOPICS[type(event)],
                event=pack(event),
            )
        )

    # Shielded: what stops the shim must not stop the news of it.
    patience = trio.CancelScope(shield=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_forward, receive, publisher, patience)
        try:
            yield emit
        finally:
            send.close()
            patience.deadline = trio.current_time() + drain


async def _forward(
    queue: trio.MemoryReceiveChannel[Envelope], publisher: Publisher, patience: trio.CancelScope
) -> None:
    in_hand: Envelope | None = None
    with patience:
        async for envelope in queue:
            in_hand = envelope
            await _deliver(envelope, publisher)
            in_hand = None
    if in_hand is not None:
        lost = 1 + queue.statistics().current_buffer_used
        log.error("%d events were not delivered, the first of them %s", lost, in_hand.topic)
    queue.close()


async def _deliver(envelope: Envelope, publisher: Publisher) -> None:
    pause = _FIRST_PAUSE
    while True:
        try:
            await publisher.publish(envelope)
        except _REFUSALS as error:
            log.error("event %s was refused and is left out: %s", envelope.topic, error)
            return
        except (OSError, ShimError) as error:
            log.warning("event %s waits %.1f s: %s", envelope.topic, pause, error)
        except Exception:
            log.exception("event %s waits %.1f s", envelope.topic, pause)
        else:
            return
        await trio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
