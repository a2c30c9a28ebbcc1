"""The queue of events: order, retries in place, refusals, and the last seconds."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import trio
import trio.testing
from google.protobuf.message import Message
from trio.testing import MockClock

from trioshim.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ShimError,
    UnavailableError,
    UnimplementedError,
)
from trioshim.proto import events_pb2 as events
from trioshim.proto.types_pb2 import Envelope
from trioshim.task import open_events
from trioshim.testing import MemoryPublisher, unpack

# By hand, from containerd's topics.
TOPICS = {
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


class Daemon:
    """Says what happens to each try, one after the other, and then takes everything."""

    def __init__(self, *answers: Exception) -> None:
        self.answers = list(answers)
        self.publisher = MemoryPublisher(step=self.step)
        self.tries: list[float] = []

    async def step(self) -> None:
        self.tries.append(trio.current_time())
        if self.answers:
            raise self.answers.pop(0)

    @property
    def ids(self) -> list[str]:
        return [event.container_id for event in self.publisher.events]


def stamps() -> Iterator[int]:
    """A clock that tells another second each time it is looked at."""
    for second in range(1, 1_000_000):
        yield second * 10**9 + 7


def opened(publisher: object, *, drain: float = 5.0):
    clock = stamps()
    return open_events(publisher, namespace="ns", now=lambda: next(clock), drain=drain)


def start(id_: str) -> Message:
    return events.TaskStart(container_id=id_, pid=1)


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == level]


async def test_events_come_in_the_order_in_which_they_were_emitted() -> None:
    """All of them, by the time the block is left."""
    daemon = Daemon()
    async with opened(daemon.publisher) as emit:
        for number in range(100):
            emit(start(str(number)))
    assert daemon.ids == [str(number) for number in range(100)]


async def test_a_failed_event_is_tried_again_in_its_place(autojump_clock: MockClock) -> None:
    """Nothing overtakes it, however the failure looks."""
    failures = [OSError(111, "refused"), UnavailableError(), DeadlineExceededError()]
    daemon = Daemon(*failures)
    async with opened(daemon.publisher) as emit:
        emit(start("first"))
        emit(start("second"))
        await trio.sleep(60)
    assert daemon.ids == ["first", "second"]
    assert len(daemon.tries) == len(failures) + 2


async def test_the_pause_grows_up_to_five_seconds(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Doubled each time from a tenth of a second; anew for the next event."""
    daemon = Daemon(*[UnavailableError("away") for _ in range(9)])
    async with opened(daemon.publisher) as emit:
        emit(start("first"))
        await trio.sleep(60)
        daemon.answers.append(UnavailableError("away"))
        emit(start("second"))
        await trio.sleep(60)
    pauses = [after - before for before, after in zip(daemon.tries, daemon.tries[1:], strict=False)]
    expected = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5]
    assert pauses[:9] == pytest.approx(expected)
    assert pauses[10] == pytest.approx(0.1)
    assert lines(caplog, logging.WARNING)[0] == (
        "event /tasks/start waits 0.1 s: away: unavailable"
    )


@pytest.mark.parametrize(
    "refusal",
    [InvalidArgumentError, NotFoundError, FailedPreconditionError, UnimplementedError],
)
async def test_a_refused_event_is_left_out(
    refusal: type[ShimError], caplog: pytest.LogCaptureFixture
) -> None:
    """The next try would end the same: it is told in the log, and the others come."""
    daemon = Daemon(refusal("no"))
    async with opened(daemon.publisher) as emit:
        emit(start("bad"))
        emit(start("good"))
    assert daemon.ids == ["good"]
    assert len(daemon.tries) == 2
    [line] = lines(caplog, logging.ERROR)
    assert line.startswith("event /tasks/start was refused and is left out: no")


