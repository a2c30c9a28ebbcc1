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
from ._fd import Fd, File, Nowhere, Pipe, make_pipe
from ._fifo import OPEN_TIMEOUT, open_log_file, open_output, open_stdin
from ._logger import LoggerProcess, open_logger
from ._pump import Flow, Pump, Sink, drain, open_pump_nursery
from ._stdio_url import Kind, Route, parse_route

logger = logging.getLogger("trioshim.stdio")


@dataclass(frozen=True, slots=True)
class _Client:
    """The client's ends; None where there is none."""

    stdin: Pipe | None = None
    stdin_holder: Fd | None = None
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
            ends, pumps = _make_pipes(spec, client, owned)
            # Last, so that it closes first: no thread may still write to an fd that is closed.
            nursery = await owned.enter_async_context(open_pump_nursery())
            yield _Pipes(spec, client, ends, pumps, nursery)


async def _open_client(
    route: Route, spec: StdioSpec, kernel: Kernel, owned: AsyncExitStack
) -> _Client:
    # stdin first: it never waits, and a client may want it open before it opens the others.
    stdin = holder = None
    if route.stdin and (spec.terminal or route.kind is not Kind.BINARY):
        stdin, holder = open_stdin(route.stdin, owned)
    if route.kind is Kind.BINARY:
        process = await owned.enter_async_context(open_logger(route, spec, kernel))
        return _Client(stdin, holder, logger=process)
    wants_stderr = route.stderr and not spec.terminal
    deadline = trio.current_time() + OPEN_TIMEOUT

    async def open_path(name: str, path: str) -> Pipe | File:
        if route.kind is Kind.FILE:
            return await open_log_file(path, owned)
        return await open_output(name, path, owned, deadline=deadline)

    stdout = await open_path("stdout", route.stdout) if route.stdout else None
    if not wants_stderr:
        return _Client(stdin, holder, stdout)
    if stdout and route.stderr == route.stdout:
        stderr = stdout.dup()
        owned.callback(stderr.close)
    else:
        stderr = await open_path("stderr", route.stderr)
    return _Client(stdin, holder, stdout, stderr)


def _make_pipes(
    spec: StdioSpec, client: _Client, owned: AsyncExitStack
) -> tuple[dict[int, Pipe], list[Pump]]:
    """The container's ends by its fd number, and the pumps between the others and the client."""
    ends: dict[int, Pipe] = {}
    pumps: list[Pump] = []

    def add_pipe(number: int) -> Pipe:
        reader, writer = (owned.enter_context(end) for end in make_pipe())
        ends[number], ours = (reader, writer) if number == 0 else (writer, reader)
        os.set_blocking(ours.fileno(), False)
        return ours

    if client.logger:
        ends |= {1: client.logger.stdout, 2: client.logger.stderr}
    if client.stdin:
        pumps.append(Pump(f"{spec.id}: stdin", client.stdin, add_pipe(0), lossy=False))
    if client.stdout:
        pumps.append(Pump(f"{spec.id}: stdout", add_pipe(1), client.stdout))
    if client.stderr:
        pumps.append(Pump(f"{spec.id}: stderr", add_pipe(2), client.stderr))
    if (spec.uid, spec.gid) != (0, 0):
        for end in ends.values():
            os.fchown(end.fileno(), spec.uid, spec.gid)
    return ends, pumps


class _Streams(Stdio):
    """What both kinds have in common."""

    def __init__(self, spec: StdioSpec, client: _Client, nursery: trio.Nursery) -> None:
        self._id = spec.id
        self._client = client
        self._nursery = nursery
        self._outputs: list[Flow] = [client.logger] if client.logger else []

    @property
    def fds(self) -> Mapping[int, int]:
        return {}

    @property
    def console_socket(self) -> str:
        return ""

    def resize(self, width: int, height: int) -> None:
        """See `Stdio.resize`; there is no terminal."""

    def close_stdin(self) -> None:
        # The pump goes on until the fifo is empty: what the client wrote is delivered
        # (kata-containers/runtime#439).
        if self._client.stdin_holder:
            self._client.stdin_holder.close()

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


class _Pipes(_Streams):
    """Pipes to the container, or nothing at all."""

    def __init__(
        self,
        spec: StdioSpec,
        client: _Client,
        ends: dict[int, Pipe],
        pumps: list[Pump],
        nursery: trio.Nursery,
    ) -> None:
        super().__init__(spec, client, nursery)
        self._ends = ends
        self._pumps = pumps

    @property
    def fds(self) -> Mapping[int, int]:
        return {number: end.fileno() for number, end in self._ends.items()}

    async def attach(self) -> None:
        await trio.lowlevel.checkpoint()
        for end in self._ends.values():
            end.close()
        self._ends.clear()
        for pump in self._pumps:
            self._start(pump)
            if pump.lossy:
                self._outputs.append(pump)


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
            self._start(Pump(f"{self._id}: stdin", self._client.stdin, master, lossy=False))
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

    async def drain(self, *, idle: float = 0.5, cap: float = 10.0) -> None:
        if self._master:
            self._master.process_ended()
        await super().drain(idle=idle, cap=cap)
