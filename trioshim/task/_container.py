"""A container from create to delete: the order of lines in `live` is the order of events.

    live  ┌ held: mounts, streams ─────────────────────────────────────────────┐
          │ create · TaskCreate                                                │
          │ ┌ running ────────────────┐                                        │
          │ │ init.wait()      execs  │  OOM watch   last OOM · TaskExit ·     │ Delete
          │ └─────────────────────────┘                                        │
          └────────────────────────────────────────────────────────────────────┘

Init's exit stands after the block of the running execs, so it is the last one (law 3).  `starting`
is held from before the runtime starts init until TaskStart is queued; the exit waits for it, so a
process that ends at once has started first (law 1, containerd#7111).  Requests that change
something take turns (`init.changing`); reads and Kill look at plain attributes and never wait
(law 7, containerd#13483).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from .._exit_record import FILE_NAME, RECEIPT, encode
from ..abc import (
    Cgroup,
    CheckpointSpec,
    Child,
    ContainerSpec,
    ExecSpec,
    Exit,
    Kernel,
    Runtime,
    Stdio,
)
from ..errors import (
    AlreadyExistsError,
    DeadlineExceededError,
    FailedPreconditionError,
    NotFoundError,
)
from . import _messages as messages
from ._events import Emit
from ._execs import Execs, kill_quietly
from ._process import Ended, Process
from ._states import INIT, State, Verb
from ._undo import Step, logged, undo

__all__ = ["Container"]

log = logging.getLogger("trioshim.container")

Bring = Callable[[ContainerSpec, Stdio], Awaitable[Child]]

UNDO_GRACE = 10.0  # seconds for each step of undoing a Create, restore or Pause that failed
UNKNOWN = 255  # the exit status that containerd itself makes up when it cannot know
EXIT_GRACE = 10.0  # seconds for init to end when Delete has killed it


class Container:
    """One container: its init, its execs, its streams and its cgroup.

    `live` is run by a nursery of the shim; the other methods are what requests do to it.
    """

    def __init__(
        self, spec: ContainerSpec, *, runtime: Runtime, kernel: Kernel, emit: Emit
    ) -> None:
        self.spec = spec
        self.init = Process(spec.id, spec.io, INIT)
        if spec.checkpoint:
            self.init.state = State.CREATED_CHECKPOINT
        self.execs = Execs(spec, runtime, kernel, emit)
        self.cgroup: Cgroup | None = None
        self.pausing = False
        self._runtime = runtime
        self._kernel = kernel
        self._emit = emit
        self.created = False
        self._begun = False
        self._start_asked = False
        self._born = trio.Event()
        self._starting = trio.Lock()
        self._oom_kills = 0

    @property
    def rootfs(self) -> str:
        return f"{self.spec.bundle}/rootfs"

    # ------------------------------------------------------------ life

    async def live(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """From create to delete.  Reports init's pid (0: to be restored) once it is created."""
        async with self._held():
            if not self.spec.checkpoint:
                await self._give_birth(self._runtime.create)
            self.created = True
            self._emit(messages.task_create(self.spec, self.init.pid))
            task_status.started(self.init.pid)
            end = await self._run()
            if end is not None:
                if self._starting.locked():
                    async with self._starting:  # a Start under way finishes its sentence
                        pass
                self._look_at_memory()  # OOM is told before the exit, or never (law 4)
                self._exited(end)
            await self.init.deleted.wait()
            self.execs.streams.cancel_scope.cancel()

    async def _run(self) -> Exit | None:
        async with trio.open_nursery() as self.execs.running:  # closes when all have ended
            await self._born.wait()
            if self.init.child is None:
                return None  # deleted before it was ever restored
            watch = trio.CancelScope()
            self.execs.streams.start_soon(self._watch_oom, watch)
            end = await self.init.child.wait()
            # Nobody waits for its end: the exit would be told later.
            watch.cancel()
            self.execs.close()
            await self._kill_remaining()
        return end

    def _exited(self, end: Exit) -> None:
        self._note("exit", FILE_NAME, encode(self.init.pid, end.status, end.at))
        self.init.exit = end
        self.init.did(Verb.EXIT)
        if self.init.stdio is not None:
            self.init.stdio.process_ended()
        self._emit(messages.task_exit(self.spec.id, self.init))
        self.init.exited.set()

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[None]:
        """Rootfs and streams, until Delete; nothing is left of a Create that fails (P17)."""
        try:
            await self._runtime.prepare(self.spec)
            if self.spec.rootfs:
                self._kernel.make_directory(self.rootfs, 0o711)
                await self._kernel.mount(self.spec.rootfs, self.rootfs)
            uid, gid = self._runtime.io_owner(self.spec)
            io = replace(self.spec.io, uid=uid, gid=gid)
            async with (
                self._kernel.open_stdio(io) as self.init.stdio,
                trio.open_nursery() as self.execs.streams,
            ):
                yield
        except BaseException:
            if not self.created:
                with trio.CancelScope(shield=True):
                    await self._undo_create()
            raise
        finally:
            self._let_go()

    async def _undo_create(self) -> None:
        await self._remove_begun()
        if self.spec.rootfs:
            await self._undo("unmount", lambda: self._kernel.unmount(self.rootfs))

    def _let_go(self) -> None:
        self.init.stdio = None
        if self.init.child is not None:
            self.init.child.close()
        if self.cgroup is not None:
            self.cgroup.close()

    async def give_up(self) -> None:
        """Its life has failed by a bug of ours: end it, so that nobody waits for its exit."""
        await self._undo_create()
        if self.init.child is not None and self.init.exit is None:
            self._exited(Exit(UNKNOWN, self._kernel.now()))

    async def _give_birth(self, bring: Bring) -> None:
        assert self.init.stdio is not None
        self._begun = True
        try:
            child = await bring(self.spec, self.init.stdio)
        except AlreadyExistsError:
            self._begun = False  # the runtime knows another's container: it is not for us to undo
            raise
        try:
            await self.init.stdio.attach()
        except BaseException:
            kill_quietly(child)
            child.close()
            raise
        self.init.child = child
        try:
            self.cgroup = self._kernel.cgroup(child.pid)
        except OSError as error:
            log.warning("%s: no cgroup, so no stats and no OOM events: %s", self.spec.id, error)
        self._born.set()

    async def _restore(self) -> None:
        try:
            await self._give_birth(self._runtime.restore)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._remove_begun()  # so that Start can be asked again
            raise

    async def _remove_begun(self) -> None:
        if self._begun:
            await self._undo("remove", lambda: self._runtime.delete(self.spec, force=True))

    async def _undo(self, what: str, step: Step) -> None:
        await undo(self.spec.id, what, step, within=UNDO_GRACE)

    async def _kill_remaining(self) -> None:
        if self.init.state is State.PAUSED:
            await logged(self.spec.id, "resume", self._thaw)
        await logged(self.spec.id, "kill the rest", lambda: self._runtime.kill_remaining(self.spec))

    def _note(self, what: str, name: str, data: bytes) -> None:
        """What `delete` will tell the daemon if this shim is killed from now on (P9)."""
        try:
            self._kernel.write_file(f"{self.spec.bundle}/{name}", data)
        except OSError as error:
            log.warning("%s: cannot record its %s: %s", self.spec.id, what, error)

    # ------------------------------------------------------------ memory

    async def _watch_oom(self, watch: trio.CancelScope) -> None:
        with watch:
            if self.cgroup is None:
                return
            try:
                while True:
                    await self.cgroup.oom_changed()
                    if self.init.exit is not None:  # woken by what has also ended init
                        return
                    self._look_at_memory()
            except OSError as error:
                log.debug("%s: no more OOM watch: %s", self.spec.id, error)

    def _look_at_memory(self) -> None:
        # Counters, not edges: a kill is told once, whoever sees it first (#8893).
        kills = self.cgroup.oom_kills() if self.cgroup is not None else 0
        if kills > self._oom_kills:
            self._oom_kills = kills
            self._emit(messages.task_oom(self.spec.id))

    # ------------------------------------------------------------ requests

    def process(self, exec_id: str) -> Process:
        """Init for "", else the exec.

        Raises:
            NotFoundError: no such exec.
        """
        return self.execs.get(exec_id) if exec_id else self.init

    async def start(self, exec_id: str) -> int:
        """Start init or an exec; answers its pid when the event is queued (law 6)."""
        if exec_id:
            return await self.execs.start(exec_id)
        async with self.init.changing, self._starting:
            self.init.check(Verb.START)
            if self.init.state is State.CREATED_CHECKPOINT:
                await self._restore()
            else:
                await self._start_created()
            self.init.did(Verb.START)
            self._emit(messages.task_start(self.spec.id, self.init.pid))
            if self.init.stdio is not None:
                self.init.stdio.take_input()
        return self.init.pid

    async def _start_created(self) -> None:
        """Start it, unless an earlier Start whose answer was lost has done so.

        If it has ended since, nobody knows whether it had run: Start is refused, and its exit is
        told without a start, as containerd's shims do after a Start that failed.
        """
        asked_before, self._start_asked = self._start_asked, True
        try:
            await self._runtime.start(self.spec)
        except FailedPreconditionError as error:  # it runs already
            if not asked_before:
                raise  # and somebody else has started it
            log.debug("%s: has been started: %s", self.spec.id, error)

    def add_exec(self, spec: ExecSpec) -> None:
        """Register an exec; Start will run it."""
        self.init.check(Verb.EXEC)
        self.execs.add(spec)

    async def delete(self) -> Ended:
        """Remove the container, its mounts and its streams.

        May fail and be asked again: each step can be done twice (P14).
        """
        async with self.init.changing:
            self.init.check(Verb.DELETE)
            if self.init.exit is not None and self.init.stdio is not None:
                await self.init.stdio.drain()
            await self._runtime.delete(self.spec)
            if self.init.child is not None:
                await self._wait_for_exit()  # if it was never started, deleting has killed it
            await self._kernel.unmount(self.rootfs)
            self.init.did(Verb.DELETE)
            if self.init.exit is not None:  # else it was never restored
                self._note("deletion", RECEIPT, messages.receipt(self.init))
            self._emit(messages.task_delete(self.spec.id, self.init))
            self._born.set()
            self.init.deleted.set()
            self.init.exited.set()
        return self.init.ended

    async def _wait_for_exit(self) -> None:
        with trio.move_on_after(EXIT_GRACE) as patience:
            await self.init.exited.wait()
        if patience.cancelled_caught:
            raise DeadlineExceededError(
                f"{self.spec.id} is removed, but its init {self.init.pid} or what it leaves behind "
                f"has not ended within {EXIT_GRACE:g} s: ask again"
            )

    async def pause(self) -> None:
        async with self.init.changing:
            self.init.check(Verb.PAUSE)
            self.pausing = True
            try:
                await self._runtime.pause(self.spec)
            except BaseException:
                with trio.CancelScope(shield=True):
                    await self._undo("resume", self._thaw)  # it may be frozen all the same
                raise
            finally:
                self.pausing = False
            self.init.did(Verb.PAUSE)  # refuses if it has ended meanwhile
            self._emit(messages.task_paused(self.spec.id))

    async def resume(self) -> None:
        async with self.init.changing:
            self.init.check(Verb.RESUME)
            await self._thaw()
            self.init.did(Verb.RESUME)
            self._emit(messages.task_resumed(self.spec.id))

    async def _thaw(self) -> None:
        """Whether it is paused, only the runtime knows after an answer was lost."""
        try:
            await self._runtime.resume(self.spec)
        except FailedPreconditionError as error:
            log.debug("%s: nothing to resume: %s", self.spec.id, error)

    async def update(self, resources: bytes) -> None:
        async with self.init.changing:
            self.init.check(Verb.UPDATE)
            await self._runtime.update(self.spec, resources)

    async def checkpoint(self, spec: CheckpointSpec) -> None:
        async with self.init.changing:
            self.init.check(Verb.CHECKPOINT)
            await self._runtime.checkpoint(self.spec, spec)

    async def kill(self, exec_id: str, signum: int, *, all: bool) -> None:  # noqa: A002
        """Send a signal; never waits for the end, nor for another request (P16)."""
        process = self.process(exec_id)
        process.check(Verb.KILL)
        child = process.child
        assert child is not None
        if not exec_id:
            await self._runtime.kill(self.spec, child, signum, all=all)
            return
        try:
            child.signal(signum)
        except ProcessLookupError:
            raise NotFoundError("process already finished") from None

    def pids(self) -> list[int]:
        """Every process of the container; init's at least, until Delete (P22).

        A daemon since 1.7 that was away takes an empty answer for a leaked shim, clears the task
        away, and with it the exit status that it has missed.
        """
        try:
            found = self.cgroup.pids() if self.cgroup is not None else []
        except OSError as error:  # out of fds: a daemon takes an error here for a leaked shim
            log.warning("%s: cannot list its processes: %s", self.spec.id, error)
            found = []
        if not found and self.init.child is not None:
            found = [self.init.pid]
        return found
