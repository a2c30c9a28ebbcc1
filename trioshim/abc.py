"""The ports: what trioshim asks of the world, and nothing more.

`task/` is written against this page alone.  `linux/` and `runc/` are the real world, `testing/`
is a world in memory; only `__main__` and `testing` choose one.  Whoever writes a shim for
another runtime implements `Runtime`; whoever tests one gets the rest from `trioshim.testing`.

The clock is not a port: deadlines and back-off use trio's clock (`MockClock` in tests), and
only the stamps in events and exits come from `Kernel.now()`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, NoReturn, Protocol

import trio

from ._specs import (
    CheckpointSpec,
    ContainerSpec,
    ExecSpec,
    Exit,
    Mount,
    Options,
    StdioSpec,
)
from .errors import UnimplementedError

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from .proto.types_pb2 import Envelope

__all__ = [
    "Cgroup",
    "CheckpointSpec",
    "Child",
    "ContainerSpec",
    "ExecSpec",
    "Exit",
    "Kernel",
    "Mount",
    "Options",
    "Publisher",
    "Runtime",
    "Stdio",
    "StdioSpec",
]


# ---------------------------------------------------------------- the kernel


class Child(Protocol):
    """A process with a name: somebody waits for it, so the reaper leaves it alone."""

    @property
    def pid(self) -> int: ...

    async def wait(self) -> Exit:
        """Wait until it has ended and collect it.  Again: the same answer.  Safe to cancel.

        One task at a time may wait.
        """
        ...

    def signal(self, signum: int) -> None:
        """Send a signal to exactly this process, never to a later owner of its pid.

        Raises:
            ProcessLookupError: it has ended.
        """
        ...

    def close(self) -> None:
        """Let go of it.  If it still runs, the reaper will collect it as a stranger."""
        ...


class Cgroup(Protocol):
    """The cgroup of a container, held open: its counters can be read until `close`."""

    def oom_kills(self) -> int:
        """How many processes the kernel has killed here for memory; 0 if that cannot be read."""
        ...

    async def oom_changed(self) -> None:
        """Return when `oom_kills` may have grown.

        Raises:
            OSError: this cgroup cannot be watched (any more).
        """
        ...

    def stats(self) -> Message:
        """`io.containerd.cgroups.v1.Metrics` or its v2 twin.  Missing files leave fields unset.

        Raises:
            OSError: out of file descriptors or memory.
        """
        ...

    def pids(self) -> list[int]:
        """Every process in it and below it, ascending; empty once it is gone.

        Raises:
            OSError: out of file descriptors or memory.
        """
        ...

    def close(self) -> None: ...


class Stdio(Protocol):
    """The standard streams of one process, between the client's ends and the container's."""

    @property
    def fds(self) -> Mapping[int, int]:
        """The container's ends: its fd number (0, 1, 2) to ours.  What is absent is /dev/null."""
        ...

    @property
    def console_socket(self) -> str:
        """Where the runtime sends the pty's master; "" without a terminal."""
        ...

    async def attach(self) -> None:
        """The runtime has the container's ends: drop ours, fetch the console, start to copy.

        Raises:
            OSError, ShimError: the runtime sent no console.
        """
        ...

    def take_input(self) -> None:
        """The process runs: from now on its stdin is read from the client.  Again: nothing."""
        ...

    def resize(self, width: int, height: int) -> None:
        """Set the terminal's size, now or when it comes.  Nothing to do without a terminal."""
        ...

    def close_stdin(self) -> None:
        """No more stdin from us: the process sees EOF once every writer has gone and all is read.

        Again: nothing happens.
        """
        ...

    def process_ended(self) -> None:
        """The process is gone: a terminal that nobody has open says so to the client, at once.

        Not first with Delete: a containerd client deletes only when it has read to the end.
        """
        ...

    async def drain(self) -> None:
        """Call after the process has ended: copy what is left of its output.

        Returns at the end of the output; or when nothing has come for a while, although a
        descendant of the process still holds it open; or when the client stops reading for long.
        """
        ...


