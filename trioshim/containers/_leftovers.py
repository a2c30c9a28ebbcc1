"""What programs that were killed have left: found by their locks, ended and removed, each once."""

from __future__ import annotations

import logging
import os
from contextlib import suppress

import trio

from ..client import LaunchError, launch
from ..errors import ShimError
from ..proto import task_v2_pb2 as api
from ._store import Bundle, find_leftovers

__all__ = ["SHIM_FILE", "remove_leftovers"]

log = logging.getLogger("trioshim.containers")

SHIM_FILE = "shim"  # in a bundle: the program of its shim
_PATIENCE = 30.0  # seconds for each


async def remove_leftovers(namespace: str, state_dir: str | os.PathLike[str]) -> None:
    """End and remove the containers whose programs have been killed.  Not to be cancelled.

    What cannot be removed is logged, and left to the next who tries.
    """
    leftovers = find_leftovers(namespace=namespace, state_dir=state_dir)
    if not leftovers:
        return
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as nursery:
            for bundle in leftovers:
                nursery.start_soon(_remove, bundle)


async def _remove(bundle: Bundle) -> None:
    log.warning("container %s was left over by a program that was killed", bundle.id)
    try:
        with trio.fail_after(_PATIENCE):
            await _end(bundle)
            await bundle.remove()
    except (LaunchError, OSError, trio.TooSlowError) as error:
        log.error("container %s cannot be removed: %s", bundle.id, error)
        bundle.release()


async def _end(bundle: Bundle) -> None:
    """`start` finds the shim that is there, or makes one; leaving the block ends both."""
    try:
        shim = (bundle.path / SHIM_FILE).read_text("utf-8")
    except FileNotFoundError:
        return  # it had not come so far
    async with (
        launch(shim, bundle.path, id=bundle.id, namespace=bundle.namespace) as launched,
        launched.client() as task,
    ):
        with suppress(ShimError):
            await task.kill(api.KillRequest(id=bundle.id, signal=9, all=True))
            await task.wait(api.WaitRequest(id=bundle.id))
        with suppress(ShimError):
            await task.delete(api.DeleteRequest(id=bundle.id))
        with suppress(ShimError):
            await task.shutdown(api.ShutdownRequest(id=bundle.id))
