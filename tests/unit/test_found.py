"""Promises of the wires and the kernel that no test had watched: `tests/mutants` found them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from trioshim.errors import DeadlineExceededError
from trioshim.linux import LinuxKernel, _mounts
from trioshim.proto import task_v2_pb2 as api
from trioshim.rpc import Dispatcher, Server, serve_rpc
from trioshim.testing import MemoryListener
from trioshim.ttrpc import open_client

from .grpc_world import TASK, TASK_PATH, Tasks, open_world, task_service

KILL = (TASK.full_name, "Kill", b"")


async def test_what_nobody_waits_for_any_more_is_not_begun(mock_clock: trio.abc.Clock) -> None:
    """A change would run to its end, and its caller ask again (law 8)."""
    tasks = Tasks()
    async with trio.open_nursery() as lasting:
        dispatcher = Dispatcher([task_service(tasks)], lasting)
        with pytest.raises(DeadlineExceededError):
            await dispatcher.call(*KILL, deadline=trio.current_time())
        await trio.testing.wait_all_tasks_blocked()
        assert tasks.started == []


# ---------------------------------------------------------------- the listener


@asynccontextmanager
async def listening(tasks: Tasks) -> AsyncIterator[tuple[MemoryListener, Server, trio.Event]]:
    """A server on both wires; the event says that it has ended."""
    listener, ended = MemoryListener(), trio.Event()

    async def serve(*, task_status: trio.TaskStatus[Server]) -> None:
        await serve_rpc(listener, [task_service(tasks)], task_status=task_status)
        ended.set()

    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve)
        yield listener, server, ended
        nursery.cancel_scope.cancel()


async def test_a_stopped_server_gives_up_what_hangs(autojump_clock: trio.abc.Clock) -> None:
    """After the grace also a change ends, though its caller has left."""
    tasks = Tasks()
    async with listening(tasks) as (listener, server, ended):
        with trio.move_on_after(1):
            async with open_client(listener.connect()) as client:
                await client.call(*KILL)
        server.stop(5)
        with trio.fail_after(60):
            await ended.wait()
        assert trio.current_time() == 6
        assert tasks.cancelled == ["kill"]


async def test_who_connects_in_the_moment_of_the_stop_is_not_waited_for(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Accepted before, heard after: the connection is closed, not kept for the grace."""
    async with listening(Tasks()) as (_, server, _ended):
        ours, theirs = trio.testing.memory_stream_pair()
        server.stop(30)
        with trio.fail_after(10):
            await server._serve(theirs)
            assert await ours.receive_some() == b""


async def test_nothing_is_kept_of_a_client_that_left(autojump_clock: trio.abc.Clock) -> None:
    """A shim lives for months and its daemon connects again and again."""
    async with listening(Tasks()) as (listener, server, _):
        for _ in range(3):
            async with open_client(listener.connect()) as client:
                await client.call(TASK.full_name, "Connect", b"")
        await trio.testing.wait_all_tasks_blocked()
        assert (server.connections, server._reading) == (0, set())


async def test_who_speaks_neither_wire_is_closed(autojump_clock: trio.abc.Clock) -> None:
    """It learns it at once."""
    async with listening(Tasks()) as (listener, _, _ended):
        stream = listener.connect()
        await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
        with trio.fail_after(10):
            assert await stream.receive_some() == b""


# ---------------------------------------------------------------- gRPC


async def test_a_reset_tears_no_frame(autojump_clock: trio.abc.Clock) -> None:
    """A reply that waits for its window is cancelled, but not what is being written (law 10)."""
    async with open_world(trio.testing.lockstep_stream_pair) as world:
        assert await world.peer.still_served()
        world.tasks.answer = lambda: api.StateResponse(id="x" * 100_000)
        stream_id = await world.peer.call(f"{TASK_PATH}/State")
        await trio.testing.wait_all_tasks_blocked()  # nobody reads: the first part is being written
        world.peer.h2.reset_stream(stream_id)
        await world.peer.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert await world.peer.still_served()


# ---------------------------------------------------------------- the kernel


async def test_a_mount_that_has_begun_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is cancelled knows afterwards what is mounted."""
    begun, go_on = trio.Event(), threading.Event()
    steps: list[str] = []

    def slow(_mounts: object, _target: str) -> None:
        trio.from_thread.run_sync(begun.set)
        go_on.wait(60)
        steps.append("mounted")

    async def mount() -> None:
        try:
            await LinuxKernel().mount([], "/nowhere")
        finally:
            steps.append("returned")

    monkeypatch.setattr(_mounts, "mount_all", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount)
        await begun.wait()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
        go_on.set()
    assert steps == ["mounted", "returned"]


async def test_letting_go_of_a_child_wakes_its_waiter(autojump_clock: trio.abc.Clock) -> None:
    """It fails if that is missing, where the case of the contract hangs and leaves the child."""
    child = LinuxKernel().spawn(["sleep", "1000"])

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await child.wait()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            child.close()
            nursery.cancel_scope.deadline = trio.current_time() + 10
        assert not nursery.cancel_scope.cancelled_caught
    finally:
        end(child.pid)


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
