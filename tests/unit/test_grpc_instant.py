"""gRPC calls that cannot wait: answered by the reader, unless the peer's window is too small."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from trioshim.errors import Code, NotFoundError
from trioshim.proto import task_v2_pb2 as api
from trioshim.rpc import _grpc_writer, instant

from .grpc_world import TASK_PATH as TASK
from .grpc_world import Tasks, open_world
from .ttrpc_world import Spawned, narrow, sockets


class Looks(Tasks):
    """State is instant too.

    Attributes:
        looked: how often it was asked.
    """

    looked = 0

    @instant
    def state(self, request: api.StateRequest) -> api.StateResponse:
        self.looked += 1
        return self.answer()


async def test_an_instant_call_starts_no_task() -> None:
    """On a socket its answer needs none either; another call has one."""
    spawned = Spawned()
    async with open_world(sockets, tasks=Looks()) as world:
        assert await world.peer.still_served()
        trio.lowlevel.add_instrument(spawned)
        for _ in range(10):
            assert (await world.peer.called(f"{TASK}/State")).code == 0
        assert spawned.names == []
        world.tasks.go_on.set()
        assert (await world.peer.called(f"{TASK}/Wait")).code == 0
        trio.lowlevel.remove_instrument(spawned)
        assert spawned.names == ["Wait"]


async def test_a_reply_larger_than_the_window_waits_for_it() -> None:
    """In a task, where others do not wait with it."""
    async with open_world(tasks=Looks()) as world:
        world.peer.opens_window = False
        world.tasks.answer = lambda: api.StateResponse(id="x" * 100_000)
        stream_id = await world.peer.call(f"{TASK}/State")
        reply = world.peer.replies[stream_id]
        await world.peer.receive_until(lambda: len(reply.body) == 65535)
        world.peer.h2.increment_flow_control_window(50_000)
        world.peer.h2.increment_flow_control_window(50_000, stream_id)
        await world.peer.flush()
        assert (await world.peer.reply(stream_id)).code == 0
        assert len(api.StateResponse.FromString(reply.message).id) == 100_000
        assert await world.peer.still_served()


@pytest.mark.parametrize("kind", [Looks, Tasks], ids=["instant", "in tasks"])
async def test_what_the_socket_takes_a_part_of_is_finished(
    kind: type[Tasks], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes the rest; and who waits for room learns that there is some (law 10)."""
    monkeypatch.setattr(_grpc_writer, "_MUCH", 10_000)
    async with open_world(lambda: narrow(sockets()), tasks=kind()) as world:
        world.tasks.answer = lambda: api.StateResponse(id="x" * 30_000)
        world.peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**30})
        world.peer.h2.increment_flow_control_window(2**30)
        world.peer.holds = True
        ids = [await world.peer.call(f"{TASK}/State") for _ in range(50)]
        world.peer.holds = False
        await world.peer.flush()
        for stream_id in ids:
            reply = await world.peer.reply(stream_id)
            assert len(api.StateResponse.FromString(reply.message).id) == 30_000


class Engine:
    """Has so much to say, once."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def data_to_send(self) -> bytes:
        data, self.data = self.data, b""
        return data


async def test_there_is_room_when_the_socket_has_taken_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody else writes then, so nobody would tell who waits."""
    monkeypatch.setattr(_grpc_writer, "_MUCH", 1000)
    ours, theirs = sockets()
    async with ours, theirs, trio.open_nursery() as tasks:
        writer = _grpc_writer.Writer(ours, Engine(b"x" * 5000), tasks, 30)
        await writer.room()
        assert await theirs.receive_some() == b"x" * 5000


async def test_a_request_that_was_reset_in_the_same_packet_is_no_error() -> None:
    """There is nobody to answer; the connection goes on."""
    async with open_world(tasks=Looks()) as world:
        assert await world.peer.still_served()
        world.peer.holds = True
        stream_id = await world.peer.call(f"{TASK}/State")
        world.peer.h2.reset_stream(stream_id, ErrorCodes.CANCEL)
        world.peer.holds = False
        await world.peer.flush()
        assert await world.peer.still_served()


@pytest.mark.parametrize(
    ("raised", "code"), [(NotFoundError("x"), Code.NOT_FOUND), (ValueError("odd"), Code.UNKNOWN)]
)
async def test_an_error_is_a_status(raised: Exception, code: Code) -> None:
    """As it is for calls with a task; the next one is answered."""

    def answer() -> api.StateResponse:
        raise raised

    async with open_world(tasks=Looks()) as world:
        world.tasks.answer = answer
        assert (await world.peer.called(f"{TASK}/State")).code == code
        assert await world.peer.still_served()


async def test_a_message_that_is_too_long_for_grpc_is_a_status() -> None:
    """It is found out when the answer is packed."""
    async with open_world(tasks=Looks()) as world:
        world.tasks.answer = lambda: api.StateResponse(id="x" * 5_000_000)
        assert (await world.peer.called(f"{TASK}/State")).code == Code.RESOURCE_EXHAUSTED


async def test_many_at_once_leave_others_their_turn() -> None:
    """No more than a portion of frames is answered between two steps of another task."""
    tasks = Looks()
    async with open_world(tasks=tasks) as world, trio.open_nursery() as nursery:
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                before = tasks.looked
                await trio.lowlevel.checkpoint()
                most = max(most, tasks.looked - before)

        world.peer.holds = True
        ids = [await world.peer.call(f"{TASK}/State") for _ in range(300)]
        world.peer.holds = False
        nursery.start_soon(watch)
        await world.peer.flush()
        assert {(await world.peer.reply(stream_id)).code for stream_id in ids} == {0}
        nursery.cancel_scope.cancel()
    assert tasks.looked == 300
    assert most <= 64
