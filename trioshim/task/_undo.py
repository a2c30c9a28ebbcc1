"""Steps whose failure stops nobody: it is logged, and what comes after them is done.

A step of undoing has a second try: what was in the way of the first one, as a runtime that was
killed for memory or a mount that was busy, has often gone a moment later.  Nobody else would try.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from ..errors import NotFoundError, ShimError, UnimplementedError

__all__ = ["Step", "logged", "undo"]

log = logging.getLogger("trioshim.container")

UNDO_PAUSE = 1.0  # seconds before the second try

Step = Callable[[], Awaitable[None]]


async def logged(id_: str, what: str, step: Step, *, tries: int = 1) -> None:
    """Take a step for a container; its failure, or that there is nothing to do, is logged."""
    for left in reversed(range(tries)):
        try:
            await step()
        except (NotFoundError, UnimplementedError) as error:
            log.debug("%s: nothing to %s: %s", id_, what, error)
        except (ShimError, OSError) as error:
            if left:
                log.info("%s: to %s is tried once more, after: %s", id_, what, error)
                await trio.sleep(UNDO_PAUSE)
                continue
            log.warning("%s: cannot %s: %s", id_, what, error)
        return


async def undo(id_: str, what: str, step: Step, *, within: float) -> None:
    """In a time of its own, `within` seconds: a step that hangs does not take it from the next."""
    with trio.move_on_after(within) as patience:
        await logged(id_, what, step, tries=2)
    if patience.cancelled_caught:
        log.error("%s: cannot %s within %g s, given up", id_, what, within)
