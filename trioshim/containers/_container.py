"""A container as its client holds it: its first process, and what can be done to all of it."""

from __future__ import annotations

import json
import signal as signals
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from google.protobuf.any_pb2 import Any

from ..client import TaskClient
from ..errors import FailedPreconditionError, NotFoundError, ShimError
from ..proto import task_v2_pb2 as api
from ..proto.runc_options_pb2 import CheckpointOptions
from ._ending import Deliver, end_process
from ._fifos import Fifos, open_fifos
from ._options import Plan
from ._outputs import DEVNULL, Output, Streams
from ._process import ContainerProcess
from ._spec import Terminal, oci_process
from ._stats import Stats, read_stats

if TYPE_CHECKING:
    from ..client import Event, EventSink

__all__ = ["Container"]

# Seconds.
_PAUSE = 10.0
_NEWS = 1.0


class Container(ContainerProcess):
    """A running container; as a process it is its init.  `open_container` makes it.

    Attributes:
        bundle: its directory on the host: config.json, and rootfs.
        task: the 17 methods of its shim, for what is not here.
    """

    def __init__(
        self,
        task: TaskClient,
        plan: Plan,
        id: str,  # noqa: A002 (containerd's word)
        fifos: Fifos,
        bundle: Path,
        sink: EventSink,
        nursery: trio.Nursery,
    ) -> None:
        super().__init__(task, plan.args, id, "", fifos)
        self.bundle = bundle
        self.task = task
        self._plan = plan
        self._sink = sink
        self._nursery = nursery
        self._execs = count(1)

    async def send_signal(self, signum: int, *, all: bool = False) -> None:  # noqa: A002
        """Send its first process a signal, or all of its processes.  Ended: nothing to do.

        Raises:
            ShimError: the runtime failed, or the shim is gone.
        """
        try:
            await self.task.kill(api.KillRequest(id=self.id, signal=signum, all=all))
        except NotFoundError:
            return

    async def kill(self) -> None:
        """SIGKILL for every process of the container."""
        await self.send_signal(signals.SIGKILL, all=True)

    @asynccontextmanager
    async def exec(
        self,
        args: Sequence[str],
        *,
        stdin: int = DEVNULL,
        stdout: Output = None,
        stderr: Output = None,
        terminal: Terminal = False,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        deliver_cancel: Deliver | None = None,
    ) -> AsyncIterator[ContainerProcess]:
        """Run one more process in the container for the time of the block, as `open_container`.

        Raises:
            ValueError: what is wrong with an argument.
            ShimError: the runtime cannot start it: no such program, the container has ended.
        """
        if self.returncode is not None:
            raise FailedPreconditionError(
                f"container {self.id} has ended with {self.returncode}: nothing can run in it"
            )
        exec_id = f"exec-{next(self._execs)}"
        process = oci_process(
            args,
            self._plan.config,
            rootfs=self._plan.rootfs,
            env=env,
            cwd=cwd,
            user=user,
            terminal=terminal,
        )
        streams = Streams(stdin, stdout, stderr, terminal=bool(terminal))
        request = api.ExecProcessRequest(
            id=self.id,
            exec_id=exec_id,
            terminal=bool(terminal),
            spec=Any(value=json.dumps(process).encode()),
        )
        with open_fifos(self.bundle, exec_id, streams) as fifos:
            fifos.put_into(request)
            made = ContainerProcess(self.task, args, self.id, exec_id, fifos)
            with made._attended():  # noqa: SLF001 (same package)
                try:
                    await self.task.exec(request)
                    await made._begin(self._nursery, streams)  # noqa: SLF001
                    yield made
                    await made._flush()  # noqa: SLF001
                finally:
                    await end_process(made, deliver_cancel)

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """All of its processes stand still while the block runs.

        Raises:
            ShimError: it cannot be paused: it has ended, or is paused already.
        """
        # Half a pause, or no end of it, would let it stand still for ever: both are shielded.
        with trio.CancelScope(shield=True):
            await self.task.pause(api.PauseRequest(id=self.id), timeout=_PAUSE)
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await self._resume()

    async def _resume(self) -> None:
        try:
            await self.task.resume(api.ResumeRequest(id=self.id), timeout=_PAUSE)
        except ShimError:
            if not await self._ends_now():  # killed meanwhile: that is no failure
                raise

    async def _ends_now(self) -> bool:
        """Whether it has ended; its exit may be told after the refusal to resume it."""
        with trio.move_on_after(_NEWS):
            await self._ended.wait()
        return self._ended.is_set()

    async def stats(self) -> Stats:
        """What its processes use: time, memory, and everything else that the cgroup counts.

        Raises:
            ShimError: there is no cgroup any more.
        """
        answer = await self.task.stats(api.StatsRequest(id=self.id))
        return read_stats(answer.stats)

    async def pids(self) -> list[int]:
        """Its processes, by their pids on the host."""
        answer = await self.task.pids(api.PidsRequest(id=self.id))
        return [process.pid for process in answer.processes]

    async def checkpoint(self, path: str, *, leave_running: bool = True) -> None:
        """Write an image of its processes to a directory; needs criu.

        Args:
            path: the directory, made if it is not there.
            leave_running: False: it ends with the checkpoint.

        Raises:
            ShimError: criu is missing or cannot do it; the message holds its log's end.
        """
        options = Any()
        options.Pack(CheckpointOptions(exit=not leave_running), type_url_prefix="")
        options.type_url = CheckpointOptions.DESCRIPTOR.full_name
        await self.task.checkpoint(
            api.CheckpointTaskRequest(id=self.id, path=path, options=options)
        )

    @asynccontextmanager
    async def events(self) -> AsyncIterator[trio.MemoryReceiveChannel[Event]]:
        """What its shim tells from now on: `async for event in events`."""
        async with self._sink.subscribe() as events:
            yield events
