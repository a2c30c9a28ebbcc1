"""containerd's Task service: 17 methods, each a few lines.

A method takes the protobuf request and returns the protobuf answer, or raises a `ShimError`.
v2 and v3 of the service are the same bytes under two names, so v2's messages serve both.
"""

from __future__ import annotations

import json
import logging
import os

import trio
from google.protobuf.any_pb2 import Any
from google.protobuf.empty_pb2 import Empty

from .._instant import instant
from ..abc import CheckpointSpec, ContainerSpec, ExecSpec, Exit, Mount, Options, StdioSpec
from ..bootstrap import check_identifier
from ..errors import InvalidArgumentError, NotFoundError
from ..proto import task_v2_pb2 as api
from ..proto.runc_options_pb2 import ProcessDetails
from ..proto.task_types_pb2 import ProcessInfo, Status
from ._container import Container
from ._containers import Containers
from ._events import pack
from ._messages import exited_at
from ._process import Process
from ._states import State

__all__ = ["READS", "TaskService"]

# Methods that change nothing: they end with their caller and never wait for another (laws 7, 8).
READS = frozenset({"State", "Pids", "Stats", "Connect", "Wait"})

log = logging.getLogger("trioshim.service")

LAST_SIGNAL = 64  # SIGRTMAX; the wire has room for more

_STATUS = {
    State.CREATED: Status.CREATED,
    State.CREATED_CHECKPOINT: Status.CREATED,
    State.RUNNING: Status.RUNNING,
    State.PAUSED: Status.PAUSED,
    State.STOPPED: Status.STOPPED,
    State.DELETED: Status.STOPPED,
}


