"""The life of a shim that is not our child: its beginning, and above all its end.

Rules of this file:

* what has begun in the shim's own program runs to its end, within a time limit: half a `start`
  would leave a server that nobody knows;
* a signal goes only to a process that came from our own `start` (`_shim_process`);
* at the end the shim is asked before it is killed, and while it still answers its container is
  deleted, so that it can tell of the exit.
"""

from __future__ import annotations

import logging
import os
import signal
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from ..bootstrap import socket_address
from ..bootstrap._files import read_file, remove
from ..bootstrap._sockets import remove_dead_socket
from ..errors import (
    DeadlineExceededError,
    NotFoundError,
    ShimError,
    UnavailableError,
    UnimplementedError,
)
from ..proto import task_v2_pb2 as api
from ..ttrpc._shelter import undisturbed
from ._event_sink import EventSink
from ._launched_shim import LaunchedShim, open_answer
from ._shim_answer import Answer, read_answer
from ._shim_binary import LaunchError, ShimBinary
from ._shim_log import ShimLog
from ._shim_process import Mark, ShimProcess, find_listeners
from ._task import TaskClient

if TYPE_CHECKING:
    from ._task import Caller

__all__ = ["ShimLife"]

_log = logging.getLogger("trioshim.client")

# Seconds.
_GRACE = 5.0  # for a `start` whose caller was cancelled
_MEET = 10.0  # to connect, and to be told the pid
_STATE = 2.0  # as containerd has it
_SHUTDOWN = 3.0  # likewise
_DRAIN = 8.0  # shims take up to 5 to send their last events
_TERM = 2.0  # for a shim that has not answered
_KILL = 5.0
_PAUSE = 0.5  # before a shim that agreed to end is asked again


