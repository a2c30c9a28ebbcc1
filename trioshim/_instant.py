"""Methods that cannot wait, and so can be answered on the spot (law 7)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from types import MethodType
from typing import Any, TypeVar

__all__ = ["instant", "instant_of"]

Self = TypeVar("Self")
Request = TypeVar("Request")
Answer = TypeVar("Answer")


def instant(
    look: Callable[[Self, Request], Answer],
) -> Callable[[Self, Request], Coroutine[Any, Any, Answer]]:
    """Make an async method of a plain one: a server answers it without a task of its own.

    That it never waits is not promised but true: a plain function cannot.  It should take some
    ten microseconds, for everybody waits for it.
    """

    @functools.wraps(look)
    async def answer(self: Self, request: Request) -> Answer:
        return look(self, request)

    vars(answer)["instant"] = look
    return answer


def instant_of(method: Any) -> Callable[[Any], Any] | None:
    """The plain function below a bound method; None: it is not `instant`."""
    look = getattr(method, "instant", None)
    return None if look is None else MethodType(look, method.__self__)