class TaskService:
    """The methods of `containerd.task.v2.Task` and `containerd.task.v3.Task`.

    Args:
        containers: what it is about.
        namespace: containerd's.
        first: of a shim for a group: the container that it was started for.  Such a shim ends only
            when nobody is expected, and `end_wanted` is what asks for that.

    Attributes:
        shutdown_requested: the shim ends now: set by the Shutdown that is meant, the one without
            containers; in a group by who has seen to it that nobody joins any more.
    """

    def __init__(self, containers: Containers, *, namespace: str, first: str = "") -> None:
        self.shutdown_requested = trio.Event()
        self._end_wanted = trio.Event() if first else self.shutdown_requested
        self._containers = containers
        self._namespace = namespace
        self._pid = os.getpid()
        if first:
            containers.expect(first)

    @property
    def idle(self) -> bool:
        """There is no container, none is being created, and none is expected."""
        return self._containers.idle

    async def wait_until_idle(self) -> None:
        await self._containers.wait_until_idle()

    @property
    def bundles(self) -> list[str]:
        """Those of its containers, the oldest first."""
        return self._containers.bundles

    async def containers_changed(self) -> None:
        """Return when one has come or gone."""
        await self._containers.changed()

    # ------------------------------------------------------------ the end

    def end(self) -> None:
        """Nobody needs the shim: it ends, one of a group as soon as nobody is expected."""
        self._end_wanted.set()

    @property
    def end_wanted(self) -> bool:
        """It was to end, nobody has come since, and nobody is expected."""
        return self._end_wanted.is_set() and self.idle

    async def wait_until_end_wanted(self) -> None:
        while not self.end_wanted:
            await self._end_wanted.wait()
            await self.wait_until_idle()

    def expect(self, id_: str) -> bool:
        """A container that will come to this shim of a group.

        Returns:
            Whether it may.
        """
        if self.shutdown_requested.is_set():
            return False
        try:
            check_identifier(id_)
        except ValueError as error:
            log.warning("a start that joins: %s", error)
            return False
        self._containers.expect(id_)
        return True

    def _has_come(self, id_: str) -> None:
        if self._end_wanted.is_set() and not self.shutdown_requested.is_set():
            self._end_wanted = trio.Event()  # who wanted it did not know of this one
        self._containers.expect_no_more(id_)

    # ------------------------------------------------------------ life

    async def create(self, request: api.CreateTaskRequest) -> api.CreateTaskResponse:
        self._has_come(request.id)
        _check_id(request.id)
        if not os.path.isabs(request.bundle):
            raise InvalidArgumentError(f"bundle {request.bundle!r} is not an absolute path")
        spec = ContainerSpec(
            id=request.id,
            bundle=request.bundle,
            rootfs=tuple(
                Mount(m.type, m.source, m.target, tuple(m.options)) for m in request.rootfs
            ),
            io=self._stdio(request.id, request),
            checkpoint=request.checkpoint,
            options=_options(request.options),
        )
        return api.CreateTaskResponse(pid=await self._containers.create(spec))

    async def start(self, request: api.StartRequest) -> api.StartResponse:
        container = self._containers.get(request.id)
        return api.StartResponse(pid=await container.start(request.exec_id))

    async def delete(self, request: api.DeleteRequest) -> api.DeleteResponse:
        if request.exec_id:
            ended = await self._containers.get(request.id).execs.delete(request.exec_id)
        else:
            ended = await self._containers.delete(request.id)
        return api.DeleteResponse(
            pid=ended.pid, exit_status=_status(ended.exit), exited_at=exited_at(ended.exit)
        )

    async def exec(self, request: api.ExecProcessRequest) -> Empty:
        container = self._containers.get(request.id)
        _check_id(request.exec_id)
        _check_process(request.exec_id, request.spec.value)
        container.add_exec(
            ExecSpec(
                id=request.exec_id,
                process=request.spec.value,
                io=self._stdio(request.exec_id, request),
            )
        )
        return Empty()

    async def wait(self, request: api.WaitRequest) -> api.WaitResponse:
        process = self._containers.get(request.id).process(request.exec_id)
        await process.exited.wait()
        ended = process.ended
        return api.WaitResponse(exit_status=_status(ended.exit), exited_at=exited_at(ended.exit))

    # ------------------------------------------------------------ looking

    @instant
    def state(self, request: api.StateRequest) -> api.StateResponse:
        container = self._containers.get(request.id)
        process = container.process(request.exec_id)
        return api.StateResponse(
            id=process.id,
            bundle=container.spec.bundle,
            pid=process.pid,
            status=_status_of(container, process),
            stdin=process.io.stdin,
            stdout=process.io.stdout,
            stderr=process.io.stderr,
            terminal=process.io.terminal,
            exit_status=_status(process.exit),
            exited_at=exited_at(process.exit),
        )

    @instant
    def pids(self, request: api.PidsRequest) -> api.PidsResponse:
        container = self._containers.get(request.id)
        execs = container.execs.by_pid()
        return api.PidsResponse(
            processes=[
                ProcessInfo(
                    pid=pid,
                    info=pack(ProcessDetails(exec_id=execs[pid])) if pid in execs else None,
                )
                for pid in container.pids()
            ]
        )

    async def stats(self, request: api.StatsRequest) -> api.StatsResponse:
        cgroup = self._containers.get(request.id).cgroup
        if cgroup is None:
            raise NotFoundError("cgroup does not exist")
        return api.StatsResponse(stats=pack(cgroup.stats()))

    @instant
    def connect(self, request: api.ConnectRequest) -> api.ConnectResponse:
        container = self._containers.find(request.id)
        return api.ConnectResponse(
            shim_pid=self._pid, task_pid=container.init.pid if container else 0
        )

    # ------------------------------------------------------------ changing

    async def pause(self, request: api.PauseRequest) -> Empty:
        await self._containers.get(request.id).pause()
        return Empty()

    async def resume(self, request: api.ResumeRequest) -> Empty:
        await self._containers.get(request.id).resume()
        return Empty()

    async def kill(self, request: api.KillRequest) -> Empty:
        container = self._containers.get(request.id)
        if request.signal > LAST_SIGNAL:
            raise InvalidArgumentError(f"signal {request.signal}: there are 0 to {LAST_SIGNAL}")
        await container.kill(request.exec_id, request.signal, all=request.all)
        return Empty()

    async def resize_pty(self, request: api.ResizePtyRequest) -> Empty:
        process = self._containers.get(request.id).process(request.exec_id)
        process.resize(request.width, request.height)
        return Empty()

    async def close_io(self, request: api.CloseIORequest) -> Empty:
        self._containers.get(request.id).process(request.exec_id).close_stdin()
        return Empty()

    async def update(self, request: api.UpdateTaskRequest) -> Empty:
        container = self._containers.get(request.id)
        if not request.resources.value:
            raise InvalidArgumentError("update without resources: nothing to change")
        await container.update(request.resources.value)
        return Empty()

    async def checkpoint(self, request: api.CheckpointTaskRequest) -> Empty:
        container = self._containers.get(request.id)
        await container.checkpoint(CheckpointSpec(request.path, _options(request.options)))
        return Empty()

    async def shutdown(self, _request: api.ShutdownRequest) -> Empty:
        # The daemon also asks when other containers live here: then nothing is to be done.
        if not len(self._containers):
            self.end()
        return Empty()

    # ------------------------------------------------------------ reading requests

    def _stdio(
        self, id_: str, request: api.CreateTaskRequest | api.ExecProcessRequest
    ) -> StdioSpec:
        return StdioSpec(
            id=id_,
            namespace=self._namespace,
            stdin=request.stdin,
            stdout=request.stdout,
            stderr=request.stderr,
            terminal=request.terminal,
        )


def _check_id(id_: str) -> None:
    try:
        check_identifier(id_)
    except ValueError as error:
        raise InvalidArgumentError(str(error)) from None


def _check_process(exec_id: str, text: bytes) -> None:
    """Now and not at its Start: who sent it learns it, and nothing is registered."""
    if not text:
        raise InvalidArgumentError(f"exec {exec_id} has no spec: nothing to run")
    try:
        process = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"exec {exec_id}: no OCI process in JSON: {error}") from None
    if not isinstance(process, dict):
        raise InvalidArgumentError(f"exec {exec_id}: an OCI process is a JSON object")


def _options(value: Any) -> Options:
    return Options(value.type_url, value.value)


def _status(end: Exit | None) -> int:
    return end.status if end is not None else 0


def _status_of(container: Container, process: Process) -> Status.ValueType:
    if process.exit is None and container.pausing:
        return Status.PAUSING
    paused = container.init.state is State.PAUSED
    if paused and process.exit is None:  # an exec in a paused container is paused too
        return Status.PAUSED
    return _STATUS[process.state]
