"""Two wires on one socket: the first byte decides.

A ttrpc header starts with 0x00 (no frame is longer than 4 MiB), an HTTP/2 preface with `P`; `J`,
in a shim for a group, is a `start` that joins; whatever else comes is closed.  `serve_rpc` owns the
connections; stopping it lets replies under way out: no new requests are read, the rest gets a
deadline.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType

import trio

from ..ttrpc import Request, serve_connection
from ._service import Dispatcher, Service

__all__ = ["Server", "serve_rpc"]

log = logging.getLogger("trioshim.rpc")

_TTRPC, _HTTP2 = b"\x00", b"P"
JOIN, JOINED = b"J", b"+"  # those of `bootstrap._sockets`
_JOIN_LIMIT = 128  # bytes: an id has at most 76
_GRPC = f"{__package__}._grpc"


class Server:
    """A running server.

    Attributes:
        connections: how many are open.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        connected: trio.Nursery,
        lasting: trio.Nursery,
        join: Callable[[str], bool] | None = None,
    ) -> None:
        self.connections = 0
        self._join = join
        self._stopped = False
        self._dispatcher = dispatcher
        self._connected = connected
        self._lasting = lasting
        self._reading: set[trio.CancelScope] = set()
        self._accepting = trio.CancelScope()
        self._changed = trio.Event()
        self._importing = trio.Lock()

    def stop(self, grace: float) -> None:
        """Accept and read nothing more; what is under way has `grace` seconds to be answered."""
        self._stopped = True
        self._accepting.cancel()
        for scope in self._reading:
            scope.cancel()
        deadline = trio.current_time() + grace
        self._connected.cancel_scope.deadline = deadline
        self._lasting.cancel_scope.deadline = deadline

    async def no_clients_for(self, seconds: float) -> None:
        """Return when nobody has been connected for so long."""
        while True:
            limit = math.inf if self.connections else seconds
            with trio.move_on_after(limit) as quiet:
                await self._changed.wait()
            if quiet.cancelled_caught:
                return

    def _count(self, more: int) -> None:
        self.connections += more
        self._changed.set()
        self._changed = trio.Event()

    async def _accept(self, listener: trio.abc.Listener[trio.abc.Stream]) -> None:
        with self._accepting:
            await trio.serve_listeners(self._serve, [listener], handler_nursery=self._connected)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        self._count(+1)
        try:
            await self._converse(stream)
        except Exception:  # one bad connection never takes the server down (law 9)
            log.exception("a connection failed")
        finally:
            self._count(-1)
            await trio.aclose_forcefully(stream)

    async def _converse(self, stream: trio.abc.Stream) -> None:
        first: bytes | bytearray = b""
        with self._stoppable() as waiting, waiting:
            try:
                first = await stream.receive_some()
            except trio.BrokenResourceError:
                return
        if first[:1] == _TTRPC:
            with self._stoppable() as reading:
                await serve_connection(
                    stream,
                    self._answer,
                    at_once=self._answer_at_once,
                    first=first,
                    reading=reading,
                )
        elif first[:1] == _HTTP2:
            await self._converse_in_grpc(stream, first)
        elif first[:1] == JOIN and self._join is not None:
            await self._let_join(stream, bytes(first), self._join)
        elif first:
            log.warning("a client spoke neither ttrpc nor gRPC: %r...", bytes(first[:16]))

    async def _let_join(
        self, stream: trio.abc.Stream, said: bytes, join: Callable[[str], bool]
    ) -> None:
        """A `start` tells which container will come (`bootstrap._sockets`)."""
        with self._stoppable() as reading, reading:
            while b"\n" not in said and len(said) < _JOIN_LIMIT:
                more = await stream.receive_some()
                if not more:
                    return
                said += more
            if join(said[1:].partition(b"\n")[0].decode("ascii", "replace")):
                await stream.send_all(JOINED + b"%d\n" % os.getpid())

    async def _converse_in_grpc(self, stream: trio.abc.Stream, first: bytes | bytearray) -> None:
        async with self._importing:
            if not _is_imported():  # 100 ms and more, in which the clients of ttrpc are served
                await trio.to_thread.run_sync(_import_grpc)
        serve_grpc = _import_grpc().serve_grpc
        with self._stoppable() as reading:
            await serve_grpc(stream, self._dispatcher, first=first, reading=reading)

    @contextmanager
    def _stoppable(self) -> Iterator[trio.CancelScope]:
        """A scope to read in, that `stop` cancels."""
        scope = trio.CancelScope()
        if self._stopped:  # accepted in the very moment of the stop
            scope.cancel()
        self._reading.add(scope)
        try:
            yield scope
        finally:
            self._reading.discard(scope)

    def _answer_at_once(self, request: Request) -> bytes | None:
        if request.timeout_nano < 0:  # over already: for who knows what to say then
            return None
        return self._dispatcher.call_at_once(request.service, request.method, request.payload)

    async def _answer(self, request: Request) -> bytes:
        deadline = float("inf")
        if request.timeout_nano:
            deadline = trio.current_time() + request.timeout_nano / 1e9
        return await self._dispatcher.call(
            request.service, request.method, request.payload, deadline=deadline
        )


def _is_imported() -> bool:
    """Whether a thread can be done without; in the simulator no schedule could be repeated then."""
    return _GRPC in sys.modules


def _import_grpc() -> ModuleType:
    """h2 and purerpc come with it: not paid for by ttrpc's users."""
    return importlib.import_module(_GRPC)


async def serve_rpc(
    listener: trio.abc.Listener[trio.abc.Stream],
    services: Iterable[Service],
    *,
    join: Callable[[str], bool] | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve both wires on a listener until it is stopped.

    Args:
        listener: where connections come from; closed at the end.
        services: what they may call.
        join: is told the id of a container that a `start` announces; whether it may come here.
        task_status: gets the `Server`, to stop it.
    """
    async with trio.open_nursery() as lasting, trio.open_nursery() as connected:
        server = Server(Dispatcher(services, lasting), connected, lasting, join)
        task_status.started(server)
        await server._accept(listener)  # noqa: SLF001 (same module)
        await listener.aclose()
