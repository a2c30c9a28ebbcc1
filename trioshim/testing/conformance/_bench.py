"""Where a case of the conformance suite works: a shim, and calls that say what failed.

Rules of this file:

* an answer that should not have come is a `PromiseBrokenError` that names the request and both
  answers; a case never sees a `ShimError` that it did not ask for;
* no call waits longer than `PATIENCE`;
* nothing here knows how the shim was started or what it runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Protocol, TypeVar

import trio
from google.protobuf import text_format
from google.protobuf.message import Message

from ...client import Caller, TaskClient
from ...errors import ShimError, UnavailableError
from ...proto import task_v2_pb2 as api
from ...proto.task_types_pb2 import Status
from ...proto.types_pb2 import Envelope
from .._program import Program
from .._publisher import unpack

__all__ = [
    "CONTAINER",
    "FOREVER",
    "QUICK",
    "Bench",
    "PromiseBrokenError",
    "ShimUnderTest",
    "equal",
    "holds",
    "together",
]

CONTAINER = "c1"
FOREVER = Program(after=None)
QUICK = Program(status=7, after=0.1)
PATIENCE = 20.0  # seconds for one answer; a slow machine is not a broken shim
_AGAIN = 0.02  # seconds between two looks at what no answer announces
_CREATED, _STOPPED = Status.CREATED, Status.STOPPED

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)
T = TypeVar("T")


class PromiseBrokenError(AssertionError):
    """A shim does not do what containerd relies on; the text says what came instead of what."""


class ShimUnderTest(Protocol):
    """A shim that was started for one case, and what makes requests for it.

    The first container of each case is `c1`: a shim that needs an id to start is started for it.
    """

    @property
    def envelopes(self) -> Sequence[Envelope] | None:
        """The events that have come from it so far, in order; None if nobody listens.

        Without them the cases about events pass unchecked.
        """
        ...

    def connection(self) -> AbstractAsyncContextManager[Caller]:
        """A new connection.

        Raises (on entering):
            OSError, trio.BrokenResourceError: the shim has ended.
        """
        ...

    def create_request(self, id_: str, program: Program) -> api.CreateTaskRequest:
        """What creates a container whose init does what `program` says; its bundle is made here.

        Without terminal and stdin.  In a pid namespace of its own.  The suite uses `status`,
        `after`, `handles` and `missing`, and no more of a program.
        """
        ...

    def exec_request(self, id_: str, exec_id: str, program: Program) -> api.ExecProcessRequest:
        """What registers one more process in that container."""
        ...


class Bench:
    """A shim on the bench: one connection to it, and the requests as a case makes them.

    Attributes:
        shim: for more connections and requests.
        caller: the connection.
        task: the typed methods on it.
    """

    def __init__(self, shim: ShimUnderTest, caller: Caller) -> None:
        self.shim = shim
        self.caller = caller
        self.task = TaskClient(caller)
        self._created: list[str] = []

    # ------------------------------------------------------------ asking

    async def outcome(
        self, method: Callable[[Request], Awaitable[Reply]], request: Request
    ) -> Reply | ShimError:
        """The answer, or the refusal.

        Raises:
            PromiseBrokenError: nothing came, or the connection ended.
        """
        try:
            with trio.fail_after(PATIENCE):
                return await method(request)
        except trio.TooSlowError:
            text = f"{_named(method, request)} must be answered, and was not in {PATIENCE} s"
            raise PromiseBrokenError(text) from None
        except UnavailableError as error:
            what = f"must be answered, and the connection ended: {error}"
            text = f"{_named(method, request)} {what}"
            raise PromiseBrokenError(text) from error
        except ShimError as error:
            return error

    async def ask(self, method: Callable[[Request], Awaitable[Reply]], request: Request) -> Reply:
        """The answer to a request that has to be answered.

        Raises:
            PromiseBrokenError: it was refused, or nothing came.
        """
        outcome = await self.outcome(method, request)
        if isinstance(outcome, ShimError):
            what = "must succeed, and was refused"
            raise PromiseBrokenError(f"{_named(method, request)} {what}: {_shown(outcome)}")
        return outcome

    async def refused(
        self,
        method: Callable[[Request], Awaitable[Reply]],
        request: Request,
        kind: type[ShimError] = ShimError,
    ) -> None:
        """See that a request is refused.

        Raises:
            PromiseBrokenError: it was not, or with a status that is not `kind`.
        """
        outcome = await self.outcome(method, request)
        wanted = "" if kind is ShimError else f" with {kind.code.name}"
        what = f"{_named(method, request)} must be refused{wanted}"
        if not isinstance(outcome, ShimError):
            answer = text_format.MessageToString(outcome, as_one_line=True)
            raise PromiseBrokenError(f"{what}, and was answered: {answer or 'OK'}")
        if not isinstance(outcome, kind):
            raise PromiseBrokenError(f"{what}, and the status was {_shown(outcome)}")

    async def create(self, program: Program = FOREVER, *, id_: str = CONTAINER) -> int:
        """Create a container; answers the pid."""
        request = self.shim.create_request(id_, program)
        self._created.append(id_)
        return (await self.ask(self.task.create, request)).pid

    async def start(self, exec_id: str = "", *, id_: str = CONTAINER) -> int:
        return (await self.ask(self.task.start, api.StartRequest(id=id_, exec_id=exec_id))).pid

    async def run(self, program: Program = FOREVER, *, id_: str = CONTAINER) -> int:
        """Create and Start."""
        await self.create(program, id_=id_)
        return await self.start(id_=id_)

    async def exec(self, exec_id: str, program: Program = FOREVER) -> None:
        """Register an exec."""
        await self.ask(self.task.exec, self.shim.exec_request(CONTAINER, exec_id, program))

    async def run_exec(self, exec_id: str, program: Program = FOREVER) -> int:
        """Exec and Start."""
        await self.exec(exec_id, program)
        return await self.start(exec_id)

    async def state(self, exec_id: str = "", *, id_: str = CONTAINER) -> api.StateResponse:
        return await self.ask(self.task.state, api.StateRequest(id=id_, exec_id=exec_id))

    async def is_in(self, status: Status.ValueType, exec_id: str = "") -> None:
        """See that State says so."""
        name = f"status of {exec_id or CONTAINER} in State"
        came = (await self.state(exec_id)).status
        equal(name, Status.Name(came), Status.Name(status))

    async def wait(self, exec_id: str = "", *, id_: str = CONTAINER) -> api.WaitResponse:
        return await self.ask(self.task.wait, api.WaitRequest(id=id_, exec_id=exec_id))

    async def ends_with(self, status: int, exec_id: str = "", *, id_: str = CONTAINER) -> None:
        """See that Wait says so."""
        ended = await self.wait(exec_id, id_=id_)
        equal(f"exit status of {exec_id or id_} in Wait", ended.exit_status, status)

    async def kill(self, signum: int = 9, exec_id: str = "", *, all_: bool = False) -> None:
        request = api.KillRequest(id=CONTAINER, exec_id=exec_id, signal=signum, all=all_)
        await self.ask(self.task.kill, request)

    async def delete(self, exec_id: str = "", *, id_: str = CONTAINER) -> api.DeleteResponse:
        return await self.ask(self.task.delete, api.DeleteRequest(id=id_, exec_id=exec_id))

    # ------------------------------------------------------------ what is told elsewhere

    async def told(self, last: type[Message], *ids: str) -> list[Message] | None:
        """All events, once there is one of the kind `last` for each of these containers' inits.

        Args:
            last: the event to wait for.
            ids: of containers; without any: `CONTAINER`.

        Returns:
            None if nobody listens.

        Raises:
            PromiseBrokenError: it never comes.
        """
        if self.shim.envelopes is None:
            return None
        wanted = set(ids or (CONTAINER,))
        told: list[Message] = []
        with trio.move_on_after(PATIENCE):
            while True:
                told = [unpack(envelope) for envelope in self.shim.envelopes or ()]
                if wanted <= {_container(event) for event in told if isinstance(event, last)}:
                    return told
                await trio.sleep(_AGAIN)
        came = [type(event).__name__ for event in told]
        what = f"an event {last.__name__} of {' and '.join(sorted(wanted))} must come"
        raise PromiseBrokenError(f"{what}, and in {PATIENCE} s came {came}")

    async def is_gone(self) -> bool:
        """A new connection is answered by nobody."""
        request = api.ConnectRequest(id=CONTAINER)
        try:
            async with self.shim.connection() as caller:
                await TaskClient(caller).connect(request, timeout=PATIENCE)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, UnavailableError):
            return True
        except ShimError:  # somebody refuses
            return False
        return False

    async def goes(self) -> None:
        """See that the shim ends.

        Raises:
            PromiseBrokenError: it still answers after a while.
        """
        with trio.move_on_after(PATIENCE):
            while not await self.is_gone():  # noqa: ASYNC110 (another process: nothing else tells)
                await trio.sleep(_AGAIN)
            return
        raise PromiseBrokenError(f"the shim must end, and answers after {PATIENCE} s")

    # ------------------------------------------------------------ the end

    async def tidy(self) -> None:
        """Delete what the case has left and shut the shim down, as far as it obeys."""
        for id_ in dict.fromkeys(self._created):
            with suppress(PromiseBrokenError):
                await self._remove(id_)
        with suppress(PromiseBrokenError):  # it may have ended with its last container
            await self.outcome(self.task.shutdown, api.ShutdownRequest(id=CONTAINER))

    async def _remove(self, id_: str) -> None:
        state = await self.outcome(self.task.state, api.StateRequest(id=id_))
        if isinstance(state, ShimError):
            return
        if state.status not in {_CREATED, _STOPPED}:
            await self.outcome(self.task.kill, api.KillRequest(id=id_, signal=9, all=True))
            await self.outcome(self.task.wait, api.WaitRequest(id=id_))
        await self.outcome(self.task.delete, api.DeleteRequest(id=id_))


async def together(calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """The results of calls that are made at the same time.

    Raises:
        PromiseBrokenError: that of the first call in the list which failed, and no group.
    """
    results: dict[int, T] = {}
    failures: dict[int, PromiseBrokenError] = {}

    async def one(number: int) -> None:
        try:
            results[number] = await calls[number]()
        except PromiseBrokenError as error:
            failures[number] = error

    async with trio.open_nursery() as nursery:
        for number in range(len(calls)):
            nursery.start_soon(one, number)
    if failures:
        raise failures[min(failures)]
    return [results[number] for number in range(len(calls))]


def equal(what: str, came: object, expected: object) -> None:
    """Raise `PromiseBrokenError` if they differ."""
    if came != expected:
        raise PromiseBrokenError(f"{what}: expected {expected!r}, came {came!r}")


def holds(what: str, true: object, came: object) -> None:
    """Raise `PromiseBrokenError` with `what` and what came, if it is not `true`."""
    if not true:
        raise PromiseBrokenError(f"{what}; came {came!r}")


def _container(event: Message) -> str:
    """The container whose init an event is about; "" if it is about an exec."""
    id_: str = getattr(event, "container_id", "")
    return id_ if getattr(event, "id", "") in {"", id_} else ""


def _named(method: Callable[[Request], Awaitable[Reply]], request: Request) -> str:
    words = text_format.MessageToString(request, as_one_line=True)
    name = getattr(method, "__name__", "request").title().replace("_", "")
    return f"{name}({words[:200]})"


def _shown(error: ShimError) -> str:
    return f"{error.code.name} {str(error)!r}"
