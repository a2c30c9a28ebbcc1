"""A nursery for helpers: they live exactly as long as the block they help.

A cancellation from outside reaches the block, but not its helpers: while the block still says
good-bye inside of a shield, its reader reads and its writer writes.  And the block's own error
comes out as it is, not in an `ExceptionGroup`.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["closed_at_the_end", "open_shelter", "undisturbed"]

# For helpers: a Ctrl-C that finds one running is not its own, and would come out in a group while
# what it helped still needs it.  The main task gets it, at its next checkpoint.
undisturbed = trio.lowlevel.enable_ki_protection


@asynccontextmanager
async def closed_at_the_end(stream: trio.abc.AsyncResource) -> AsyncIterator[None]:
    """As `async with stream`, but a cancellation does not hide the error that leaves the block."""
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):  # closing by force waits for nobody
            await trio.aclose_forcefully(stream)


@asynccontextmanager
async def open_shelter() -> AsyncIterator[trio.Nursery]:
    """Open a nursery whose tasks are cancelled by the end of the block and by nothing else.

    Raises:
        ExceptionGroup: a helper failed; the block is cancelled then.
    """
    shelter = _Shelter()
    error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        # Not `nursery.start`: a Ctrl-C in there would wait for a task that nothing ends.
        nursery.start_soon(shelter.stand)
        try:
            await shelter.opened.wait()
            yield shelter.helpers
        except BaseException as exc:  # noqa: BLE001 (raised again below, Cancelled too)
            error = exc
        shelter.scope.cancel()
    if error is not None:
        try:
            raise error
        finally:
            del error  # or the traceback and this frame keep each other alive


class _Shelter:
    """The helpers' nursery, in a task that only its own scope can end."""

    helpers: trio.Nursery

    def __init__(self) -> None:
        self.scope = trio.CancelScope(shield=True)
        self.opened = trio.Event()

    async def stand(self) -> None:
        with self.scope:
            async with trio.open_nursery() as self.helpers:
                self.opened.set()
                await trio.sleep_forever()
