"""A bundle with a shim that answers what it is told to, for commands that ask shims."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from google.protobuf.empty_pb2 import Empty

from trioshim.cli._found import Place
from trioshim.errors import NotFoundError
from trioshim.proto import task_v2_pb2 as v2
from trioshim.proto.task_types_pb2 import Status
from trioshim.rpc import Service, serve_rpc


class FakeTask:
    """The Task service of one container; it lives in this process.

    Attributes:
        id: of the container.
        status: what State answers.
        exited: Wait answers 7 when it is set.
        killed: what Kill was asked for.
        used: what Stats answers.
    """

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.status = Status.RUNNING
        self.exited = trio.Event()
        self.killed: list[tuple[int, bool]] = []
        self.used = v2.StatsResponse()

    async def state(self, request: v2.StateRequest) -> v2.StateResponse:
        await trio.lowlevel.checkpoint()
        if request.id != self.id:
            raise NotFoundError(f"container {request.id}")
        return v2.StateResponse(id=self.id, pid=os.getpid(), status=self.status, exit_status=7)

    async def connect(self, _request: v2.ConnectRequest) -> v2.ConnectResponse:
        await trio.lowlevel.checkpoint()
        return v2.ConnectResponse(shim_pid=os.getpid(), task_pid=os.getpid())

    async def wait(self, _request: v2.WaitRequest) -> v2.WaitResponse:
        await self.exited.wait()
        answer = v2.WaitResponse(exit_status=7)
        answer.exited_at.FromSeconds(1_000_000_000)
        return answer

    async def kill(self, request: v2.KillRequest) -> Empty:
        await trio.lowlevel.checkpoint()
        self.killed.append((request.signal, request.all))
        return Empty()

    async def stats(self, _request: v2.StatsRequest) -> v2.StatsResponse:
        await trio.lowlevel.checkpoint()
        return self.used


def make_place(top: Path, id_: str = "box", *, namespace: str = "ns") -> Place:
    """A bundle without a shim, which runs `sleep 9`."""
    bundle = top / namespace / id_
    bundle.mkdir(parents=True)
    config = {"process": {"args": ["sleep", "9"], "env": ["A=1"]}}
    (bundle / "config.json").write_text(json.dumps(config), "utf-8")
    return Place(namespace, id_, bundle)


@asynccontextmanager
async def open_shim(place: Place, *, announced: str = "") -> AsyncIterator[FakeTask]:
    """Serve for this bundle.

    Args:
        place: the bundle.
        announced: what its file `address` says, with {path} in it; "": as trioshim does.
    """
    task = FakeTask(place.id)
    described = v2.DESCRIPTOR.services_by_name["Task"]  # both versions are the same bytes
    names = ("containerd.task.v2.Task", "containerd.task.v3.Task")
    services = [Service(described, task, reads=("State", "Wait"), name=name) for name in names]
    # Not in the bundle: pytest's paths are too long for a socket.
    with TemporaryDirectory(prefix="trs-") as directory:
        path = f"{directory}/s"
        text = announced.replace("{path}", path) or f"unix://{path}"
        (place.bundle / "address").write_text(text, "utf-8")
        sock = trio.socket.socket(trio.socket.AF_UNIX)
        await sock.bind(path)
        sock.listen()
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_rpc, trio.SocketListener(sock), services)
            yield task
            nursery.cancel_scope.cancel()
