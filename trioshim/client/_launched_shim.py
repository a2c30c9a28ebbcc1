"""A shim that runs, as the program sees it that launched it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from ._task import TaskClient, open_caller

if TYPE_CHECKING:
    from ..proto import task_v2_pb2 as api
    from ._event_sink import EventSink
    from ._shim_answer import Answer
    from ._shim_binary import ShimBinary
    from ._shim_process import ShimProcess
    from ._task import Caller, Wire

__all__ = ["LaunchedShim", "open_answer"]

_log = logging.getLogger("trioshim.client")


class LaunchedShim:
    """A shim that runs.  Made by `launch`.

    Attributes:
        id, namespace: of its container.
        bundle: absolute path.
        address: where it listens, as it said; `client` knows how to get there.
        protocol: what it speaks there: "ttrpc" or "grpc".
        version: of the protocol that it announced: 2 or 3.
        pid: of its process.
        shared: it was running before: `start` found the shim of another container of the group.
            Whoever started that one ends it; here only the container is removed.
        events: where its events go.
        deleted: what the verb `delete` told of the container's end, set when the block is over;
            None if there was no need for it, because the container was gone and the shim ended
            when it was asked to.  (containerd-shim-runc-v1 never forgets a container that was
            deleted: there it is always set, and tells of a kill that was none.)
    """

    def __init__(
        self,
        binary: ShimBinary,
        answer: Answer,
        service: str,
        process: ShimProcess,
        events: EventSink,
        *,
        shared: bool,
    ) -> None:
        self.id = binary.id
        self.namespace = binary.namespace
        self.bundle = binary.bundle
        self.address = answer.address
        self.protocol: Wire = answer.protocol
        self.version = answer.version
        self.pid = process.pid
        self.shared = shared
        self.events = events
        self.deleted: api.DeleteResponse | None = None
        self._answer = answer
        self._service = service
        self._process = process

    @asynccontextmanager
    async def client(self) -> AsyncIterator[TaskClient]:
        """A connection of its own, on the right wire and to the right version of the service.

        Raises:
            OSError: the shim does not listen any more.
        """
        async with open_answer(self._answer) as caller:
            yield TaskClient(caller, self._service)

    async def wait_ended(self) -> None:
        """Wait until its process has ended, by itself or by somebody's hand."""
        await self._process.ended.wait()


@asynccontextmanager
async def open_answer(answer: Answer) -> AsyncIterator[Caller]:
    """A connection to where a shim listens.

    Raises:
        OSError: nobody does.
    """
    stream = await _dial(answer.paths)
    async with open_caller(stream, answer.protocol) as caller:
        yield caller


async def _dial(paths: tuple[str, ...]) -> trio.SocketStream:
    for path in paths[:-1]:
        try:
            return await trio.open_unix_socket(path)
        except OSError as error:
            _log.debug("%r: %s", path, error)
    return await trio.open_unix_socket(paths[-1])
