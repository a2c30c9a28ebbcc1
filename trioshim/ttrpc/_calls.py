"""A caller that waits for a reply, and for how long: the same for the clients of both wires."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVarTuple

import trio

from ..errors import DeadlineExceededError, ShimError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Call", "in_time"]

Args = TypeVarTuple("Args")


class Call:
    """A caller that waits.

    Attributes:
        answered: wakes it; set without a reply when the connection has ended.
        reply: the payload, or the status that the server answered.
    """

    __slots__ = ("answered", "reply")

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.reply: bytes | ShimError | None = None

    def answer(self, reply: bytes | ShimError) -> None:
        self.reply = reply
        self.answered.set()

    def result(self, closed: str) -> bytes:
        """The payload of the reply.

        Args:
            closed: what to say if none has come.

        Raises:
            ShimError: the reply is one.
            UnavailableError: none has come.
        """
        if isinstance(self.reply, bytes):
            return self.reply
        raise self.reply or UnavailableError(closed)


async def in_time(
    timeout: float | None,
    call: Callable[[float | None, *Args], Awaitable[bytes]],
    *args: *Args,
) -> bytes:
    """Make a call that may take so long.

    Args:
        timeout: seconds; None or infinite: no limit, and `call` gets None.
        call: gets the timeout, to tell it to the server, and `args`.

    Raises:
        DeadlineExceededError: the time is over; if it was before, `call` was not made.
    """
    if timeout is None or timeout == math.inf:
        return await call(None, *args)
    if timeout <= 0:
        await trio.lowlevel.checkpoint()
        raise DeadlineExceededError
    with trio.move_on_after(timeout):
        return await call(timeout, *args)
    raise DeadlineExceededError
