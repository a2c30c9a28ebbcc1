"""How a process ends when its block does: asked first, then killed, then deleted; never cancelled.

At most GRACE seconds after SIGTERM, KILLED more after SIGKILL, then `delete` of the shim's binary
does what is left (`client.launch`).  No request to the shim is waited for longer than that: it
may have been stopped, and `launch` ends it then.
"""

from __future__ import annotations

import logging
import signal as signals
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from ..errors import ShimError, UnavailableError
from ..proto import task_v2_pb2 as api
from ..ttrpc._shelter import undisturbed

if TYPE_CHECKING:
    from ._process import ContainerProcess

__all__ = ["GRACE", "Deliver", "end_process"]

log = logging.getLogger("trioshim.containers")

GRACE = 5.0  # seconds that a process has after SIGTERM, as with trio.run_process
_KILLED = 10.0  # seconds for what SIGKILL must end
_UNREAD = 0.5  # seconds for whoever still reads its output

Deliver = Callable[["ContainerProcess"], Awaitable[object]]


async def end_process(process: ContainerProcess, deliver: Deliver | None) -> None:
    """End a process and forget it.  Shielded; a shim that is gone is no error here.

    Args:
        process: init, and its container with it, or an exec.
        deliver: how it is asked to end; None: SIGTERM, then SIGKILL after `GRACE` seconds.

    Raises:
        Exception: `deliver` has failed; the process is ended all the same.
    """
    with trio.CancelScope(shield=True):
        try:
            if process._helpers is not None:  # noqa: SLF001 (same package)
                with trio.move_on_after(_KILLED):
                    await process._begun.wait()  # noqa: SLF001
                if not process._ended.is_set():  # noqa: SLF001
                    await _stop(process, deliver or _terminate)
        finally:
            await _forget(process)
            await process._end_streams()  # noqa: SLF001


async def _forget(process: ContainerProcess) -> None:
    if process._given_up:  # noqa: SLF001 (same package)
        return
    request = api.DeleteRequest(id=process.id, exec_id=process.exec_id)
    dropping = trio.CancelScope()
    if process._helpers is not None:  # noqa: SLF001
        process._helpers.start_soon(_drop_unread, process, dropping)  # noqa: SLF001
    try:
        with trio.move_on_after(_KILLED):
            await process._task.delete(request)  # noqa: SLF001
    except ShimError as error:
        log.debug("the end of %s %s: %s", process.id, process.exec_id, error)
    finally:
        dropping.cancel()


@undisturbed
async def _drop_unread(process: ContainerProcess, scope: trio.CancelScope) -> None:
    with scope:
        await process._fifos.drop_unread(idle=_UNREAD)  # noqa: SLF001 (same package)


async def _stop(process: ContainerProcess, deliver: Deliver) -> None:
    """Until it has ended.  A helper does it: so an error here is not in a group."""
    helpers = process._helpers  # noqa: SLF001 (same package)
    assert helpers is not None
    stopping = _Stopping(process, deliver)
    helpers.start_soon(stopping.run)
    try:
        await process._ended.wait()  # noqa: SLF001
    finally:
        stopping.scope.cancel()
    if stopping.error is not None:
        raise stopping.error


class _Stopping:
    """Asks a process to end, and kills it.

    Attributes:
        scope: to be cancelled when it has ended.
        error: what was wrong with `deliver`.
    """

    def __init__(self, process: ContainerProcess, deliver: Deliver) -> None:
        self.scope = trio.CancelScope()
        self.error: Exception | None = None
        self._process = process
        self._deliver = deliver

    async def run(self) -> None:
        with self.scope:
            await self._ask()
            with trio.move_on_after(_KILLED):
                await self._kill()
                await trio.sleep_forever()
            log.warning("%s %s does not end", self._process.id, self._process.exec_id)
            self._process._give_up()  # noqa: SLF001 (same package)

    async def _ask(self) -> None:
        try:
            await self._deliver(self._process)
        except ShimError as error:
            log.warning("%s %s: %s", self._process.id, self._process.exec_id, error)
        except Exception as error:  # noqa: BLE001 (raised again when the process has ended)
            self.error = error
        else:
            await trio.sleep(GRACE)

    async def _kill(self) -> None:
        try:
            with _answered():
                await self._process.kill()
        except ShimError as error:
            log.warning(
                "%s %s cannot be killed: %s", self._process.id, self._process.exec_id, error
            )
            self._process._give_up()  # noqa: SLF001 (same package)


async def _terminate(process: ContainerProcess) -> None:
    """SIGTERM if that can have an effect: Linux drops it for an init that does not catch it."""
    with _answered():
        if process.exec_id or _catches(process.pid, signals.SIGTERM):
            await process.terminate()
        else:
            await process.kill()


@contextmanager
def _answered() -> Iterator[None]:
    """The shim has to answer in good time."""
    with trio.move_on_after(GRACE) as limit:
        yield
    if limit.cancelled_caught:
        raise UnavailableError(f"its shim does not answer for {GRACE:g} seconds")


def _catches(pid: int, signum: int) -> bool:
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            masks = dict(line.split(":", 1) for line in file)
        return bool(int(masks["SigCgt"], 16) >> (signum - 1) & 1)
    except (OSError, KeyError, ValueError):
        return True  # it has ended, or /proc says nothing: ask