async def test_a_bug_in_the_publisher_loses_no_event(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with its traceback, and the event is tried again."""
    daemon = Daemon(ZeroDivisionError("a bug"))
    async with opened(daemon.publisher) as emit:
        emit(start("c1"))
        await trio.sleep(1)
    assert daemon.ids == ["c1"]
    [record] = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


async def test_emitting_never_waits(autojump_clock: MockClock) -> None:
    """However long the queue, however stuck the daemon."""
    daemon = MemoryPublisher(step=trio.sleep_forever)
    async with opened(daemon, drain=1) as emit:
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        with trio.testing.assert_no_checkpoints():
            for number in range(10_000):
                emit(start(str(number)))
        assert trio.current_time() == before


@pytest.mark.parametrize("stuck", [True, False], ids=["stuck", "away"])
async def test_at_the_end_the_queue_has_a_deadline(
    stuck: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What is not delivered by then is lost, and the log says how much."""
    daemon = MemoryPublisher(step=trio.sleep_forever if stuck else None)
    async with opened(daemon, drain=5) as emit:
        emit(events.TaskExit(container_id="c1"))
        daemon.away = True
        await trio.sleep(100)
        for number in range(3):
            emit(start(str(number)))
        before = trio.current_time()
    assert trio.current_time() - before == pytest.approx(5)
    assert daemon.envelopes == []
    assert lines(caplog, logging.ERROR) == [
        "4 events were not delivered, the first of them /tasks/exit"
    ]


async def test_the_deadline_is_no_pause(autojump_clock: MockClock) -> None:
    """When all is delivered the block ends; a daemon that comes back in time gets everything."""
    daemon = Daemon(*[UnavailableError() for _ in range(4)])
    async with opened(daemon.publisher, drain=5) as emit:
        for number in range(3):
            emit(start(str(number)))
    assert daemon.ids == ["0", "1", "2"]
    assert trio.current_time() == pytest.approx(0.1 + 0.2 + 0.4 + 0.8)


async def test_what_stops_the_shim_does_not_stop_its_last_events(
    autojump_clock: MockClock,
) -> None:
    """A cancellation of all around ends the block, and the queue is drained."""
    daemon = Daemon(UnavailableError())
    with trio.CancelScope() as scope:
        async with opened(daemon.publisher) as emit:
            emit(start("c1"))
            scope.cancel()
            await trio.sleep_forever()
    assert daemon.ids == ["c1"]


@pytest.mark.parametrize("kind", TOPICS, ids=lambda kind: kind.__name__)
async def test_the_envelope_of_each_event(kind: type[Message]) -> None:
    """Topic, namespace and time; the type is the bare name, as containerd spells it."""
    publisher = MemoryPublisher()
    event = kind(container_id="c1")
    async with opened(publisher) as emit:
        emit(event)
    [envelope] = publisher.envelopes
    assert envelope.topic == TOPICS[kind]
    assert envelope.namespace == "ns"
    assert envelope.event.type_url == f"containerd.events.{kind.__name__}"
    assert (envelope.timestamp.seconds, envelope.timestamp.nanos) == (1, 7)
    assert unpack(envelope) == event


def test_every_event_of_a_task_has_a_topic() -> None:
    """One that containerd adds to the file needs its line above."""
    names = {name for name in events.DESCRIPTOR.message_types_by_name if name != "TaskIO"}
    assert {kind.__name__ for kind in TOPICS} == {n for n in names if n.startswith("Task")}


async def test_the_time_is_when_it_happened(autojump_clock: MockClock) -> None:
    """It is taken by `emit` and kept over every try."""
    tried: list[Envelope] = []

    class Publisher(MemoryPublisher):
        async def publish(self, envelope: Envelope) -> None:
            copy = Envelope()
            copy.CopyFrom(envelope)
            tried.append(copy)
            await super().publish(envelope)

    publisher = Publisher()
    publisher.away = True
    async with opened(publisher) as emit:
        emit(start("c1"))
        emit(start("c2"))
        await trio.sleep(10)
        publisher.away = False
    assert [envelope.timestamp.seconds for envelope in publisher.envelopes] == [1, 2]
    assert len(tried) > 3
    assert all(envelope == publisher.envelopes[0] for envelope in tried[:-1])
