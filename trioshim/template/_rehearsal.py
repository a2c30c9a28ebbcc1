"""A shim's life with a container that is none: what a template and its spares do beforehand.

All of it is the real code, with the real files, fifos, sockets and commands; only the runtime's
command is `true`, and there is no process in the container.

Rules: no thread is started, no child is left, nothing is mounted, no cgroup is touched, and
nothing is left open.
"""

from __future__ import annotations

import os
import socket
from functools import partial

import trio
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

# All that the first container of a shim would load.
from ..abc import Cgroup, Child, ContainerSpec, ExecSpec, Exit, Runtime, Stdio
from ..linux import (
    LinuxKernel,
    PrivateListener,
    _cgroup_v1,  # noqa: F401
    _cgroup_v2,  # noqa: F401
    _console,  # noqa: F401
    _logger,  # noqa: F401
    _stdio,  # noqa: F401
)
from ..linux._cgroup import read_mounts
from ..proto import task_v2_pb2 as api
from ..proto.runc_options_pb2 import Options as RuncOptions
from ..publisher import open_publisher
from ..runc import Runc
from ..shim import serve
from ..ttrpc import Request, open_client, serve_connection

__all__ = ["clear", "rehearse"]

_SERVICE = "containerd.task.v2.Task"
_ID, _EXEC = "rehearsal", "exec"
_PROCESS = b'{"args": ["true"], "cwd": "/"}'
_CONFIG = b'{"linux": {"namespaces": [{"type": "pid"}]}}'
_SECONDS = 30


def rehearse(directory: str) -> None:
    """Live the whole life of a shim.

    Args:
        directory: is made, and removed at the end.

    Raises:
        OSError, trio.TooSlowError: this machine does not let us.
    """
    os.makedirs(directory, 0o700, exist_ok=True)
    try:
        with open(f"{directory}/config.json", "wb") as config:
            config.write(_CONFIG)
        outputs = [_reader(f"{directory}/{name}") for name in "oe"]
        trio.run(_live, directory, restrict_keyboard_interrupt_to_checkpoints=True)
        for fd in outputs:
            os.close(fd)
    finally:
        clear(directory)


def clear(directory: str) -> None:
    """Remove it, with all that a rehearsal has made there; also one that was killed."""
    for name in os.listdir(directory):
        os.unlink(f"{directory}/{name}")
    os.rmdir(directory)


def _reader(path: str) -> int:
    """A client that reads an output."""
    _remove(path)
    os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


async def _live(directory: str) -> None:
    kernel = _Kernel()
    with trio.fail_after(_SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(_be_the_daemon, f"{directory}/daemon")
            async with (
                _listener(f"{directory}/shim") as listener,
                open_publisher(f"{directory}/daemon") as publisher,
            ):
                shim = partial(
                    serve,
                    listener,
                    runtime=_NoRuntime(Runc(kernel, "template")),
                    kernel=kernel,
                    publisher=publisher,
                )
                await nursery.start(shim)
                await _be_the_client(directory)
            nursery.cancel_scope.cancel()


def _listener(path: str) -> PrivateListener:
    _remove(path)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    sock.setblocking(False)
    return PrivateListener(sock)


async def _be_the_daemon(path: str, *, task_status: trio.TaskStatus[None]) -> None:
    """Where events go."""

    async def take(_: Request) -> bytes:
        return b""

    async with _listener(path) as listener:
        task_status.started()
        await trio.serve_listeners(partial(serve_connection, dispatch=take), [listener])


async def _be_the_client(directory: str) -> None:
    options = Any(type_url="containerd.runc.v1.Options")
    options.value = RuncOptions(binary_name="true").SerializeToString()
    out, err = f"{directory}/o", f"{directory}/e"
    create = api.CreateTaskRequest(
        id=_ID, bundle=directory, options=options, stdout=out, stderr=err
    )
    more = api.ExecProcessRequest(
        id=_ID, exec_id=_EXEC, spec=Any(value=_PROCESS), stdout=out, stderr=err
    )
    calls: list[tuple[str, Message]] = [
        ("Create", create),
        ("Connect", api.ConnectRequest(id=_ID)),
        ("Start", api.StartRequest(id=_ID)),
        ("State", api.StateRequest(id=_ID)),
        ("Exec", more),
        ("Start", api.StartRequest(id=_ID, exec_id=_EXEC)),
        ("Kill", api.KillRequest(id=_ID, exec_id=_EXEC, signal=9)),
        ("Wait", api.WaitRequest(id=_ID, exec_id=_EXEC)),
        ("Delete", api.DeleteRequest(id=_ID, exec_id=_EXEC)),
        ("Kill", api.KillRequest(id=_ID, signal=9)),
        ("Wait", api.WaitRequest(id=_ID)),
        ("Delete", api.DeleteRequest(id=_ID)),
        ("Shutdown", api.ShutdownRequest(id=_ID)),
    ]
    async with open_client(await trio.open_unix_socket(f"{directory}/shim")) as client:
        for method, request in calls:
            await client.call(_SERVICE, method, request.SerializeToString())


class _Kernel(LinuxKernel):
    """The real one, without what threads would do."""

    def cgroup(self, pid: int) -> Cgroup:  # noqa: ARG002 (no process, no cgroup)
        read_mounts()  # which takes the most of it
        return _NoCgroup()

    async def unmount(self, target: str) -> None:  # noqa: ARG002 (nothing is mounted)
        await trio.lowlevel.checkpoint()


class _NoRuntime(Runtime):
    """runc's commands without runc's processes."""

    def __init__(self, runc: Runc) -> None:
        self._runc = runc

    async def prepare(self, spec: ContainerSpec) -> None:
        await self._runc.prepare(spec)

    def io_owner(self, spec: ContainerSpec) -> tuple[int, int]:
        return self._runc.io_owner(spec)

    async def create(self, spec: ContainerSpec, stdio: Stdio) -> Child:  # noqa: ARG002
        await self._runc.start(spec)
        return _Nobody()

    async def exec(self, spec: ContainerSpec, process: ExecSpec, stdio: Stdio) -> Child:  # noqa: ARG002
        await self._runc.start(spec)
        return _Nobody()

    async def start(self, spec: ContainerSpec) -> None:
        await self._runc.start(spec)

    async def kill(self, spec: ContainerSpec, init: Child, signum: int, *, all: bool) -> None:  # noqa: A002
        await self._runc.kill(spec, init, signum, all=all)
        init.signal(signum)

    async def kill_remaining(self, spec: ContainerSpec) -> None:
        await self._runc.kill_remaining(spec)

    async def delete(self, spec: ContainerSpec, *, force: bool = False) -> None:
        await self._runc.delete(spec, force=force)


class _NoCgroup(Cgroup):
    """One in which nothing happens."""

    def oom_kills(self) -> int:
        return 0

    async def oom_changed(self) -> None:
        await trio.sleep_forever()

    def stats(self) -> Message:
        raise NotImplementedError

    def pids(self) -> list[int]:
        return []

    def close(self) -> None:
        """Nothing is open."""


class _Nobody(Child):
    """A process that is none, and ends when it is sent a signal."""

    def __init__(self) -> None:
        self._ended = trio.Event()

    @property
    def pid(self) -> int:
        return os.getpid()

    async def wait(self) -> Exit:
        await self._ended.wait()
        return Exit(137, 1)

    def signal(self, signum: int) -> None:  # noqa: ARG002 (each ends it)
        self._ended.set()

    def close(self) -> None:
        """Nothing is open."""
