"""Conformance: what a shim tells the daemon, and in which order.

The first line of a docstring is the promise, the rest says who relies on it.  With a shim whose
events nobody hears, these cases look at the answers alone.
"""

from __future__ import annotations

from functools import partial

from google.protobuf.message import Message

from ...proto import events_pb2 as events
from ...proto import task_v2_pb2 as api
from .._laws import LawBrokenError, check_event_order
from .._program import Program
from ._bench import (
    CONTAINER,
    FOREVER,
    QUICK,
    Bench,
    PromiseBrokenError,
    equal,
    holds,
    together,
)

__all__ = ["CASES"]

AT_ONCE = Program(status=3, after=0.0)
MANY = 20


async def events_tell_the_life_in_order(bench: Bench) -> None:
    """create, start, exec-added, exec-started, exit, exit, delete: each once, in this order.

    containerd's document on shims, runtime-v2.md, makes this order a MUST.
    """
    await bench.run()
    await bench.run_exec("e1", QUICK)
    await bench.wait("e1")
    await bench.delete("e1")
    await bench.kill(9)
    await bench.wait()
    await bench.delete()
    told = await bench.told(events.TaskDelete)
    if told is not None:
        names = [type(event).__name__ for event in told]
        names = [name for name in names if name != "TaskDelete"]  # some tell it of an exec too
        expected = ["Create", "Start", "ExecAdded", "ExecStarted", "Exit", "Exit"]
        equal("events before TaskDelete", names, [f"Task{name}" for name in expected])
        _in_order(told)


async def events_agree_with_the_answers(bench: Bench) -> None:
    """Ids, pids, status and time in the events are those of the answers.

    Subscribers have nothing but the event.
    """
    pid = await bench.run(QUICK)
    ended = await bench.wait()
    await bench.delete()
    told = await bench.told(events.TaskDelete)
    for event in told or []:
        name = type(event).__name__
        equal(f"container_id in {name}", getattr(event, "container_id", None), CONTAINER)
        equal(f"pid in {name}", getattr(event, "pid", None), pid)
        if isinstance(event, (events.TaskExit, events.TaskDelete)):
            equal(f"exit_status in {name}", event.exit_status, ended.exit_status)
            equal(f"exited_at in {name}", event.exited_at, ended.exited_at)
        if isinstance(event, events.TaskExit):
            equal(f"id in {name}", event.id, CONTAINER)


async def events_have_topics_times_and_a_namespace(bench: Bench) -> None:
    """Each event comes with the topic of its type, a namespace and the time of its happening.

    Subscribers filter by topic and namespace, and nothing tells them of a wrong one.
    """
    await bench.run(QUICK)
    await bench.wait()
    await bench.delete()
    if await bench.told(events.TaskDelete) is None:
        return
    envelopes = list(bench.shim.envelopes or ())
    topics = [envelope.topic for envelope in envelopes]
    equal("topics", topics, [f"/tasks/{verb}" for verb in ("create", "start", "exit", "delete")])
    namespaces = {envelope.namespace for envelope in envelopes}
    one = len(namespaces) == 1 and all(namespaces)
    holds("all events must have one namespace, and not an empty one", one, namespaces)
    stamps = [envelope.timestamp.ToNanoseconds() for envelope in envelopes]
    holds("timestamps must grow", stamps == sorted(stamps) and stamps[0] > 0, stamps)


async def pause_and_resume_are_told(bench: Bench) -> None:
    """After Pause and Resume there is one event each, with the topic of its type.

    Docker shows a container as paused by the event, also when another client has paused it.
    """
    await bench.run()
    await bench.ask(bench.task.pause, api.PauseRequest(id=CONTAINER))
    await bench.ask(bench.task.resume, api.ResumeRequest(id=CONTAINER))
    told = await bench.told(events.TaskResumed)
    if told is not None:
        names = [type(event).__name__ for event in told]
        equal("events", names, ["TaskCreate", "TaskStart", "TaskPaused", "TaskResumed"])
        topics = [envelope.topic for envelope in bench.shim.envelopes or ()]
        equal("topics of the last two", topics[-2:], ["/tasks/paused", "/tasks/resumed"])


async def an_exit_before_start_is_told(bench: Bench) -> None:
    """A container that is killed before Start, and deleted: create, exit, delete.

    Who subscribed after Create waits for the exit, whoever started it or not (containerd#9103).
    """
    await bench.create()
    await bench.kill(9)
    await bench.wait()
    await bench.delete()
    told = await bench.told(events.TaskDelete)
    if told is not None:
        names = [type(event).__name__ for event in told]
        equal("events", names, ["TaskCreate", "TaskExit", "TaskDelete"])


async def an_exit_follows_its_start(bench: Bench) -> None:
    """Execs that end at once: exec-started comes before exit, twenty times, and each exit once.

    docker shows a process as running for ever when the exit came first (containerd#7111).
    """
    await bench.run()

    async def check(exec_id: str) -> None:
        await bench.run_exec(exec_id, AT_ONCE)
        await bench.ends_with(3, exec_id)
        await bench.delete(exec_id)

    for first in range(0, MANY, 4):
        await together([partial(check, f"e{number}") for number in range(first, first + 4)])
    await bench.kill(9)
    await bench.wait()
    await bench.delete()
    _in_order(await bench.told(events.TaskDelete))


async def many_containers_live_side_by_side(bench: Bench) -> None:
    """Ten containers in one shim that end at once: each has its status and its events in order.

    A pod is one shim with all its containers, since version 2 of containerd's shim.
    """
    ids = [CONTAINER, *(f"other-{number}" for number in range(9))]

    async def check(number: int) -> None:
        id_ = ids[number]
        await bench.run(Program(status=number, after=0.0), id_=id_)
        await bench.ends_with(number, id_=id_)
        await bench.delete(id_=id_)

    await bench.create(FOREVER, id_="stays")
    await together([partial(check, number) for number in range(len(ids))])
    await bench.start(id_="stays")
    if (told := await bench.told(events.TaskDelete, *ids)) is not None:
        _in_order([event for event in told if getattr(event, "container_id", "") != "stays"])


async def the_exit_of_init_is_the_last(bench: Bench) -> None:
    """When init is killed, the exits of its execs are told before its own.

    Containers were seen to run for ever when exits raced with each other (containerd#10589).
    """
    await bench.run()
    for number in range(5):
        await bench.run_exec(f"e{number}")
    await bench.kill(9)
    for exec_id in ("", *(f"e{number}" for number in range(5))):
        await bench.ends_with(137, exec_id)
    await bench.delete()
    _in_order(await bench.told(events.TaskDelete))


def _in_order(told: list[Message] | None) -> None:
    try:
        check_event_order(told or [])
    except LawBrokenError as error:
        raise PromiseBrokenError(str(error)) from error


CASES = (
    events_tell_the_life_in_order,
    events_agree_with_the_answers,
    events_have_topics_times_and_a_namespace,
    pause_and_resume_are_told,
    an_exit_before_start_is_told,
    an_exit_follows_its_start,
    many_containers_live_side_by_side,
    the_exit_of_init_is_the_last,
)
