"""What is told: events and answers made from a container's data.  Pure."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from ..abc import ContainerSpec, Exit
from ..proto import events_pb2 as events
from ..proto.task_v2_pb2 import DeleteResponse
from ..proto.types_pb2 import Mount
from ._events import ZERO_TIME, timestamp
from ._process import Process

__all__ = [
    "exited_at",
    "receipt",
    "task_create",
    "task_delete",
    "task_exec_added",
    "task_exec_started",
    "task_exit",
    "task_oom",
    "task_paused",
    "task_resumed",
    "task_start",
]


def exited_at(end: Exit | None) -> Timestamp:
    return ZERO_TIME if end is None else timestamp(end.at)


def receipt(process: Process) -> bytes:
    """What the verb `delete` answers."""
    end = process.exit
    return DeleteResponse(
        pid=process.pid, exit_status=end.status if end else 0, exited_at=exited_at(end)
    ).SerializeToString()


def task_create(spec: ContainerSpec, pid: int) -> events.TaskCreate:
    io = spec.io
    return events.TaskCreate(
        container_id=spec.id,
        bundle=spec.bundle,
        rootfs=[
            Mount(type=m.type, source=m.source, target=m.target, options=m.options)
            for m in spec.rootfs
        ],
        io=events.TaskIO(stdin=io.stdin, stdout=io.stdout, stderr=io.stderr, terminal=io.terminal),
        checkpoint=spec.checkpoint,
        pid=pid,
    )


def task_start(id_: str, pid: int) -> events.TaskStart:
    return events.TaskStart(container_id=id_, pid=pid)


def task_exec_added(id_: str, exec_id: str) -> events.TaskExecAdded:
    return events.TaskExecAdded(container_id=id_, exec_id=exec_id)


def task_exec_started(id_: str, process: Process) -> events.TaskExecStarted:
    return events.TaskExecStarted(container_id=id_, exec_id=process.id, pid=process.pid)


def task_exit(id_: str, process: Process) -> events.TaskExit:
    end = process.exit
    return events.TaskExit(
        container_id=id_,
        id=process.id,
        pid=process.pid,
        exit_status=end.status if end else 0,
        exited_at=exited_at(end),
    )


def task_delete(id_: str, process: Process) -> events.TaskDelete:
    end = process.exit
    return events.TaskDelete(
        container_id=id_,
        pid=process.pid,
        exit_status=end.status if end else 0,
        exited_at=exited_at(end),
    )


def task_oom(id_: str) -> events.TaskOOM:
    return events.TaskOOM(container_id=id_)


def task_paused(id_: str) -> events.TaskPaused:
    return events.TaskPaused(container_id=id_)


def task_resumed(id_: str) -> events.TaskResumed:
    return events.TaskResumed(container_id=id_)
