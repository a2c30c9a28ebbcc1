"""Enter a context as a whole, or not at all.

A shelter (`trioshim.ttrpc._shelter`) that is cancelled while it opens never ends: its task is
shielded already, and trio does not hand a task over to a nursery that is cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import trio

__all__ = ["enter_whole"]

T = TypeVar("T")


@asynccontextmanager
async def enter_whole(context: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """As `async with context`, but a cancellation waits until the block has begun.

    Args:
        context: does not wait for anybody when it is entered.
    """
    with trio.CancelScope(shield=True) as scope:
        async with context as value:
            scope.shield = False
            yield value