class Kernel(Protocol):
    """The Linux calls we make.  Nothing else in the package may make them."""

    def now(self) -> int:
        """Wall clock, nanoseconds since 1970."""
        ...

    def birth(self) -> AbstractContextManager[None]:
        """Around "the runtime runs, its pid file is read, `adopt`".

        Inside, strangers are not collected: so the pid in the file cannot have been recycled,
        and the exit of a process that has ended already is still there to be waited for.
        """
        ...

    def spawn(
        self,
        argv: Sequence[str],
        *,
        fds: Mapping[int, int] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a program, as the leader of a process group of its own.

        Args:
            argv: the program (looked up in PATH) and its arguments.
            fds: the child's fd number to ours; of 0, 1, 2 what is absent is /dev/null.
            env: its whole environment; None: ours without NOTIFY_SOCKET.

        Raises:
            OSError: it could not be started (FileNotFoundError: no such program).
        """
        ...

    def kill_group(self, child: Child) -> None:
        """SIGKILL for a spawned child and all of its process group.  Nothing to do if it ended."""
        ...

    def adopt(self, pid: int) -> Child:
        """A name for a process that the runtime left to us.  Inside `birth` only.

        Raises:
            ProcessLookupError: there is no such child of ours.
            OSError: out of file descriptors.  It has been killed: nobody could wait for it.
        """
        ...

    def cgroup(self, pid: int) -> Cgroup:
        """The cgroup that a process is in.

        Raises:
            OSError: the process is gone or its cgroup cannot be opened.
        """
        ...

    def open_stdio(self, spec: StdioSpec) -> AbstractAsyncContextManager[Stdio]:
        """Open the client's side of the streams and make the container's; close all at the end.

        Raises (on entering):
            InvalidArgumentError: a scheme that nobody knows, or a bad URL.
            DeadlineExceededError: the client does not open its end of a fifo (30 seconds).
            OSError: it cannot be opened.
        """
        ...

    async def mount(self, mounts: Sequence[Mount], target: str) -> None:
        """Make the mounts on `target` in order; on failure unmount what was made.

        Raises:
            OSError: "failed to mount rootfs component ...".
        """
        ...

    async def unmount(self, target: str) -> None:
        """Unmount every layer on and below `target`.  No such mount or path: nothing to do.

        Raises:
            OSError: it is busy, or cannot be unmounted; asked again, it goes on with what is left.
        """
        ...

    def make_directory(self, path: str, mode: int) -> None:
        """Make a directory; nothing to do if it is there.

        Raises:
            OSError: the disk is full, or the directory above is gone.
        """
        ...

    def write_file(self, path: str, data: bytes) -> None:
        """Write a file of the bundle, mode 0600, whole or not at all, through no symlink.

        Raises:
            OSError: the disk is full, or the bundle is gone.
        """
        ...

    async def reap_strangers(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> NoReturn:
        """Collect the children that nobody waits for: orphans that were given to us."""
        ...


# ---------------------------------------------------------------- the runtime


class Runtime(ABC):
    """What runs containers.  runc is one; yours may be another.

    All methods may be cancelled; what they started is then ended before they return.
    They raise `RuntimeFailedError` (or another `ShimError` that says more) and `OSError`.
    """

    async def prepare(self, spec: ContainerSpec) -> None:  # noqa: B027 (optional hook)
        """Before anything else: look at the bundle, note what `delete` will need.

        Raises:
            InvalidArgumentError: nothing can be made of this bundle, and why.
        """

    def io_owner(self, spec: ContainerSpec) -> tuple[int, int]:
        """uid and gid that own the container's ends of the pipes."""
        return 0, 0

    @abstractmethod
    async def create(self, spec: ContainerSpec, stdio: Stdio) -> Child:
        """Create the container; its init waits to be started.  Returns init.

        If this fails, `delete` with `force` follows, except after:

        Raises:
            AlreadyExistsError: the runtime knows a container of that id, which is not ours.
        """

    @abstractmethod
    async def start(self, spec: ContainerSpec) -> None:
        """Let init run its program.

        Raises:
            FailedPreconditionError: it runs already, so an earlier call whose answer was lost has
                done its work.
        """

    @abstractmethod
    async def kill(self, spec: ContainerSpec, init: Child, signum: int, *, all: bool) -> None:  # noqa: A002
        """Send a signal to init, or to all processes of the container.

        Raises:
            NotFoundError: "process already finished", "no such container".
        """

    @abstractmethod
    async def delete(self, spec: ContainerSpec, *, force: bool = False) -> None:
        """Remove what the runtime keeps of a container; kills init if it was never started.

        With `force`, whatever state it is in.  A container that is not there: nothing to do.
        """

    async def kill_remaining(self, spec: ContainerSpec) -> None:  # noqa: B027 (optional hook)
        """Init has ended: kill what can outlive it (a pid namespace shared with others)."""

    async def restore(self, spec: ContainerSpec, stdio: Stdio) -> Child:
        """Start from the checkpoint in `spec.checkpoint`.  Returns init, running."""
        raise UnimplementedError("restore")

    async def exec(self, spec: ContainerSpec, process: ExecSpec, stdio: Stdio) -> Child:
        """Run one more process in a running container."""
        raise UnimplementedError("exec")

    async def pause(self, spec: ContainerSpec) -> None:
        """Freeze all processes of the container.  If this fails, `resume` follows."""
        raise UnimplementedError("pause")

    async def resume(self, spec: ContainerSpec) -> None:
        """Undo `pause`.

        Raises:
            FailedPreconditionError: it is not paused, or has ended.  May be left out by a runtime
                for which this is no failure.
        """
        raise UnimplementedError("resume")

    async def update(self, spec: ContainerSpec, resources: bytes) -> None:
        """New limits: an OCI `linux.resources` object as JSON text."""
        raise UnimplementedError("update")

    async def checkpoint(self, spec: ContainerSpec, checkpoint: CheckpointSpec) -> None:
        raise UnimplementedError("checkpoint")


# ---------------------------------------------------------------- the daemon


class Publisher(Protocol):
    """Where events go."""

    async def publish(self, envelope: Envelope) -> None:
        """Deliver one event.

        Raises:
            InvalidArgumentError, NotFoundError, FailedPreconditionError, UnimplementedError: this
                one never; it is logged and left out.
            OSError, ShimError: not now; it will be tried again, before any other.
        """
        ...

    async def aclose(self) -> None: ...
