"""serve(): the whole shim as four nested rings.  Read this first.

    events          4  stops last: drains its queue within a deadline
      reaper        3  collects orphans
        containers  2  one task per container, with its execs, OOM watch and streams
          rpc       1  stops first: reads nothing more, answers what is under way

Opened outside-in, closed inside-out: nobody has to be told in which order to stop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from .abc import Kernel, Publisher, Runtime
from .proto import task_v2_pb2, task_v3_pb2
from .rpc import Server, Service, serve_rpc
from .task import READS, TaskService, open_containers, open_events

__all__ = ["serve"]


async def serve(
    listener: trio.abc.Listener[trio.abc.Stream],
    *,
    runtime: Runtime,
    kernel: Kernel,
    publisher: Publisher,
    namespace: str = "default",
    grace: float = 1.0,
    drain: float = 5.0,
    task_status: trio.TaskStatus[TaskService] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until Shutdown.  The rings open outside-in and close inside-out.

    Args:
        listener: where clients connect.
        runtime, kernel, publisher: the world; see `trioshim.abc`.
        namespace: containerd's namespace, told with every event.
        grace: seconds that replies under way have after Shutdown.
        drain: seconds that queued events have after that.
        task_status: gets the service, when connections are accepted.
    """
    async with (
        open_events(publisher, namespace=namespace, now=kernel.now, drain=drain) as emit,  # 4
        open_reaper(kernel),  # 3
        open_containers(runtime, kernel, emit) as containers,  # 2
        trio.open_nursery() as rpc,  # 1
    ):
        service = TaskService(containers, namespace=namespace)
        server: Server = await rpc.start(serve_rpc, listener, bind(service))
        task_status.started(service)
        await service.shutdown_requested.wait()
        server.stop(grace)


def bind(service: TaskService) -> list[Service]:
    """The service under both of its names; v3 is v2 byte for byte."""
    v2 = task_v2_pb2.DESCRIPTOR.services_by_name["Task"]
    v3 = task_v3_pb2.DESCRIPTOR.services_by_name["Task"]
    return [
        Service(v2, service, reads=READS),
        Service(v2, service, reads=READS, name=v3.full_name),
    ]


@asynccontextmanager
async def open_reaper(kernel: Kernel) -> AsyncIterator[None]:
    """The task that collects the children nobody waits for."""
    async with trio.open_nursery() as nursery:
        await nursery.start(kernel.reap_strangers)
        yield
        nursery.cancel_scope.cancel()
