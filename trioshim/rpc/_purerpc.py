"""Services written for purerpc, served beside ours: its `Servicer` objects fit our table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from types import SimpleNamespace
from typing import Any

from google.protobuf.message import Message

from ..errors import from_status
from ._service import Service, _snake_case

__all__ = ["from_purerpc"]


def from_purerpc(service: Any, *, reads: Collection[str] = ()) -> Service:
    """A `purerpc.Service`, for both wires; its methods with a stream are UNIMPLEMENTED.

    Args:
        service: what the `service` of a generated `Servicer` gives.
        reads: names of the methods that change nothing (law 8).

    Raises:
        ValueError: no `.proto` that is imported defines this service.
    """
    unary = {
        name: method
        for name, method in service.methods.items()
        if method.signature.cardinality.name == "UNARY_UNARY"
    }
    pools = {method.signature.request_type.DESCRIPTOR.file.pool for method in unary.values()}
    for pool in pools:
        try:
            descriptor = pool.FindServiceByName(service.name)
        except KeyError:
            continue
        answers = {_snake_case(name): _answer(method.method_fn) for name, method in unary.items()}
        return Service(descriptor, SimpleNamespace(**answers), reads=reads)
    raise ValueError(f"no .proto with the service {service.name}: import its generated module")


def _answer(answer: Callable[..., Awaitable[Message]]) -> Callable[[Message], Awaitable[Message]]:
    async def answer_or_status(request: Message) -> Message:
        try:
            return await answer(request, None)  # purerpc's view of the headers: there is none
        except Exception as error:  # noqa: BLE001 (raised again, as ours)
            raise _as_ours(error) from None

    return answer_or_status


def _as_ours(error: Exception) -> Exception:
    from purerpc import RpcFailedError  # imported already: by whoever made the service

    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, RpcFailedError):
        return from_status(error.status.int_value, error.status.status_message)
    return error
