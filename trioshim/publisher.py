"""Events to containerd, over ttrpc: one `Forward` call for each.

Rules of this file:

* it tells the truth and keeps nothing: what cannot be delivered now is raised, and the ordered
  queue that called (`task`) tries again (law 5);
* the connection is made by the first event, not earlier: the daemon may be away for days;
* every attempt has a deadline of its own: a retry under an old, spent deadline is how other
  shims lose events (containerd#4400).
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from .errors import DeadlineExceededError, InvalidArgumentError, UnavailableError
from .proto.events_service_pb2 import ForwardRequest
from .ttrpc import Client, open_client
from .ttrpc._shelter import open_shelter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .proto.types_pb2 import Envelope

__all__ = ["TtrpcPublisher", "open_publisher"]

_log = logging.getLogger("trioshim.publisher")

_SERVICE = "containerd.services.events.ttrpc.v1.Events"
_CONNECT_TIMEOUT = 5.0
_CALL_TIMEOUT = 5.0


@asynccontextmanager
async def open_publisher(address: str) -> AsyncIterator[TtrpcPublisher]:
    """A publisher that is connected when needed, and closed at the end of the block.

    Args:
        address: the daemon's ttrpc socket (`TTRPC_ADDRESS`), a path or `unix://` and a path;
            "": there is no daemon, events are only logged.

    Raises:
        InvalidArgumentError: an address of another kind.
    """
    path = _path(address)
    async with open_shelter() as connections:
        publisher = TtrpcPublisher(path, connections)
        try:
            yield publisher
        finally:
            with trio.CancelScope(shield=True):
                await publisher.aclose()


class TtrpcPublisher:
    """Implements `trioshim.abc.Publisher`.  Made by `open_publisher`."""

    def __init__(self, path: str, connections: trio.Nursery) -> None:
        self._path = path
        self._connections = connections
        self._connecting = trio.Lock()
        self._client: Client | None = None
        self._closed = False

    async def publish(self, envelope: Envelope) -> None:
        """Deliver one event.

        A connection that turns out to be closed is made anew, once, and the event is sent again
        at once; so the daemon may see an event twice, if it left after it had read it.

        Raises:
            OSError: the daemon cannot be reached.
            UnavailableError, DeadlineExceededError: it went away or did not answer in 5 seconds.
            ShimError: the status that it answered.
        """
        if not self._path:
            await trio.lowlevel.checkpoint()
            _log.debug("no daemon to tell of %s", envelope.topic)
            return
        client = self._client
        if client is None or client.closed or self._closed:
            client = await self._connected()
        try:
            await _forward(client, envelope)
        except UnavailableError:
            if not client.closed:
                raise
            await _forward(await self._connected(), envelope)

    async def aclose(self) -> None:
        """End the connection; nothing can be published any more.  Again: nothing happens."""
        self._closed = True
        self._connections.cancel_scope.cancel()
        await trio.lowlevel.checkpoint()

    async def _connected(self) -> Client:
        async with self._connecting:
            if self._closed:
                raise UnavailableError("the publisher is closed")
            if self._client is None or self._client.closed:
                self._client = await self._connect()
            return self._client

    async def _connect(self) -> Client:
        try:
            with trio.fail_after(_CONNECT_TIMEOUT):
                client: Client = await self._connections.start(self._hold)
        except trio.TooSlowError:
            text = f"connect to {self._path}: no answer in {_CONNECT_TIMEOUT:g} seconds"
            raise DeadlineExceededError(text) from None
        return client

    async def _hold(self, *, task_status: trio.TaskStatus[Client]) -> None:
        stream = await trio.open_unix_socket(self._path)
        async with open_client(stream, send_timeout=_CALL_TIMEOUT) as client:
            task_status.started(client)
            await client.wait_closed()


async def _forward(client: Client, envelope: Envelope) -> None:
    await client.call(
        _SERVICE,
        "Forward",
        ForwardRequest(envelope=envelope).SerializeToString(),
        timeout=_CALL_TIMEOUT,
        metadata=(("containerd-namespace-ttrpc", envelope.namespace),),
    )


def _path(address: str) -> str:
    path = address.removeprefix("unix://")
    if "://" in path:
        raise InvalidArgumentError(f"event address {address!r} is not a unix socket")
    return path
