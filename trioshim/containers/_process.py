"""A process in a container, init or exec, as its client holds it.

`Start` and `Wait` are asked once, by a task of the container's nursery, for the whole life of the
process.  So `wait` can be cancelled and called again, by many, and the exit status is never lost;
and a `Start` whose caller is cancelled is answered, so that what it has started can be ended.
"""

from __future__ import annotations

import logging
import signal as signals
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import trio

from ..client import TaskClient
from ..errors import NotFoundError, ShimError, UnavailableError
from ..proto import task_v2_pb2 as api
from ..ttrpc._shelter import undisturbed
from ._fifos import Fifos, FifoWriter
from ._outputs import Copy, Streams

__all__ = ["ContainerProcess"]

log = logging.getLogger("trioshim.containers")

_IDLE = 2.0  # seconds without output after which a process that has ended will have none


class ContainerProcess:
    """What runs in a container.  `open_container` and `Container.exec` make it.

    Attributes:
        args: what was started.
        id: the container's id.
        exec_id: "" for the container's first process.
        pid: on the host.
        stdin: what is sent here it reads; None without a pipe or terminal.  Close it for the end.
        stdout, stderr: what it writes; None without a pipe.  With a terminal all comes on stdout.
    """

    def __init__(
        self,
        task: TaskClient,
        args: Sequence[str],
        id: str,  # noqa: A002 (containerd's word)
        exec_id: str,
        fifos: Fifos,
    ) -> None:
        self.args = list(args)
        self.id = id
        self.exec_id = exec_id
        self.pid = 0
        self.stdin: trio.abc.SendStream | None = None
        if fifos.stdin:
            self.stdin = FifoWriter(
                fifos.stdin, self._has_ended, self._close_io, terminal=fifos.terminal
            )
        self.stdout: trio.abc.ReceiveStream | None = fifos.out
        self.stderr: trio.abc.ReceiveStream | None = fifos.err
        self._task = task
        self._fifos = fifos
        self._returncode: int | None = None
        self._lost: ShimError = UnavailableError("it was left before it could be started")
        self._begun = trio.Event()
        self._ended = trio.Event()
        self._given_up = False
        self._helpers: trio.Nursery | None = None
        self._copies: list[Copy] = []
        self._block = trio.CancelScope()

    @property
    def returncode(self) -> int | None:
        """0 to 255, 128 and the signal's number if a signal ended it; None while it runs."""
        return self._returncode

    async def wait(self) -> int:
        """Wait until it has ended; returns its `returncode`.

        Raises:
            ShimError: the shim is gone, and nobody knows how the process ended.
        """
        await self._ended.wait()
        if self._returncode is None:
            raise self._lost
        return self._returncode

    async def send_signal(self, signum: int) -> None:
        """Send it a signal.  Nothing to do if it has ended.

        Raises:
            ShimError: the runtime failed, or the shim is gone.
        """
        request = api.KillRequest(id=self.id, exec_id=self.exec_id, signal=signum)
        try:
            await self._task.kill(request)
        except NotFoundError:
            return

    async def terminate(self) -> None:
        """SIGTERM.  The init of a container ignores it unless it has a handler for it."""
        await self.send_signal(signals.SIGTERM)

    async def kill(self) -> None:
        """SIGKILL."""
        await self.send_signal(signals.SIGKILL)

    async def resize(self, width: int, height: int) -> None:
        """The size of its terminal, in characters.  Nothing to do without a terminal."""
        await self._task.resize_pty(
            api.ResizePtyRequest(id=self.id, exec_id=self.exec_id, width=width, height=height)
        )

    # ------------------------------------------------------------ the container's side

    @contextmanager
    def _attended(self) -> Iterator[None]:
        """The block of the process: it is cancelled when its output cannot be written.

        Raises:
            OSError: why not.
        """
        with self._block:
            yield
        for copy in self._copies:
            if copy.error is not None:
                raise copy.error

    async def _begin(self, helpers: trio.Nursery, streams: Streams) -> None:
        """Start it; helpers wait for its end and copy its output.

        Args:
            helpers: outlive the block of the process, and are not cancelled with it.
            streams: where its output goes.
        """
        self._helpers = helpers
        targets = (self.stdout, streams.out), (self.stderr, streams.err)
        self._copies = [
            Copy(stream, fd, self._block.cancel)
            for stream, fd in targets
            if stream is not None and fd is not None
        ]
        if streams.out is not None:
            self.stdout = None
        if streams.err is not None:
            self.stderr = None
        helpers.start_soon(self._live)
        await self._begun.wait()
        if self._ended.is_set() and self._returncode is None:
            raise self._lost

    @undisturbed
    async def _live(self) -> None:
        """Start it, ask how it ends, and remember."""
        ids = {"id": self.id, "exec_id": self.exec_id}
        try:
            self.pid = (await self._task.start(api.StartRequest(**ids))).pid
            self._copy()
            self._begun.set()
            self._returncode = (await self._task.wait(api.WaitRequest(**ids))).exit_status
        except ShimError as error:
            self._lost = error
        finally:
            self._copy()
            self._begun.set()
            self._ended.set()

    def _copy(self) -> None:
        assert self._helpers is not None
        if not self._begun.is_set():
            for copy in self._copies:
                self._helpers.start_soon(copy.run)

    async def _flush(self) -> None:
        """If it has ended: wait until its output is where it should go."""
        if self._ended.is_set():
            for copy in self._copies:
                await copy.finish(_IDLE)

    async def _end_streams(self) -> None:
        """After this nobody reads from its fifos."""
        with trio.move_on_after(_IDLE):
            for copy in self._copies:
                await copy.done.wait()
        for copy in self._copies:
            await copy.stop()
        if isinstance(self.stdin, FifoWriter):
            self.stdin.close()

    def _give_up(self) -> None:
        """Nobody waits for it any more: the shim's `delete` has to end it."""
        self._given_up = True
        self._ended.set()

    def _has_ended(self) -> bool:
        return self._ended.is_set()

    async def _close_io(self) -> None:
        try:
            await self._task.close_io(
                api.CloseIORequest(id=self.id, exec_id=self.exec_id, stdin=True)
            )
        except (NotFoundError, UnavailableError):  # nothing is open any more
            return
