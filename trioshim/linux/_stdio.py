"""The standard streams of one process, from the client's ends to the container's.

Promises: the client's side opens first, so that what is wrong there is known before a container
exists; the block closes every fd, ends the logger and removes the console's directory, however
and whenever it is left; the container's own end of a stream is never a client's file, so a
client can neither stop nor kill it (rust-extensions#276).

Rules: `attach` and nothing earlier lets go of the container's ends, so no pump can see an end
of output before the container is there.  A pump's trouble is logged and stays its own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass

import trio

from ..abc import Kernel, Stdio, StdioSpec
from ._console import ConsoleSocket, Master
from ._fd import File, Nowhere, Pipe, make_pipe
from ._fifo import OPEN_TIMEOUT, ClientStdin, open_log_file, open_output
from ._logger import LoggerProcess, open_logger
from ._pump import Flow, Pump, Sink, drain, open_pump_nursery
from ._stdio_url import Kind, Route, parse_route

logger = logging.getLogger("trioshim.stdio")

_LATE_WRITER = 0.1  # seconds


@dataclass(frozen=True, slots=True)
class _Client:
    """The client's ends; None where there is none."""

    stdin: ClientStdin | None = None
    stdout: Pipe | File | None = None
    stderr: Pipe | File | None = None
    logger: LoggerProcess | None = None


@asynccontextmanager
async def open_stdio(spec: StdioSpec, kernel: Kernel) -> AsyncIterator[Stdio]:
    """Open the client's side of the streams and make the container's; close all at the end.

    Args:
        spec: where the streams go.
        kernel: starts and kills the logger, if there is one.

    Raises (on entering):
        InvalidArgumentError: a scheme that nobody knows, a bad URL, or a path of the wrong type.
        DeadlineExceededError: the client does not open its end of a fifo, or its logger does
            not get ready (30 seconds).
        StatusError: the logger ended before it was ready.
        OSError: something cannot be opened; the text names the path.
    """
    route = parse_route(spec)
    async with AsyncExitStack() as owned:
        client = await _open_client(route, spec, kernel, owned)
        if spec.terminal:
            console = owned.enter_context(closing(ConsoleSocket()))
            nursery = await owned.enter_async_context(open_pump_nursery())
            yield _Terminal(spec, client, console, nursery)
        else:
            ends, pumps, inlet = _make_pipes(spec, client, owned)
            # Last, so that it closes first: no thread may still write to an fd that is closed.
            nursery = await owned.enter_async_context(open_pump_nursery())
            yield _Pipes(spec, client, ends, pumps, inlet, nursery)


async def _open_client(
    route: Route, spec: StdioSpec, kernel: Kernel, owned: AsyncExitStack
) -> _Client:
    stdin = None
    if route.stdin and (spec.terminal or route.kind is not Kind.BINARY):
        stdin = ClientStdin(route.stdin, owned)
    if route.kind is Kind.BINARY:
        process = await owned.enter_async_context(open_logger(route, spec, kernel))
        return _Client(stdin, logger=process)
    wants_stderr = route.stderr and not spec.terminal
    deadline = trio.current_time() + OPEN_TIMEOUT

    async def open_path(name: str, path: str) -> Pipe | File:
        if route.kind is Kind.FILE:
            return await open_log_file(path, owned)
        return await open_output(name, path, owned, deadline=deadline)

    stdout = await open_path("stdout", route.stdout) if route.stdout else None
    if not wants_stderr:
        return _Client(stdin, stdout)
    if stdout and route.stderr == route.stdout:
        stderr = stdout.dup()
        owned.callback(stderr.close)
    else:
        stderr = await open_path("stderr", route.stderr)
    return _Client(stdin, stdout, stderr)


def _make_pipes(
    spec: StdioSpec, client: _Client, owned: AsyncExitStack
) -> tuple[dict[int, Pipe], list[Pump], Pipe | None]:
    """The container's ends by its fd number, the pumps of its outputs, and where its input goes."""
    ends: dict[int, Pipe] = {}
    pumps: list[Pump] = []

    def add_pipe(number: int) -> Pipe:
        reader, writer = (owned.enter_context(end) for end in make_pipe())
        ends[number], ours = (reader, writer) if number == 0 else (writer, reader)
        os.set_blocking(ours.fileno(), False)
        return ours

    inlet = add_pipe(0) if client.stdin else None
    if client.logger:
        ends |= {1: client.logger.stdout, 2: client.logger.stderr}
    if client.stdout:
        pumps.append(Pump(f"{spec.id}: stdout", add_pipe(1), client.stdout))
    if client.stderr:
        pumps.append(Pump(f"{spec.id}: stderr", add_pipe(2), client.stderr))
    if (spec.uid, spec.gid) != (0, 0):
        for end in ends.values():
            os.fchown(end.fileno(), spec.uid, spec.gid)
    return ends, pumps, inlet


