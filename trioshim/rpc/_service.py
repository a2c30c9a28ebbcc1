"""A `.proto` service bound to an object's async methods; one table for every wire.

The protobuf descriptor knows the methods and their types, so there is no code generator: method
`CloseIO` of the descriptor is `close_io` of the object.  `Dispatcher.call` is where bytes become
requests, results become bytes, and law 8 holds: a call that changes something runs to its end
even if its caller leaves; a read ends with its caller.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import trio
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from .._instant import instant_of
from ..errors import (
    DeadlineExceededError,
    InternalError,
    ShimError,
    StatusError,
    UnavailableError,
    UnimplementedError,
)

__all__ = ["Dispatcher", "Method", "Service"]

log = logging.getLogger("trioshim.rpc")

_KEPT = 64  # requests that are remembered for each instant method
_SMALL = 256  # bytes: State with two of the longest ids has 156


@dataclass(frozen=True, slots=True)
class Method:
    """One method: what it takes, who answers, and whether it only looks.

    Attributes:
        instant: the same as `answer` without a wait, if the method can do that.
    """

    name: str
    request_type: type[Message]
    answer: Callable[[Any], Awaitable[Message]]
    reads: bool
    instant: Callable[[Any], Message] | None = None


class Service:
    """The methods of a protobuf service, answered by an object.

    Args:
        descriptor: the service, as in `task_pb2.DESCRIPTOR.services_by_name["Task"]`.
        implementation: has an `async def method_name(self, request) -> response` for each method
            that it answers; the others are UNIMPLEMENTED.  What is marked `instant` is answered
            by whoever has read the request; it leaves the request as it is, and may get the same
            one again.
        reads: names of the methods that change nothing (law 8).
        name: the name on the wire, if it is not the descriptor's.
    """

    def __init__(
        self,
        descriptor: ServiceDescriptor,
        implementation: object,
        *,
        reads: Collection[str] = (),
        name: str = "",
    ) -> None:
        self.name = name or descriptor.full_name
        self.descriptor = descriptor
        self.methods: dict[str, Method] = {}
        for method in descriptor.methods:
            answer = getattr(implementation, _snake_case(method.name), None)
            if answer is not None:
                self.methods[method.name] = Method(
                    method.name,
                    GetMessageClass(method.input_type),
                    answer,
                    method.name in reads,
                    instant_of(answer),
                )


class Dispatcher:
    """Finds the method, decodes, runs and encodes: the same for every wire.

    Args:
        services: what can be called.
        lasting: the nursery for calls that outlive their caller.
    """

    def __init__(self, services: Iterable[Service], lasting: trio.Nursery) -> None:
        self.services = {service.name: service for service in services}
        self._lasting = lasting
        self._instant = {
            (service.name, method.name): _Look(method, method.instant)
            for service in self.services.values()
            for method in service.methods.values()
            if method.instant is not None
        }

    def call_at_once(self, service: str, method: str, payload: bytes) -> bytes | None:
        """Answer one request now; None: it may have to wait, it is for `call`.

        Raises:
            ShimError: as `call`.
        """
        found = self._instant.get((service, method))
        if found is None:
            return None
        try:
            return found.answer(found.request(payload)).SerializeToString()
        except ShimError:
            raise
        except Exception as error:  # noqa: BLE001 (as in `_run`)
            raise _as_status(found.method, error) from None

    async def call(
        self, service: str, method: str, payload: bytes, *, deadline: float = float("inf")
    ) -> bytes:
        """Answer one request.

        Args:
            service, method: the names as they came.
            payload: the serialized request.
            deadline: trio's clock, seconds; a read ends there, a change goes on unanswered.

        Raises:
            ShimError: the status to answer; every other exception has become one.
        """
        found = self._find(service, method)
        request = _parsed(found, payload)
        if deadline <= trio.current_time():  # nobody waits: do not even begin
            raise DeadlineExceededError
        run = _run if found.reads else self._run_to_its_end
        if deadline == float("inf"):  # a scope costs as much as a small call
            return await run(found, request)
        with trio.move_on_at(deadline):
            return await run(found, request)
        raise DeadlineExceededError

    def _find(self, service: str, method: str) -> Method:
        found = self.services.get(service)
        if found is None:
            raise UnimplementedError(f"service {service}")
        if method not in found.methods:
            raise UnimplementedError(f"method {method}")
        return found.methods[method]

    async def _run_to_its_end(self, method: Method, request: Message) -> bytes:
        done = trio.Event()
        result: list[bytes | ShimError] = []

        async def run() -> None:
            try:
                result.append(await _run(method, request))
            except ShimError as error:
                result.append(error)
            finally:  # cancelled: the shim ends, and there is no result
                done.set()

        self._lasting.start_soon(run, name=f"{method.name} {getattr(request, 'id', '')}")
        await done.wait()
        if not result:
            raise UnavailableError("the shim is shutting down")
        if isinstance(result[0], ShimError):
            raise result[0]
        return result[0]


class _Look:
    """An instant method, and requests that it was asked: who polls asks the same again.

    Only requests are remembered, which the method does not change; an answer is made each time.
    """

    __slots__ = ("_known", "answer", "method")

    def __init__(self, method: Method, answer: Callable[[Any], Message]) -> None:
        self.method = method
        self.answer = answer
        self._known: dict[bytes, Message] = {}

    @property
    def remembered(self) -> int:
        """How many."""
        return len(self._known)

    def request(self, payload: bytes) -> Message:
        if len(payload) > _SMALL:  # to hash it would take as long as to parse it
            return _parsed(self.method, payload)
        request = self._known.get(payload)
        if request is None:
            request = _parsed(self.method, payload)
            if len(self._known) == _KEPT:
                self._known.clear()
            self._known[payload] = request
        return request


def _parsed(method: Method, payload: bytes) -> Message:
    try:
        return method.request_type.FromString(payload)
    except DecodeError as error:
        text = f"cannot read the payload of {method.name}: {error}"
        raise InternalError(text) from None


async def _run(method: Method, request: Message) -> bytes:
    """The serialized answer; every exception but a cancellation is a `ShimError`."""
    try:
        answer = await method.answer(request)
        return answer.SerializeToString()
    except ShimError:
        raise
    except Exception as error:  # noqa: BLE001 (the one seam)
        raise _as_status(method, error) from None
    except BaseExceptionGroup as group:
        errors, others = group.split(Exception)
        if errors is not None:
            log.error("%s failed while it was cancelled", method.name, exc_info=errors)
        assert others is not None
        raise others from None


def _as_status(method: Method, error: Exception) -> ShimError:
    """What a handler raised, as what a client is told."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, ShimError):
        return error
    if isinstance(error, OSError):
        log.warning("%s: %s", method.name, error)
    else:
        log.error("%s failed", method.name, exc_info=error)
    return StatusError(str(error) or type(error).__name__)


@functools.cache  # there are few names, and a simulated shim is made a thousand times a second
def _snake_case(name: str) -> str:
    """`CloseIO` to `close_io`."""
    parts = [
        f"_{c}" if c.isupper() and i and not name[i - 1].isupper() else c
        for i, c in enumerate(name)
    ]
    return "".join(parts).lower()
