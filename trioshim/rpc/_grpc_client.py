"""The client's side of one gRPC connection: many calls at a time.

What it promises is what `trioshim.ttrpc.open_client` promises, and besides that the server learns
at once that a caller has left.  The bytes are `_grpc_client_wire`'s.

Rules of this file:

* whoever reads never writes, and a caller that leaves, by its deadline or cancelled, leaves at
  once: another task writes its RST_STREAM;
* one task writes at a time, for all; a write that is cut short is the last one (law 10);
* the reader waits only for the writer, and only when the server makes us say much and reads
  nothing of it;
* when the connection ends, every call that waits learns it, and every later one.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from ..errors import UnavailableError
from ..ttrpc import RemoteProtocolError
from ..ttrpc._calls import Call, in_time
from ..ttrpc._shelter import closed_at_the_end, open_shelter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.abc import Stream

    from ._grpc_client_wire import ClientConnection

__all__ = ["GrpcClient", "open_grpc_client"]

log = logging.getLogger("trioshim.rpc")

_CHUNK = 64 * 1024
_MUCH = 1024 * 1024  # unwritten: the reader waits
# After a write has failed, what the server said before it left may still be read, so long.
_LAST_WORDS = 1.0


@asynccontextmanager
async def open_grpc_client(
    stream: Stream, *, send_timeout: float = 30.0
) -> AsyncIterator[GrpcClient]:
    """Make gRPC calls over a stream; it is closed at the end of the block.

    A cancellation from outside does not disturb the connection before the block has ended, so
    calls inside of a shield work.

    Args:
        stream: a connected stream; nobody else may use it.
        send_timeout: seconds for one write; a server that takes longer is given up.
    """
    from ._grpc_client_wire import ClientConnection  # h2 and purerpc: not paid for by others

    async with closed_at_the_end(stream), open_shelter() as tasks:
        yield GrpcClient(stream, tasks, send_timeout, ClientConnection())


class GrpcClient:
    """Unary calls over one connection.  Made by `open_grpc_client`."""

    def __init__(
        self,
        stream: Stream,
        tasks: trio.Nursery,
        send_timeout: float,
        connection: ClientConnection,
    ) -> None:
        self._stream = stream
        self._tasks = tasks
        self._send_timeout = send_timeout
        self._connection = connection
        self._calls: dict[int, Call] = {}
        self._usable = True
        self._ended = trio.Event()
        self._reading = trio.CancelScope()
        self._writing = False
        self._written = trio.lowlevel.ParkingLot()
        tasks.start_soon(self._read)
        self._flush_soon()

    @property
    def closed(self) -> bool:
        """No further call can be made."""
        return not self._usable or self._connection.closed

    async def wait_closed(self) -> None:
        """Wait until the connection has ended and every call knows it."""
        await self._ended.wait()

    async def call(
        self, service: str, method: str, payload: bytes, *, timeout: float | None = None
    ) -> bytes:
        """Call a method, return the payload of its reply.

        May be cancelled at any time; the server is told (RST_STREAM) and may finish the call.

        Args:
            service: full name, such as `containerd.task.v2.Task`.
            method: bare name, such as `Create`.
            payload: the serialized request.
            timeout: seconds; also told to the server.

        Raises:
            ShimError: the status that the server answered, as a class of `trioshim.errors`.
            UnavailableError: the connection has ended, or the server begins no more calls.
            DeadlineExceededError: `timeout` has passed.
            ResourceExhaustedError: the request is too long (nothing was sent), or its reply is.
            InvalidArgumentError: the names cannot be sent; nothing was sent.
            InternalError: the reply makes no sense.
        """
        return await in_time(timeout, self._call, service, method, payload)

    async def _call(
        self, timeout: float | None, service: str, method: str, payload: bytes
    ) -> bytes:
        if self.closed:
            await trio.lowlevel.checkpoint()
            raise UnavailableError("gRPC: closed")
        ticket = self._connection.begin(service, method, payload, timeout)
        call = self._calls[ticket] = Call()
        self._flush_soon()
        try:
            await call.answered.wait()
        finally:
            del self._calls[ticket]
            self._connection.abandon(ticket)
            self._flush_soon()
        return call.result("gRPC: closed")

    # ------------------------------------------------------------ writing

    def _flush_soon(self) -> None:
        if not self._writing and not self._ended.is_set():
            # Set until the flush has ended well: after a torn frame nothing that follows makes
            # sense.
            self._writing = True
            self._tasks.start_soon(self._flush)

    async def _flush(self) -> None:
        try:
            await self._write()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._usable = False
            self._reading.deadline = trio.current_time() + _LAST_WORDS
        except trio.TooSlowError:
            log.warning("gRPC: the server does not read its requests, closing")
            self._usable = False
            self._reading.cancel()

    async def _write(self) -> None:
        with trio.CancelScope() as scope:
            while data := self._connection.data_to_send():
                # One scope for all writes: `fail_after` costs more than the write itself.
                scope.deadline = trio.current_time() + self._send_timeout
                await self._stream.send_all(data)
                self._written.unpark_all()
            self._writing = False
            self._deliver()
        if scope.cancelled_caught:
            raise trio.TooSlowError

    # ------------------------------------------------------------ reading

    async def _read(self) -> None:
        try:
            with self._reading:
                await self._receive()
        except (trio.BrokenResourceError, trio.ClosedResourceError, RemoteProtocolError) as error:
            log.debug("gRPC: connection ended: %s", error)
            self._flush_soon()  # the server may want to know what was wrong
        finally:
            self._usable = False
            self._deliver()
            for call in self._calls.values():
                call.answered.set()
            self._ended.set()

    async def _receive(self) -> None:
        while data := await self._stream.receive_some(_CHUNK):
            self._connection.receive_data(data)
            self._deliver()
            self._flush_soon()
            while self._connection.pending > _MUCH:
                await self._written.park()

    def _deliver(self) -> None:
        """Give each reply that has come to its caller."""
        for ticket, reply in self._connection.answers():
            call = self._calls.get(ticket)
            if call is not None:  # its caller leaves in this very moment
                call.answer(reply)