class _Streams(Stdio):
    """What both kinds have in common."""

    def __init__(self, spec: StdioSpec, client: _Client, nursery: trio.Nursery) -> None:
        self._id = spec.id
        self._client = client
        self._nursery = nursery
        self._outputs: list[Flow] = [client.logger] if client.logger else []
        self._started = trio.Event()

    @property
    def fds(self) -> Mapping[int, int]:
        return {}

    @property
    def console_socket(self) -> str:
        return ""

    def resize(self, width: int, height: int) -> None:
        """See `Stdio.resize`; there is no terminal."""

    def process_ended(self) -> None:
        """See `Stdio.process_ended`; a pipe ends by itself."""

    def take_input(self) -> None:
        self._started.set()

    def close_stdin(self) -> None:
        # The pump goes on until the fifo is empty: what the client wrote is delivered
        # (kata-containers/runtime#439).
        if self._client.stdin and self._started.is_set():
            self._client.stdin.release()
        elif self._client.stdin:
            self._client.stdin.released = True  # once it is open

    async def drain(self, *, idle: float = 0.5, cap: float = 10.0) -> None:
        """See `Stdio.drain`.

        Args:
            idle: after so many seconds without a byte, a descendant may keep the rest.
            cap: after so many seconds in all, a client that does not read loses the rest.
        """
        if not await drain(self._outputs, idle=idle, cap=cap):
            logger.warning("%s: the process has ended, its output has not; given up", self._id)

    def _start(self, pump: Pump) -> None:
        self._nursery.start_soon(pump.run)

    async def _copy_stdin(self, stdin: ClientStdin, sink: Sink) -> None:
        await self._started.wait()
        try:
            source = stdin.open()
        except OSError as error:
            logger.warning("%s: cannot open stdin: %s", self._id, error)
            sink.close()
            return
        if stdin.released:
            self._nursery.start_soon(self._release_soon, stdin)
        await Pump(f"{self._id}: stdin", source, sink, lossy=False).run()

    async def _release_soon(self, stdin: ClientStdin) -> None:
        # A client that waited in its open for ours needs a moment to write.
        await trio.sleep(_LATE_WRITER)
        stdin.release()


class _Pipes(_Streams):
    """Pipes to the container, or nothing at all."""

    def __init__(
        self,
        spec: StdioSpec,
        client: _Client,
        ends: dict[int, Pipe],
        pumps: list[Pump],
        inlet: Pipe | None,
        nursery: trio.Nursery,
    ) -> None:
        super().__init__(spec, client, nursery)
        self._ends = ends
        self._inlet = inlet
        self._pumps = pumps
        for pump in pumps:
            nursery.start_soon(pump.listen)

    @property
    def fds(self) -> Mapping[int, int]:
        return {number: end.fileno() for number, end in self._ends.items()}

    async def attach(self) -> None:
        await trio.lowlevel.checkpoint()
        for end in self._ends.values():
            end.close()
        self._ends.clear()
        self._outputs += self._pumps
        for pump in self._pumps:
            self._start(pump)
        if self._client.stdin and self._inlet:
            self._nursery.start_soon(self._copy_stdin, self._client.stdin, self._inlet)


class _Terminal(_Streams):
    """One pty, whose master the runtime sends us."""

    def __init__(
        self, spec: StdioSpec, client: _Client, console: ConsoleSocket, nursery: trio.Nursery
    ) -> None:
        super().__init__(spec, client, nursery)
        self._console = console
        self._master: Master | None = None
        self._size: tuple[int, int] | None = None

    @property
    def console_socket(self) -> str:
        return self._console.path

    async def attach(self) -> None:
        self._master = master = await self._console.receive()
        self._console.close()
        output = Pump(f"{self._id}: terminal", master, self._sink())
        self._outputs.append(output)
        # From here on the pumps close the master.
        self._start(output)
        if self._client.stdin:
            self._nursery.start_soon(self._copy_stdin, self._client.stdin, master)
        if self._size:
            self.resize(*self._size)

    def _sink(self) -> Sink:
        process = self._client.logger
        if process is None:
            return self._client.stdout or Nowhere()
        process.stderr.close()
        os.set_blocking(process.stdout.fileno(), False)
        return process.stdout

    def resize(self, width: int, height: int) -> None:
        # The client sends the size as soon as it can, often before there is a terminal, and
        # does not send it again (moby#35407).
        self._size = (width, height)
        if self._master and not self._master.closed:
            self._master.resize(width, height)

    def process_ended(self) -> None:
        if self._master:
            self._master.process_ended()

    async def drain(self, *, idle: float = 0.5, cap: float = 10.0) -> None:
        self.process_ended()
        await super().drain(idle=idle, cap=cap)
