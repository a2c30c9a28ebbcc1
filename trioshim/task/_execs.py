"""The execs of one container: added, started, ended, deleted.

    live  ┌ streams ─────────────────────────────────────────────┐
          │ ┌ running ─────────────────────────────┐             │
          │ │ exec · ExecStarted · wait · TaskExit │             │ Delete
          │ └──────────────────────────────────────┘             │
          └──────────────────────────────────────────────────────┘

The inner block is a task of the nursery that init's exit waits for (law 3), the outer one of the
nursery that lives until the container is deleted: output may still flow when a process has ended.
"""

from __future__ import annotations

import logging

import trio

from ..abc import Child, ContainerSpec, ExecSpec, Exit, Kernel, Runtime, Stdio
from ..errors import AlreadyExistsError, FailedPreconditionError, NotFoundError
from . import _messages as messages
from ._events import Emit
from ._process import Ended, Process
from ._states import EXEC, Verb

__all__ = ["Execs", "kill_quietly"]

log = logging.getLogger("trioshim.exec")

GRACE = 10.0  # seconds that an exec may outlive init before it is given up (P2: D-state)
KILLED = 128 + 9
REMEMBERED = 64  # deleted execs whose Delete can be asked again (P14)


class Execs:
    """What requests do to the execs of a container.

    Attributes:
        streams: nursery of their streams; opened and closed by the container.
        running: nursery of the running ones; opened and closed by the container.
    """

    streams: trio.Nursery
    running: trio.Nursery

    def __init__(self, spec: ContainerSpec, runtime: Runtime, kernel: Kernel, emit: Emit) -> None:
        self._spec = spec
        self._runtime = runtime
        self._kernel = kernel
        self._emit = emit
        self._all: dict[str, Process] = {}
        self._deleted: dict[str, Ended] = {}
        self._closed = False

    def get(self, exec_id: str) -> Process:
        """One of them.

        Raises:
            NotFoundError: no such exec.
        """
        try:
            return self._all[exec_id]
        except KeyError:
            raise NotFoundError(f"process does not exist {exec_id}") from None

    def by_pid(self) -> dict[int, str]:
        """pid to id of those that run."""
        return {p.pid: p.id for p in self._all.values() if p.pid and p.exit is None}

    def close(self) -> None:
        """Init has ended: none may start any more, and those that run have a deadline."""
        self._closed = True
        for process in self._all.values():
            process.patience.deadline = trio.current_time() + GRACE

    def _check_open(self) -> None:
        if self._closed:
            raise FailedPreconditionError(f"container {self._spec.id} init process is not running")

    def add(self, spec: ExecSpec) -> None:
        """Register one; Start will run it.

        Raises:
            AlreadyExistsError: the id is taken.
        """
        if spec.id in self._all:
            raise AlreadyExistsError(f"id {spec.id}")
        self._deleted.pop(spec.id, None)
        self._all[spec.id] = Process(spec.id, spec.io, EXEC, spec=spec)
        self._emit(messages.task_exec_added(self._spec.id, spec.id))

    async def start(self, exec_id: str) -> int:
        """Run it; answers its pid when TaskExecStarted is queued (law 6)."""
        process = self.get(exec_id)
        async with process.changing:
            process.check(Verb.START)
            self._check_open()
            try:
                await self.streams.start(self._live, process)
            except BaseException:
                process.release_waiters()  # as containerd's shims do: nobody waits for ever
                raise
        return process.pid

    async def delete(self, exec_id: str) -> Ended:
        """Copy what is left of its output and forget it.  Asked again: the same answer (P14)."""
        if exec_id in self._deleted:
            return self._deleted[exec_id]
        process = self.get(exec_id)
        async with process.changing:
            if exec_id in self._deleted:  # another Delete was quicker
                return self._deleted[exec_id]
            process.check(Verb.DELETE)
            if process.stdio is not None:
                await process.stdio.drain()
            process.did(Verb.DELETE)
            del self._all[exec_id]
            self._remember(process)
            process.deleted.set()
            process.release_waiters()
        return process.ended

    def _remember(self, process: Process) -> None:
        self._deleted[process.id] = process.ended
        while len(self._deleted) > REMEMBERED:
            del self._deleted[next(iter(self._deleted))]

    async def _live(
        self, process: Process, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        try:
            async with self._kernel.open_stdio(process.io) as stdio:
                process.has_streams(stdio)
                self._check_open()  # init may have ended while the client opened its fifos
                await self.running.start(self._run, process, stdio)
                task_status.started()
                await process.deleted.wait()
        except Exception:
            if process.child is None:  # it never ran: Start answers with this
                raise
            log.exception("streams of exec %s of %s failed", process.id, self._spec.id)
        finally:
            process.stdio = None

    async def _run(
        self,
        process: Process,
        stdio: Stdio,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        end: Exit | None = None
        process.patience = trio.CancelScope()
        with process.patience:
            await self._give_birth(process, stdio)
            assert process.child is not None
            try:
                process.did(Verb.START)
                self._emit(messages.task_exec_started(self._spec.id, process))
                task_status.started()
                stdio.take_input()
                end = await process.child.wait()
            finally:
                process.child.close()
        if process.child is None:
            self._check_open()
        if end is None:
            log.error("exec %s of %s cannot be killed: given up", process.id, self._spec.id)
            end = Exit(KILLED, self._kernel.now())
        process.exit = end
        process.did(Verb.EXIT)
        stdio.process_ended()
        self._emit(messages.task_exit(self._spec.id, process))
        process.exited.set()

    async def _give_birth(self, process: Process, stdio: Stdio) -> None:
        assert process.spec is not None
        child = await self._runtime.exec(self._spec, process.spec, stdio)
        try:
            await stdio.attach()
        except BaseException:
            kill_quietly(child)
            child.close()
            raise
        process.child = child


def kill_quietly(child: Child) -> None:
    """SIGKILL for a process that may have ended."""
    try:
        child.signal(9)
    except ProcessLookupError:
        log.debug("process %d has ended by itself", child.pid)
