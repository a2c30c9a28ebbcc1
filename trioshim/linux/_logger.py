"""A logging process of the client's (`binary://`): it reads the container's output itself.

Promises: Create waits until the logger says that it is ready; a logger that ends while its
container lives is started once more, and if that ends too its output is read and dropped, so
that the container never stops (aws/shim-loggers#253).  When the block ends the logger has seen
the end of its input and has ended, by itself or by force, within 14 seconds.

Rules: its exit is collected by its own `Child.wait` and by nobody else.  We keep copies of the
reading ends for a second logger; they share their flags with the logger's, so they stay
blocking until both loggers are gone.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress

import trio

from ..abc import Child, Exit, Kernel, StdioSpec
from ..errors import DeadlineExceededError, ShimError, StatusError
from ._fd import Nowhere, Pipe, make_pipe
from ._pump import Pump, open_pump_nursery
from ._stdio_url import Route, logger_environment

READY_TIMEOUT = 30.0
# After the end of its input: time to end by itself, then after SIGTERM, then after SIGKILL.
LEAVE_TIMEOUT = 2.0
TERM_TIMEOUT = 10.0
KILL_TIMEOUT = 2.0
_LOOK_EVERY = 0.02

logger = logging.getLogger("trioshim.stdio")


class LoggerProcess:
    """A running logger and the pipes that lead to it.

    Attributes:
        stdout, stderr: the writing ends, for the container.
    """

    progress = 0

    def __init__(self, route: Route, spec: StdioSpec, kernel: Kernel, fds: ExitStack) -> None:
        self._route = route
        self._environment = logger_environment(spec)
        self._kernel = kernel
        self._child: Child | None = None
        self._name = f"{spec.id}: logger {route.argv[0]}"
        self._out, self.stdout = (fds.enter_context(end) for end in make_pipe())
        self._err, self.stderr = (fds.enter_context(end) for end in make_pipe())

    # ------------------------------------------------------------ for `drain`

    @property
    def blocked(self) -> bool:
        return any(_unread(pipe) for pipe in (self._out, self._err))

    async def wait_ended(self) -> None:
        while not self._at_end():  # noqa: ASYNC110 - another process reads, no event tells
            await trio.sleep(_LOOK_EVERY)

    def _at_end(self) -> bool:
        return self._out.at_end() and self._err.at_end()

    # ------------------------------------------------------------ from start to end

    async def start(self) -> None:
        """Run it and wait until it is ready.

        Raises:
            DeadlineExceededError: it did not get ready; it was killed.
            StatusError: it ended or closed fd 5 without a word, and had to speak.
            OSError: it could not be started.
        """
        reader, writer = make_pipe()
        with reader:
            with writer:
                fds = {3: self._out.fileno(), 4: self._err.fileno(), 5: writer.fileno()}
                self._child = self._kernel.spawn(self._route.argv, fds=fds, env=self._environment)
            os.set_blocking(reader.fileno(), False)
            try:
                await self._wait_ready(reader, self._child)
            except ShimError:
                self._kernel.kill_group(self._child)
                raise

    async def _wait_ready(self, ready: Pipe, child: Child) -> None:
        with trio.move_on_after(READY_TIMEOUT) as limit:
            said = await ready.read()
        if limit.cancelled_caught:
            raise DeadlineExceededError(
                f"{self._name} did not write to fd 5, nor close it, within {READY_TIMEOUT:g} s"
            )
        if said or not self._route.strict:
            return
        exit_ = await _wait_within(child, 1.0)
        how = f"ended with status {exit_.status}" if exit_ else "closed fd 5"
        raise StatusError(f"{self._name} {how} before it wrote a byte to fd 5")

    async def supervise(self) -> None:
        """See to it that somebody reads, as long as there is something to read."""
        if await self._ended_well():
            return
        logger.warning("%s: it is started once more", self._name)
        try:
            await self.start()
            if await self._ended_well():
                return
        except (OSError, ShimError) as error:
            logger.warning("%s: it cannot be started again: %s", self._name, error)
        logger.error("%s: the output is dropped from here on", self._name)
        async with trio.open_nursery() as nursery:
            for end in (self._out, self._err):
                os.set_blocking(end.fileno(), False)
                nursery.start_soon(Pump(self._name, end, Nowhere()).run)

    async def _ended_well(self) -> bool:
        assert self._child is not None
        exit_ = await self._child.wait()
        if self._at_end():
            return True
        logger.warning("%s: it ended with status %d before its input did", self._name, exit_.status)
        return False

    async def finish(self) -> None:
        """It has all its input: let it end, or make it."""
        child = self._child
        if child is None:
            return
        with trio.CancelScope(shield=True):
            if not await _wait_within(child, LEAVE_TIMEOUT):
                with suppress(ProcessLookupError):
                    child.signal(signal.SIGTERM)
                if not await _wait_within(child, TERM_TIMEOUT):
                    logger.warning("%s: it does not end, so it is killed", self._name)
                    self._kernel.kill_group(child)
                    await _wait_within(child, KILL_TIMEOUT)
        child.close()


@asynccontextmanager
async def open_logger(
    route: Route, spec: StdioSpec, kernel: Kernel
) -> AsyncIterator[LoggerProcess]:
    """Run the logger of `route`; at the end of the block let it finish.

    Raises (on entering):
        DeadlineExceededError: it did not get ready (30 seconds).
        StatusError: it ended without a word, and had to speak.
        OSError: it could not be started.
    """
    with ExitStack() as fds:
        process = LoggerProcess(route, spec, kernel, fds)
        try:
            await process.start()
            async with open_pump_nursery() as nursery:
                nursery.start_soon(process.supervise)
                yield process
        finally:
            fds.close()
            await process.finish()


async def _wait_within(child: Child, seconds: float) -> Exit | None:
    with trio.move_on_after(seconds):
        return await child.wait()
    return None


def _unread(pipe: Pipe) -> int:
    if pipe.closed:
        return 0
    buffer = fcntl.ioctl(pipe.fileno(), termios.FIONREAD, struct.pack("i", 0))
    return int(struct.unpack("i", buffer)[0])
