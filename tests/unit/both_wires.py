"""A server of both wires on a real socket, and what a process is made of, counted."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio
import trio.testing

from trioshim.bootstrap._sockets import listen
from trioshim.linux import open_listener
from trioshim.proto import task_v2_pb2 as api
from trioshim.rpc import Server, serve_rpc
from trioshim.ttrpc import open_client

from .fds import open_fds
from .grpc_world import TASK, Peer, Tasks, task_service

PATIENCE = 60  # seconds; whoever hangs, fails


@asynccontextmanager
async def serving(
    listener: trio.abc.Listener[trio.abc.Stream], tasks: Tasks
) -> AsyncIterator[Server]:
    """Both wires on a listener; at the end it is stopped and has to return."""
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_rpc, listener, [task_service(tasks)])
            yield server
            server.stop(grace=0)


@asynccontextmanager
async def on_a_socket(path: Path, tasks: Tasks) -> AsyncIterator[Server]:
    """The same on a unix socket, made and guarded as the shim's."""
    listener = open_listener(listen(str(path)).detach())
    async with serving(listener, tasks) as server:
        yield server
    await trio.Path(path).unlink()


async def connections(server: Server, wanted: int) -> None:
    """Wait until so many connections are open, and nothing is left of the others."""
    while server.connections != wanted:
        await server._changed.wait()
    await trio.testing.wait_all_tasks_blocked()


async def answers_on_ttrpc(stream: trio.abc.Stream) -> bool:
    """A Connect over ttrpc, and no more."""
    async with open_client(stream) as client:
        request = api.ConnectRequest(id="x").SerializeToString()
        reply = await client.call(TASK.full_name, "Connect", request)
        return api.ConnectResponse.FromString(reply).version == "x"


async def answers_on_grpc(stream: trio.abc.Stream) -> bool:
    """A Connect over gRPC, and no more."""
    async with stream:
        peer = Peer(stream)
        peer.h2.initiate_connection()
        return await peer.still_served()


@dataclass(frozen=True)
class Footprint:
    """What this process holds."""

    fds: int
    tasks: int
    objects: int
    memory: int  # bytes, resident

    @staticmethod
    def now() -> Footprint:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        living = trio.lowlevel.current_statistics().tasks_living
        return Footprint(len(open_fds()), living, len(gc.get_objects()), pages * 4096)

    def check_nothing_more(self) -> None:
        """Raise AssertionError if there is more than then; a little is other people's caches."""
        now = Footprint.now()
        assert (now.fds, now.tasks) == (self.fds, self.tasks)
        assert now.objects - self.objects < 500
        assert now.memory - self.memory < 24 * 2**20


@contextmanager
def no_errors_logged() -> Iterator[None]:
    """Bad peers are no news: an error in the log is one of ours.  Nothing is kept meanwhile."""
    errors: list[str] = []

    class Errors(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(self.format(record))

    logger, handler = logging.getLogger("trioshim"), Errors(logging.ERROR)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert errors == []
