"""A process in a container, init or exec, as its client holds it.

`Wait` is asked once, by a task of the container's nursery, for the whole life of the process; so
`wait` can be cancelled and called again, by many, and the exit status is never lost.
"""

from __future__ import annotations

import signal as signals
from collections.abc import Sequence

import trio

from ..client import TaskClient
from ..errors import NotFoundError, ShimError, UnavailableError
from ..proto import task_v2_pb2 as api
from ._fifos import Fifos, FifoWriter
from ._outputs import Streams, copy_to_fd

__all__ = ["ContainerProcess"]


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
            self.stdin = FifoWriter(fifos.stdin, self._has_ended, self._close_io)
        self.stdout: trio.abc.ReceiveStream | None = fifos.out
        self.stderr: trio.abc.ReceiveStream | None = fifos.err
        self._task = task
        self._returncode: int | None = None
        self._lost: ShimError = UnavailableError("nobody has waited for this process")
        self._ended = trio.Event()
        self._copying: list[trio.Event] = []

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

    async def _begin(self, helpers: trio.Nursery, streams: Streams) -> None:
        """Start it; helpers wait for its end and copy its output.

        Args:
            helpers: outlive the block of the process, up to `end_process`.
            streams: where its output goes.
        """
        started = await self._task.start(api.StartRequest(id=self.id, exec_id=self.exec_id))
        self.pid = started.pid
        helpers.start_soon(self._watch)
        for stream, fd in ((self.stdout, streams.out), (self.stderr, streams.err)):
            if stream is not None and fd is not None:
                self._copying.append(trio.Event())
                helpers.start_soon(self._copy, stream, fd, self._copying[-1])
        if streams.out is not None:
            self.stdout = None
        if streams.err is not None:
            self.stderr = None

    async def _copy(self, stream: trio.abc.ReceiveStream, fd: int, done: trio.Event) -> None:
        try:
            await copy_to_fd(stream, fd)
        finally:
            done.set()

    async def _copied(self) -> None:
        """Wait until its output, as far as we copy it, is at its end."""
        for done in self._copying:
            await done.wait()

    def _give_up(self) -> None:
        """Nobody waits for it any more."""
        self._ended.set()

    async def _watch(self) -> None:
        """Ask how it ends, and remember."""
        try:
            ended = await self._task.wait(api.WaitRequest(id=self.id, exec_id=self.exec_id))
            self._returncode = ended.exit_status
        except ShimError as error:
            self._lost = error
        finally:
            self._ended.set()

    def _has_ended(self) -> bool:
        return self._ended.is_set()

    async def _close_io(self) -> None:
        try:
            await self._task.close_io(
                api.CloseIORequest(id=self.id, exec_id=self.exec_id, stdin=True)
            )
        except NotFoundError:  # it is deleted: nothing is open any more
            return
