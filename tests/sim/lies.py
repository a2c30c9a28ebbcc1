"""Shims that break a promise, made of one that keeps them: lies about answers and events.

Each row of `LIES` says which cases of the conformance suite it must not get past.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import trio
from google.protobuf.message import Message

from trioshim.client import Caller
from trioshim.errors import ShimError, StatusError, UnavailableError
from trioshim.proto import task_v2_pb2 as api
from trioshim.proto.task_types_pb2 import Status
from trioshim.proto.types_pb2 import Envelope

Call = Callable[[bytes], Awaitable[bytes]]
# What becomes of a call: its method, its request, and how it is made in truth.
Answer = Callable[[str, bytes, Call], Awaitable[bytes]]
Events = Callable[[Sequence[Envelope]], list[Envelope]]


async def truth(_method: str, request: bytes, call: Call) -> bytes:
    return await call(request)


@dataclass(frozen=True)
class Lie:
    """What is wrong with a shim, and the cases that have to find it."""

    caught_by: tuple[str, ...]
    answer: Callable[[], Answer] = field(default=lambda: truth)
    events: Events = list


@dataclass
class Liar(Caller):
    caller: Caller
    answer: Answer

    async def call(
        self, service: str, method: str, payload: bytes, *, timeout: float | None = None
    ) -> bytes:
        async def call(request: bytes) -> bytes:
            return await self.caller.call(service, method, request, timeout=timeout)

        return await self.answer(method, payload, call)


# ---------------------------------------------------------------- how to lie


def changes(name: str, kind: type[Message], **fields: object) -> Callable[[], Answer]:
    """The answers of a method have other values."""

    async def answer(method: str, request: bytes, call: Call) -> bytes:
        reply = await call(request)
        if method != name:
            return reply
        message = kind.FromString(reply)
        for field_name in fields:
            message.ClearField(field_name)
        message.MergeFrom(kind(**fields))
        return message.SerializeToString()

    return lambda: answer


def misreads(name: str, kind: type[Message], **fields: object) -> Callable[[], Answer]:
    """The requests of a method are understood otherwise."""

    async def answer(method: str, request: bytes, call: Call) -> bytes:
        if method == name:
            message = kind.FromString(request)
            for field_name in fields:
                message.ClearField(field_name)
            message.MergeFrom(kind(**fields))
            request = message.SerializeToString()
        return await call(request)

    return lambda: answer


def forgives(name: str) -> Callable[[], Answer]:
    """Nothing is refused."""

    async def answer(method: str, request: bytes, call: Call) -> bytes:
        try:
            return await call(request)
        except ShimError:
            if method != name:
                raise
            return b""

    return lambda: answer


def confuses(name: str) -> Callable[[], Answer]:
    """All refusals have the same status."""

    async def answer(method: str, request: bytes, call: Call) -> bytes:
        try:
            return await call(request)
        except ShimError as error:
            raise StatusError(str(error)) if method == name else error from None

    return lambda: answer


def refuses(name: str, *, after: int = 0) -> Callable[[], Answer]:
    """A method is refused, from some call on."""

    def begin() -> Answer:
        calls: Counter[str] = Counter()

        async def answer(method: str, request: bytes, call: Call) -> bytes:
            calls[method] += 1
            if method == name and calls[method] > after:
                raise StatusError("no")
            return await call(request)

        return answer

    return begin


def forgets(name: str) -> Callable[[], Answer]:
    """A method is answered and does nothing."""

    async def answer(method: str, request: bytes, call: Call) -> bytes:
        return b"" if method == name else await call(request)

    return lambda: answer


def panics(name: str) -> Callable[[], Answer]:
    """A method ends the shim."""

    def begin() -> Answer:
        gone = False

        async def answer(method: str, request: bytes, call: Call) -> bytes:
            nonlocal gone
            gone = gone or method == name
            if gone:
                raise UnavailableError("ttrpc: closed")
            return await call(request)

        return answer

    return begin


def one_at_a_time() -> Answer:
    """A request is looked at when the one before has been answered."""
    lock = trio.Lock()

    async def answer(_method: str, request: bytes, call: Call) -> bytes:
        async with lock:
            return await call(request)

    return answer


def always_another_time() -> Answer:
    """Each Wait has a time of its own."""
    calls: Counter[str] = Counter()

    async def answer(method: str, request: bytes, call: Call) -> bytes:
        reply = await call(request)
        if method != "Wait":
            return reply
        calls[method] += 1
        ended = api.WaitResponse.FromString(reply)
        ended.exited_at.nanos = calls[method]
        return ended.SerializeToString()

    return answer


def without(topic: str, envelopes: Sequence[Envelope]) -> list[Envelope]:
    return [envelope for envelope in envelopes if envelope.topic != topic]


def exits_first(envelopes: Sequence[Envelope]) -> list[Envelope]:
    """Each exit overtakes the event before it."""
    told = list(envelopes)
    for number in range(1, len(told)):
        if told[number].topic == "/tasks/exit":
            told[number - 1], told[number] = told[number], told[number - 1]
    return told


def init_first(envelopes: Sequence[Envelope]) -> list[Envelope]:
    """The last exit overtakes all the others."""
    told = list(envelopes)
    exits = [number for number, envelope in enumerate(told) if envelope.topic == "/tasks/exit"]
    if len(exits) > 1:
        told.insert(exits[0], told.pop(exits[-1]))
    return told


def everywhere(name: str, value: str, envelopes: Sequence[Envelope]) -> list[Envelope]:
    told = []
    for envelope in envelopes:
        changed = Envelope()
        changed.CopyFrom(envelope)
        setattr(changed, name, value)
        told.append(changed)
    return told


# ---------------------------------------------------------------- the lies

LIES = {
    "Wait says 0": Lie(
        (
            "exit_status_of_the_program",
            "an_id_can_be_used_again",
            "a_second_create_is_refused",
            "all_waiters_get_the_same_answer",
            "a_wait_before_start_is_answered",
            "a_container_outlives_its_client",
            "a_killed_container_ends_with_137",
            "a_created_container_can_be_killed",
            "kill_all_ends_execs_too",
            "a_paused_container_can_be_killed",
            "execs_end_with_their_own_status",
            "execs_end_with_init",
            "before_create_nothing_is_found",
            "many_containers_live_side_by_side",
        ),
        changes("Wait", api.WaitResponse, exit_status=0),
    ),
    "Wait says 255": Lie(("exit_status_zero",), changes("Wait", api.WaitResponse, exit_status=255)),
    "Wait knows no time": Lie(
        (
            "an_exit_has_a_time_and_before_it_has_none",
            "stopped_state_tells_the_exit",
            "delete_answers_the_exit",
            "events_agree_with_the_answers",
        ),
        changes("Wait", api.WaitResponse, exited_at=None),
    ),
    "Wait says another time": Lie(
        ("a_wait_after_the_exit_is_answered", "all_waiters_get_the_same_answer"),
        always_another_time,
    ),
    "Wait is answered at once": Lie(("a_wait_before_start_is_answered",), forgets("Wait")),
    "one request at a time": Lie(("a_wait_holds_up_nobody",), one_at_a_time),
    "Create says pid 1": Lie(
        (
            "create_answers_the_pid_of_init",
            "a_container_that_was_never_started_can_be_deleted",
            "pids_of_a_created_container",
            "connect_answers_two_pids",
        ),
        changes("Create", api.CreateTaskResponse, pid=1),
    ),
    "Create is never refused": Lie(
        ("a_second_create_is_refused", "a_failed_create_leaves_nothing"), forgives("Create")
    ),
    "Start says pid 0": Lie(
        ("start_answers_the_pid_of_init", "an_exec_lives_from_exec_to_delete"),
        changes("Start", api.StartResponse, pid=0),
    ),
    "Start is never refused": Lie(
        (
            "an_exec_is_started_once",
            "an_exec_that_cannot_run_is_refused",
            "no_exec_after_the_end_of_init",
        ),
        forgives("Start"),
    ),
    "State says RUNNING": Lie(
        (
            "create_answers_the_pid_of_init",
            "stopped_state_tells_the_exit",
            "pause_and_resume",
            "pause_and_resume_are_for_their_state_only",
            "a_paused_container_is_not_deleted",
            "an_exec_in_a_paused_container_is_paused",
            "shutdown_with_a_container_does_nothing",
        ),
        changes("State", api.StateResponse, status=Status.RUNNING),
    ),
    "State knows no bundle": Lie(
        ("state_names_the_container",), changes("State", api.StateResponse, bundle="")
    ),
    "State is always that of init": Lie(
        ("state_of_an_exec_is_its_own", "an_unknown_exec_is_not_found"),
        misreads("State", api.StateRequest, exec_id=""),
    ),
    "State is never refused": Lie(
        (
            "a_deleted_container_is_not_found",
            "an_exec_that_was_never_started_can_be_deleted",
            "another_container_is_not_found",
            "garbage_is_refused",
        ),
        forgives("State"),
    ),
    "Delete is never refused": Lie(
        (
            "delete_of_a_running_container_is_refused",
            "delete_of_a_running_exec_is_refused",
            "a_paused_container_is_not_deleted",
        ),
        forgives("Delete"),
    ),
    "Delete works once": Lie(("delete_can_be_asked_again",), refuses("Delete", after=1)),
    "Kill refuses with UNKNOWN": Lie(
        (
            "kill_after_the_exit_is_not_found",
            "kill_of_an_exec_before_start_is_refused",
            "kill_of_an_exec_after_its_exit_is_not_found",
        ),
        confuses("Kill"),
    ),
    "Kill is always SIGKILL": Lie(
        ("a_signal_arrives_as_it_was_sent", "signal_0_asks_whether_init_is_there"),
        misreads("Kill", api.KillRequest, signal=9),
    ),
    "Kill is always for init": Lie(
        ("kill_of_an_exec_reaches_it_alone",), misreads("Kill", api.KillRequest, exec_id="")
    ),
    "Pause does nothing": Lie(("pause_and_resume_are_told",), forgets("Pause")),
    "Exec is never refused": Lie(
        ("an_exec_id_is_used_once_at_a_time", "no_exec_after_the_end_of_init"), forgives("Exec")
    ),
    "Pids knows no execs": Lie(
        ("pids_names_init_and_execs",), changes("Pids", api.PidsResponse, processes=())
    ),
    "Stats has no type": Lie(
        ("stats_answers_metrics",), changes("Stats", api.StatsResponse, stats=None)
    ),
    "CloseIO is refused": Lie(("streams_that_are_not_there_can_be_closed",), refuses("CloseIO")),
    "Update is refused": Lie(("update_changes_limits",), refuses("Update")),
    "Update is never refused": Lie(
        ("update_of_a_stopped_container_is_refused",), forgives("Update")
    ),
    "Update ends the shim": Lie(("update_without_resources_harms_nobody",), panics("Update")),
    "an unknown method is UNKNOWN": Lie(("an_unknown_method_is_unimplemented",), confuses("Fly")),
    "Shutdown does nothing": Lie(
        (
            "a_failed_create_leaves_nothing",
            "shutdown_after_the_last_container_ends_the_shim",
            "shutdown_of_an_unused_shim_ends_it",
        ),
        forgets("Shutdown"),
    ),
    "exits are not told": Lie(
        (
            "events_tell_the_life_in_order",
            "an_exit_before_start_is_told",
            "an_exit_follows_its_start",
            "many_containers_live_side_by_side",
        ),
        events=partial(without, "/tasks/exit"),
    ),
    "exits are told too early": Lie(
        ("events_tell_the_life_in_order", "an_exit_follows_its_start"), events=exits_first
    ),
    "init's exit is told first": Lie(("the_exit_of_init_is_the_last",), events=init_first),
    "deletes are not told": Lie(
        ("events_agree_with_the_answers",), events=partial(without, "/tasks/delete")
    ),
    "events have no namespace": Lie(
        ("events_have_topics_times_and_a_namespace",), events=partial(everywhere, "namespace", "")
    ),
}
