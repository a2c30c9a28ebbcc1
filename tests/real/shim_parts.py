"""What the tests of one real shim stand on: a daemon that only listens, fifos, raw connections."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import trio

from trioshim.proto import events_pb2
from trioshim.proto.events_service_pb2 import ForwardRequest
from trioshim.proto.types_pb2 import Envelope
from trioshim.ttrpc import Request, serve_connection


async def until(probe: Callable[[], object], what: str, *, within: float = 15.0) -> None:
    """`poll.eventually` for a test whose event loop has to go on meanwhile.

    Raises:
        TimeoutError: it never became true.
    """
    deadline = trio.current_time() + within
    while not probe():
        if trio.current_time() > deadline:
            raise TimeoutError(f"gave up waiting for {what} after {within} s")
        await trio.sleep(0.02)


class EventServer:
    """What a shim sees of a daemon: `Forward`, over ttrpc.

    Attributes:
        envelopes: what has come, in the order of its coming.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.envelopes: list[Envelope] = []
        self._life = trio.CancelScope()

    async def serve(self, *, task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
        """Listen until stopped; then the socket's path is free again.  Can be done anew."""
        sock = trio.socket.socket(trio.socket.AF_UNIX)
        serve = partial(serve_connection, dispatch=self._forward)
        try:
            await sock.bind(str(self.path))
            sock.listen()
            with trio.CancelScope() as self._life:
                await trio.serve_listeners(
                    serve, [trio.SocketListener(sock)], task_status=task_status
                )
        finally:
            sock.close()
            self.path.unlink(missing_ok=True)

    def stop(self) -> None:
        """The daemon is away; its connections end too."""
        self._life.cancel()

    async def _forward(self, request: Request) -> bytes:
        self.envelopes.append(ForwardRequest.FromString(request.payload).envelope)
        return b""

    def topics(self) -> list[str]:
        """/tasks/create and so on, without /tasks/."""
        return [envelope.topic.removeprefix("/tasks/") for envelope in self.envelopes]

    def exits(self, container: str) -> list[tuple[str, int]]:
        """Process id and status of each exit in a container."""
        said = [e for e in self.envelopes if e.topic == "/tasks/exit"]
        exits = [events_pb2.TaskExit.FromString(e.event.value) for e in said]
        return [(e.id, e.exit_status) for e in exits if e.container_id == container]


@asynccontextmanager
async def open_raw(address: str) -> AsyncIterator[trio.SocketStream]:
    """A connection to a shim on which nothing has been said yet."""
    stream = await trio.open_unix_socket(address.removeprefix("unix://"))
    async with stream:
        yield stream


@contextmanager
def open_fifo(path: str) -> Iterator[int]:
    """An fd to read a fifo with, which needs no writer and sees no end."""
    fd = os.open(path, os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


def write_to(path: str, data: bytes = b"\n") -> None:
    """Be a client that writes to a fifo and leaves.  Waits until the shim reads."""
    Path(path).write_bytes(data)
