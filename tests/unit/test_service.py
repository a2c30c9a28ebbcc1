"""The dispatcher: names, payloads, deadlines, and who outlives whom (law 8)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from google.protobuf.empty_pb2 import Empty

from trioshim.errors import (
    Code,
    DeadlineExceededError,
    InternalError,
    NotFoundError,
    ShimError,
    UnimplementedError,
    to_status,
)
from trioshim.proto import task_v2_pb2 as api
from trioshim.rpc import Dispatcher, Service

TASK = api.DESCRIPTOR.services_by_name["Task"]
NAME = TASK.full_name


class Tasks:
    """State is a read, Kill a change; both do what `work` does.

    Attributes:
        cancelled, finished: names of methods, as things happen to them.
    """

    def __init__(self) -> None:
        self.go_on = trio.Event()
        self.work: Callable[[], Awaitable[object]] = self.go_on.wait
        self.cancelled: list[str] = []
        self.finished: list[str] = []

    async def state(self, request: api.StateRequest) -> api.StateResponse:
        await self._work("state")
        return api.StateResponse(id=request.id)

    async def kill(self, request: api.KillRequest) -> Empty:
        await self._work("kill")
        return Empty()

    async def close_io(self, request: api.CloseIORequest) -> api.StateResponse:
        return api.StateResponse(id="io of " + request.id)

    async def resize_pty(self, request: api.ResizePtyRequest) -> api.StateResponse:
        return api.StateResponse(id="pty of " + request.id)

    async def _work(self, name: str) -> None:
        try:
            await self.work()
        except trio.Cancelled:
            self.cancelled.append(name)
            raise
        self.finished.append(name)

    def fails_with(self, error: BaseException) -> None:
        async def work() -> None:
            raise error

        self.work = work


@asynccontextmanager
async def open_dispatcher(tasks: Tasks) -> AsyncIterator[Dispatcher]:
    async with trio.open_nursery() as lasting:
        yield Dispatcher([Service(TASK, tasks, reads={"State"})], lasting)
        lasting.cancel_scope.cancel()


@pytest.fixture
def tasks() -> Tasks:
    return Tasks()


@pytest.fixture
async def dispatcher(tasks: Tasks) -> AsyncIterator[Dispatcher]:
    async with open_dispatcher(tasks) as dispatcher:
        yield dispatcher


# ---------------------------------------------------------------- names and payloads


@pytest.mark.parametrize(("method", "who"), [("CloseIO", "io of x"), ("ResizePty", "pty of x")])
async def test_names_of_the_proto_are_python_names(
    dispatcher: Dispatcher, method: str, who: str
) -> None:
    """`CloseIO` is `close_io`: capitals in a row are one word."""
    answer = await dispatcher.call(NAME, method, api.StateRequest(id="x").SerializeToString())
    assert api.StateResponse.FromString(answer).id == who


async def test_a_service_can_have_another_name(tasks: Tasks) -> None:
    """v3 of the Task service is v2 under another name; the first one is then unknown."""
    tasks.go_on.set()
    service = Service(TASK, tasks, name="containerd.task.v3.Task")
    async with trio.open_nursery() as lasting:
        dispatcher = Dispatcher([service], lasting)
        payload = api.StateRequest(id="x").SerializeToString()
        answer = await dispatcher.call("containerd.task.v3.Task", "State", payload)
        assert api.StateResponse.FromString(answer).id == "x"
        with pytest.raises(UnimplementedError):
            await dispatcher.call(NAME, "State", payload)


async def test_two_services_do_not_mix() -> None:
    """Each name has its own object."""
    first, second = Tasks(), Tasks()
    first.fails_with(NotFoundError("first"))
    second.fails_with(NotFoundError("second"))
    async with trio.open_nursery() as lasting:
        dispatcher = Dispatcher([Service(TASK, first), Service(TASK, second, name="b")], lasting)
        with pytest.raises(NotFoundError, match="second"):
            await dispatcher.call("b", "State", b"")
        with pytest.raises(NotFoundError, match="first"):
            await dispatcher.call(NAME, "State", b"")


@pytest.mark.parametrize(
    ("service", "method", "says"),
    [
        ("no.such.Service", "State", "service no.such.Service: not implemented"),
        (NAME, "Dance", "method Dance: not implemented"),
        (NAME, "Create", "method Create: not implemented"),
        (NAME, "state", "method state: not implemented"),
        (NAME, "__init__", "method __init__: not implemented"),
    ],
)
async def test_what_nobody_answers_is_unimplemented(
    dispatcher: Dispatcher, service: str, method: str, says: str
) -> None:
    """Unknown, or known to the descriptor but not to the object."""
    with pytest.raises(UnimplementedError) as caught:
        await dispatcher.call(service, method, b"")
    assert str(caught.value) == says


async def test_an_unreadable_payload_is_internal(dispatcher: Dispatcher, tasks: Tasks) -> None:
    """The text names the method; the object is not asked."""
    tasks.go_on.set()
    with pytest.raises(InternalError, match="payload of State"):
        await dispatcher.call(NAME, "State", b"\xff\xff")
    assert tasks.finished == []


# ---------------------------------------------------------------- deadlines


async def test_a_deadline_ends_a_read(
    dispatcher: Dispatcher, tasks: Tasks, autojump_clock: trio.testing.MockClock
) -> None:
    """The caller is told and the handler is cancelled."""
    with pytest.raises(DeadlineExceededError) as caught:
        await dispatcher.call(NAME, "State", b"", deadline=3)
    assert str(caught.value) == "context deadline exceeded"
    assert trio.current_time() == 3
    assert tasks.cancelled == ["state"]


async def test_a_deadline_leaves_a_change_alone(
    dispatcher: Dispatcher, tasks: Tasks, autojump_clock: trio.testing.MockClock
) -> None:
    """The caller is told, the handler goes on to its end (law 8)."""
    with pytest.raises(DeadlineExceededError):
        await dispatcher.call(NAME, "Kill", b"", deadline=3)
    assert trio.current_time() == 3
    tasks.go_on.set()
    await trio.testing.wait_all_tasks_blocked()
    assert (tasks.cancelled, tasks.finished) == ([], ["kill"])


async def test_an_answer_before_the_deadline_is_an_answer(
    dispatcher: Dispatcher, tasks: Tasks, autojump_clock: trio.testing.MockClock
) -> None:
    """The deadline of a call is not a wait."""

    async def work() -> None:
        await trio.sleep(2)

    tasks.work = work
    payload = api.StateRequest(id="x").SerializeToString()
    answer = await dispatcher.call(NAME, "State", payload, deadline=3)
    assert api.StateResponse.FromString(answer).id == "x"
    assert trio.current_time() == 2


# ---------------------------------------------------------------- law 8


async def _leave_early(dispatcher: Dispatcher, method: str) -> trio.CancelScope:
    """Call a method that waits, and be cancelled while it does."""
    scope = trio.CancelScope()

    async def call() -> None:
        with scope:
            await dispatcher.call(NAME, method, b"")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
    return scope


async def test_a_read_ends_with_its_caller(dispatcher: Dispatcher, tasks: Tasks) -> None:
    """A Wait that nobody waits for does not stay."""
    scope = await _leave_early(dispatcher, "State")
    assert scope.cancelled_caught
    assert tasks.cancelled == ["state"]


async def test_a_change_runs_to_its_end_without_its_caller(
    dispatcher: Dispatcher, tasks: Tasks
) -> None:
    """The caller leaves at once; what it asked for is done nevertheless."""
    scope = await _leave_early(dispatcher, "Kill")
    assert scope.cancelled_caught
    assert (tasks.cancelled, tasks.finished) == ([], [])
    tasks.go_on.set()
    await trio.testing.wait_all_tasks_blocked()
    assert tasks.finished == ["kill"]


async def test_a_failure_that_nobody_waits_for_hurts_nobody(
    dispatcher: Dispatcher, tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; the nursery of the lasting calls lives on."""

    async def work() -> None:
        await tasks.go_on.wait()
        raise RuntimeError("too late")

    tasks.work = work
    await _leave_early(dispatcher, "Kill")
    tasks.go_on.set()
    await trio.testing.wait_all_tasks_blocked()
    assert "Kill failed" in caplog.text
    with pytest.raises(ShimError, match="too late"):  # it still serves
        await dispatcher.call(NAME, "Kill", b"")


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("method", ["State", "Kill"])
@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (NotFoundError("x"), (Code.NOT_FOUND, "x: not found")),
        (ValueError("odd"), (Code.UNKNOWN, "odd")),
        (KeyError(), (Code.UNKNOWN, "KeyError")),
        (OSError(28, "No space left on device"), (2, "[Errno 28] No space left on device")),
        (ExceptionGroup("", [NotFoundError("x")]), (Code.NOT_FOUND, "x: not found")),
        (
            ExceptionGroup("", [ExceptionGroup("", [ValueError("odd")])]),
            (Code.UNKNOWN, "odd"),
        ),
    ],
    ids=repr,
)
async def test_what_a_handler_raises_is_a_status(
    dispatcher: Dispatcher,
    tasks: Tasks,
    method: str,
    raised: Exception,
    status: tuple[int, str],
) -> None:
    """The same for reads and changes; groups of one are opened."""
    tasks.fails_with(raised)
    with pytest.raises(ShimError) as caught:
        await dispatcher.call(NAME, method, b"")
    assert to_status(caught.value) == status