class ShimLife:
    """One shim, from its `start` to the last look whether it is gone.

    Args:
        binary: its program.
        events: where its events go.
        log: its log.
        mark: is in the environment of `start`, and made before that is run.
        helpers: outlive the block; no cancellation from outside reaches them.
    """

    def __init__(
        self,
        binary: ShimBinary,
        events: EventSink,
        log: ShimLog,
        mark: Mark,
        helpers: trio.Nursery,
    ) -> None:
        self._binary = binary
        self._events = events
        self._log = log
        self._helpers = helpers
        self._mark = mark
        self._starting = trio.CancelScope()
        self._started = trio.Event()
        self._answer: Answer | LaunchError | None = None
        self._process: ShimProcess | None = None
        self._shim: LaunchedShim | None = None

    # ------------------------------------------------------------ the beginning

    async def begin(self, options: bytes, seconds: float) -> LaunchedShim:
        """Start the shim and be told its pid.  Whatever is raised, `end` cleans up."""
        # Among the helpers a cancellation does not reach it; `end` waits for it, but not long.
        self._helpers.start_soon(self._run_start, options, seconds)
        await self._started.wait()
        if isinstance(self._answer, LaunchError):
            raise self._answer
        assert self._answer is not None
        self._shim = await self._meet(self._answer)
        return self._shim

    @undisturbed
    async def _run_start(self, options: bytes, seconds: float) -> None:
        try:
            with self._starting:
                self._answer = await self._binary.start(options, seconds=seconds)
        except LaunchError as error:
            self._answer = error
        finally:
            self._started.set()

    async def _meet(self, answer: Answer) -> LaunchedShim:
        try:
            with trio.fail_after(_MEET):
                async with open_answer(answer) as caller:
                    service, process = await self._identify(caller, answer)
        except OSError as error:
            raise self._stranger(answer, f"nobody listens there ({error})") from error
        except trio.TooSlowError:
            text = f"there is no answer to Connect within {_MEET:g} seconds"
            raise self._stranger(answer, text) from None
        except ShimError as error:
            raise self._stranger(answer, f"Connect fails there ({error})") from error
        shared = not self._mark.is_on(process)
        return LaunchedShim(self._binary, answer, service, process, self._events, shared=shared)

    def _stranger(self, answer: Answer, why: str) -> LaunchError:
        message = f"{self._binary.program} start answered {answer.address!r}, but {why}"
        return LaunchError(message, said=self._log.tail())

    async def _identify(self, caller: Caller, answer: Answer) -> tuple[str, ShimProcess]:
        """The service's name, and the process that answers there."""
        service, pid = await self._ask_pid(caller, answer.services)
        try:
            self._process = process = ShimProcess(pid)
        except (OSError, OverflowError) as error:
            raise UnavailableError(f"it says that its pid is {pid}: {error}") from None
        self._helpers.start_soon(process.watch)
        # It answers again, so the pidfd is not that of a successor in the pid.
        again = await self._ask_pid(caller, (service,))
        if again != (service, pid):
            raise UnavailableError(f"its pid was {pid}, and now it is {again[1]}")
        return service, process

    async def _ask_pid(self, caller: Caller, services: tuple[str, ...]) -> tuple[str, int]:
        request = api.ConnectRequest(id=self._binary.id)
        for service in services[:-1]:
            try:
                return service, (await TaskClient(caller, service).connect(request)).shim_pid
            except UnimplementedError as error:
                _log.debug("%s", error)
        service = services[-1]
        return service, (await TaskClient(caller, service).connect(request)).shim_pid

    # ------------------------------------------------------------ the end

    async def end(self, *, failed: bool) -> None:
        """Leave nothing.  To be shielded.

        Args:
            failed: an error leaves the block, and is not to be hidden by another one.

        Raises:
            LaunchError: the container or the shim could not be removed.
        """
        try:
            if self._shim is None or self._process is None:
                await self._abandon()
            elif self._shim.shared:
                await self._leave(self._shim)
            else:
                await self._stop(self._shim, self._process)
        except LaunchError:
            if not failed:
                raise
            _log.exception("the shim of %s may have left something", self._binary.id)

    async def _stop(self, shim: LaunchedShim, process: ShimProcess) -> None:
        held = None if process.ended.is_set() else await self._ask_to_end(shim, process)
        willing = held is False and process.ended.is_set()
        await _kill(process, _TERM if held is None else _DRAIN)
        try:
            if not willing and shim.deleted is None:
                # Only now: in a shim that does not answer, a Create may have been under way.
                await self._delete_alone(shim)
        finally:
            await _remove_sockets(self._paths())

    async def _delete_alone(self, shim: LaunchedShim) -> None:
        """There is no shim any more."""
        if not any(_is_socket(path) for path in self._paths()):
            # It tells of a socket that is gone: containerd-shim-runc-v1 fails to remove that, and
            # then removes nothing else.
            remove(os.path.join(shim.bundle, "address"))
        shim.deleted = await self._binary.delete()

    async def _leave(self, shim: LaunchedShim) -> None:
        """It is another's: the container goes, and the shim stays."""
        if await self._say_goodbye(shim) is not False and shim.deleted is None:
            shim.deleted = await self._binary.delete()

    async def _ask_to_end(self, shim: LaunchedShim, process: ShimProcess) -> bool | None:
        """`_say_goodbye`, again if need be: a Create that was under way brings a container."""
        deadline = trio.current_time() + _DRAIN
        held = await self._say_goodbye(shim)
        while held is False and trio.current_time() < deadline:
            if await process.ends_within(_PAUSE):
                break
            held = await self._say_goodbye(shim) or False  # no answer: it is about to end
        return held

    async def _say_goodbye(self, shim: LaunchedShim) -> bool | None:
        """Delete its container, if it has one, and tell it to shut down.

        Returns:
            Whether it had the container; None: it does not answer.
        """
        try:
            async with shim.client() as client:
                held = await _holds(client, shim.id)
                if held:
                    await self._delete(shim)
                    with suppress(ShimError):  # it has seen the exit, and can tell of it
                        await client.wait(api.WaitRequest(id=shim.id), timeout=_STATE)
                if held is not None and not shim.shared:
                    with suppress(ShimError):  # its process tells whether it obeys
                        request = api.ShutdownRequest(id=shim.id)
                        await client.shutdown(request, timeout=_SHUTDOWN)
                return held
        except OSError as error:
            _log.warning("the shim of %s does not listen any more: %s", shim.id, error)
            return None

    async def _delete(self, shim: LaunchedShim) -> None:
        try:
            shim.deleted = await self._binary.delete()
        except LaunchError as error:
            _log.warning("%s; it is tried again without the shim", error)

    async def _abandon(self) -> None:
        """There was no meeting: end what `start` may have left behind."""
        with trio.move_on_after(_GRACE):
            await self._started.wait()
        self._starting.cancel()
        await self._started.wait()
        paths = self._paths()
        for pid in await trio.to_thread.run_sync(find_listeners, paths):
            with suppress(ProcessLookupError):
                process = ShimProcess(pid)
                self._helpers.start_soon(process.watch)
                await self._kill_if_ours(process)
        if self._process is not None:
            await self._kill_if_ours(self._process)
        await _remove_sockets(paths)

    async def _kill_if_ours(self, process: ShimProcess) -> None:
        if self._mark.is_on(process):
            await _kill(process, 0)

    def _paths(self) -> tuple[str, ...]:
        """Where it listens.

        If `start` has not said so: where it would, by what it noted in the bundle and by
        containerd's own rule.
        """
        if isinstance(self._answer, Answer):
            return self._answer.paths
        binary = self._binary
        own = binary.environ.get("TRIOSHIM_SOCKET_DIR", "")
        usual = socket_address(binary.address, binary.namespace, binary.id, own)
        try:
            noted = read_answer(read_file(os.path.join(binary.bundle, "address"))).paths
        except (OSError, ValueError):
            noted = ()
        return (*noted, *Answer(usual).paths)


async def _holds(client: TaskClient, id_: str) -> bool | None:
    try:
        await client.state(api.StateRequest(id=id_), timeout=_STATE)
    except NotFoundError:
        return False
    except (DeadlineExceededError, UnavailableError) as error:
        _log.warning("the shim of %s does not answer: %s", id_, error)
        return None
    except ShimError as error:  # it has something of that name
        _log.warning("State of %s: %s", id_, error)
    return True


async def _kill(process: ShimProcess, patience: float) -> None:
    for signum, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, _KILL)):
        if process.ended.is_set():
            return
        if seconds:
            process.signal(signum)
            await process.ends_within(seconds)
    if not process.ended.is_set():
        raise LaunchError(f"process {process.pid} has not ended {_KILL:g} seconds after SIGKILL")


async def _remove_sockets(paths: Iterable[str]) -> None:
    for path in paths:
        if not path.startswith("\0") and _is_socket(path):
            await trio.to_thread.run_sync(remove_dead_socket, path)


def _is_socket(path: str) -> bool:
    with suppress(OSError):
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    return False
