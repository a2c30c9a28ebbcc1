"""serve(): the whole shim as four nested rings.  Read this first.

    events          4  stops last: drains its queue within a deadline
      reaper        3  collects orphans
        containers  2  one task per container, with its execs, OOM watch and streams
          rpc       1  stops first: reads nothing more, answers what is under way

Opened outside-in, closed inside-out: nobody has to be told in which order to stop.

A shim for a group (a `door`) serves the same way; it only ends more carefully.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Protocol

import trio

from .abc import Kernel, Publisher, Runtime
from .proto import task_v2_pb2, task_v3_pb2
from .rpc import Server, Service, serve_rpc
from .task import READS, TaskService, open_containers, open_events

__all__ = ["Door", "serve"]

log = logging.getLogger("trioshim")


class Door(Protocol):
    """Where the `start`s of a group find its shim; `bootstrap._sockets` tells the other side."""

    @property
    def first(self) -> str:
        """The container whose `start` has made the shim."""
        ...

    def held(self) -> AbstractAsyncContextManager[None]:
        """A block in which nobody joins."""
        ...

    def shut(self) -> None:
        """From now on nobody finds this shim, and the next `start` makes another.  While held."""
        ...


async def serve(
    listener: trio.abc.Listener[trio.abc.Stream],
    *,
    runtime: Runtime,
    kernel: Kernel,
    publisher: Publisher,
    namespace: str = "default",
    grace: float = 1.0,
    drain: float = 5.0,
    linger: float = math.inf,
    door: Door | None = None,
    task_status: trio.TaskStatus[TaskService] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until Shutdown.  The rings open outside-in and close inside-out.

    Args:
        listener: where clients connect; closed at the end, also if that comes at once.
        runtime, kernel, publisher: the world; see `trioshim.abc`.
        namespace: containerd's namespace, told with every event.
        grace: seconds that replies under way have after Shutdown.
        drain: seconds that queued events have after that.
        linger: seconds without a container and without a client, after which the shim ends by
            itself: a daemon that died during a Create never asks for Shutdown (P21).
        door: of a shim for a group, where more containers are announced; None: it is for one, and
            ends as soon as it is asked to.
        task_status: gets the service, when connections are accepted.
    """
    async with (
        listener,
        open_events(publisher, namespace=namespace, now=kernel.now, drain=drain) as emit,  # 4
        open_reaper(kernel),  # 3
        open_containers(runtime, kernel, emit) as containers,  # 2
        trio.open_nursery() as rpc,  # 1
    ):
        service = TaskService(containers, namespace=namespace, first=door.first if door else "")
        join = service.expect if door else None
        server: Server = await rpc.start(partial(serve_rpc, listener, bind(service), join=join))
        task_status.started(service)
        async with trio.open_nursery() as watch:
            watch.start_soon(_end_if_abandoned, service, server, linger)
            if door:
                watch.start_soon(_end_behind_closed_door, service, door)
            await service.shutdown_requested.wait()
            watch.cancel_scope.cancel()
        server.stop(grace)


async def _end_if_abandoned(service: TaskService, server: Server, linger: float) -> None:
    while not service.shutdown_requested.is_set():
        await service.wait_until_idle()
        await server.no_clients_for(linger)
        if service.idle:
            log.warning("no container and no client for %.0f s: the shim ends", linger)
            service.end()


async def _end_behind_closed_door(service: TaskService, door: Door) -> None:
    """A `start` that has answered finds its shim: it joined before the door was shut, or is late.

    containerd's own shims leave a gap there: the last container goes while the next one is sent.
    """
    while not service.shutdown_requested.is_set():
        await service.wait_until_end_wanted()
        async with door.held():
            if service.end_wanted:  # still: nobody has joined while we waited for the door
                door.shut()
                service.shutdown_requested.set()


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