async def test_a_group_of_several_is_unknown(dispatcher: Dispatcher, tasks: Tasks) -> None:
    """There is no one status for them; no group leaves the dispatcher."""
    tasks.fails_with(ExceptionGroup("several", [NotFoundError("x"), ValueError("odd")]))
    with pytest.raises(ShimError) as caught:
        await dispatcher.call(NAME, "State", b"")
    assert caught.value.code == Code.UNKNOWN
    assert "several" in str(caught.value)


async def test_a_bug_is_logged_with_its_traceback(
    dispatcher: Dispatcher, tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    """And what is no bug is not."""
    tasks.fails_with(ValueError("odd"))
    with pytest.raises(ShimError):
        await dispatcher.call(NAME, "State", b"")
    assert [record.exc_info is not None for record in caplog.records] == [True]
    caplog.clear()
    tasks.fails_with(NotFoundError("x"))
    with pytest.raises(NotFoundError):
        await dispatcher.call(NAME, "State", b"")
    assert caplog.records == []


async def test_cancelled_passes(dispatcher: Dispatcher, tasks: Tasks) -> None:
    """A cancellation is not an error of the handler: it ends the caller's scope as it should."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await dispatcher.call(NAME, "State", b"")
    assert scope.cancelled_caught
    assert tasks.cancelled == ["state"]


# ---------------------------------------------------------------- the end of the lasting nursery


async def test_a_caller_is_told_when_the_shim_ends(tasks: Tasks) -> None:
    """A change that is cut off by Shutdown is an error for its caller, not a stray Cancelled."""
    seen: list[BaseException] = []

    async def call(dispatcher: Dispatcher) -> None:
        try:
            await dispatcher.call(NAME, "Kill", b"")
        except BaseException as error:  # noqa: BLE001 (a Cancelled is what must not come)
            seen.append(error)

    async with trio.open_nursery() as callers, open_dispatcher(tasks) as dispatcher:
        callers.start_soon(call, dispatcher)
        await trio.testing.wait_all_tasks_blocked()
    assert isinstance(seen[0], ShimError)
    assert tasks.cancelled == ["kill"]


async def test_a_handler_without_an_answer_is_a_status() -> None:
    """`call` promises that every exception has become a `ShimError`."""

    class Forgetful:
        async def state(self, request: api.StateRequest) -> None:
            return None

    async with trio.open_nursery() as lasting:
        dispatcher = Dispatcher([Service(TASK, Forgetful(), reads={"State"})], lasting)
        with pytest.raises(ShimError):
            await dispatcher.call(NAME, "State", b"")
