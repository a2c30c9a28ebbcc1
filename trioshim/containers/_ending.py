"""How a process ends when its block does: asked first, then killed, then deleted; never cancelled.

At most GRACE seconds after SIGTERM, KILLED more after SIGKILL, then `delete` of the shim's binary
does what is left (`client.launch`).
"""

from __future__ import annotations

import logging
import signal as signals
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from ..errors import ShimError
from ..proto import task_v2_pb2 as api

if TYPE_CHECKING:
    from ._process import ContainerProcess

__all__ = ["GRACE", "Deliver", "end_process"]

log = logging.getLogger("trioshim.containers")

GRACE = 5.0  # seconds that a process has after SIGTERM, as with trio.run_process
_KILLED = 10.0  # seconds for what SIGKILL must end
_READ = 2.0  # seconds in which the last output is copied before the streams are closed

Deliver = Callable[["ContainerProcess"], Awaitable[object]]


async def end_process(process: ContainerProcess, deliver: Deliver | None) -> None:
    """End a process and forget it.  Shielded; a shim that is gone is no error here.

    Args:
        process: init, and its container with it, or an exec.
        deliver: how it is asked to end; None: SIGTERM, then SIGKILL after `GRACE` seconds.
    """
    with trio.CancelScope(shield=True):
        try:
            if process.returncode is None and process.pid:
                await _stop(process, deliver or _terminate)
            else:
                with trio.move_on_after(_READ):
                    await process._copied()  # noqa: SLF001 (same package)
            with trio.move_on_after(_KILLED):
                await process._task.delete(  # noqa: SLF001
                    api.DeleteRequest(id=process.id, exec_id=process.exec_id)
                )
                await process._copied()  # noqa: SLF001
        except ShimError as error:
            log.debug("the end of %s %s: %s", process.id, process.exec_id, error)


async def _stop(process: ContainerProcess, deliver: Deliver) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_deliver, process, deliver)
        await process._ended.wait()  # noqa: SLF001
        nursery.cancel_scope.cancel()


async def _deliver(process: ContainerProcess, deliver: Deliver) -> None:
    try:
        await deliver(process)
        await trio.sleep(GRACE)
        await process.kill()
        await trio.sleep(_KILLED)
    except ShimError as error:
        log.warning("%s %s cannot be ended: %s", process.id, process.exec_id, error)
    process._give_up()  # noqa: SLF001 (same package)


async def _terminate(process: ContainerProcess) -> None:
    """SIGTERM if that can have an effect: Linux drops it for an init that does not catch it."""
    if process.exec_id or _catches(process.pid, signals.SIGTERM):
        await process.terminate()
    else:
        await process.kill()


def _catches(pid: int, signum: int) -> bool:
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            masks = dict(line.split(":", 1) for line in file)
        return bool(int(masks["SigCgt"], 16) >> (signum - 1) & 1)
    except (OSError, KeyError, ValueError):
        return True  # it has ended, or /proc says nothing: ask
