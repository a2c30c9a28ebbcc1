"""Many of everything, on both wires: nothing is left behind and the server still answers.

What is left is counted: fds, tasks, objects, resident memory.  No count may depend on how many
there were; clocks have no say.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from trioshim.proto import task_v2_pb2 as api
from trioshim.testing import MemoryListener
from trioshim.ttrpc import Request, Role, open_client

from . import malformed, ttrpc_world
from .both_wires import (
    Footprint,
    answers_on_grpc,
    answers_on_ttrpc,
    connections,
    no_errors_logged,
    on_a_socket,
    serving,
)
from .grpc_world import TASK, TASK_PATH, Peer, Tasks
from .malformed import GRPC, TTRPC, Wire

WIRES = pytest.mark.parametrize("wire", [GRPC, TTRPC], ids=["grpc", "ttrpc"])
STRINGS = 10_000
TOGETHER = 50


async def check_answers(open_stream: Callable[[], Awaitable[trio.abc.Stream]]) -> None:
    """Both wires are served."""
    assert await answers_on_ttrpc(await open_stream())
    assert await answers_on_grpc(await open_stream())


# ---------------------------------------------------------------- on one connection


async def two_thousand_waits_in_grpc(path: Path, tasks: Tasks) -> None:
    async with await trio.open_unix_socket(path) as stream:
        peer = Peer(stream)
        peer.h2.initiate_connection()
        await peer.flush()
        await peer.receive_until(lambda: bool(peer.settings))  # how many are allowed
        ids = [await peer.call(f"{TASK_PATH}/Wait") for _ in range(2000)]
        await tasks.until(lambda: len(tasks.started) == 2000)
        tasks.go_on.set()
        assert {(await peer.reply(stream_id)).code for stream_id in ids} == {0}


async def two_thousand_waits_in_ttrpc(path: Path, tasks: Tasks) -> None:
    answers: list[int] = []
    async with open_client(await trio.open_unix_socket(path)) as client:

        async def wait() -> None:
            reply = await client.call(TASK.full_name, "Wait", b"")
            answers.append(api.WaitResponse.FromString(reply).exit_status)

        async with trio.open_nursery() as nursery:
            for _ in range(2000):
                nursery.start_soon(wait)
            await tasks.until(lambda: len(tasks.started) == 2000)
            tasks.go_on.set()
    assert answers == [3] * 2000


@pytest.mark.parametrize(
    "wait_all", [two_thousand_waits_in_grpc, two_thousand_waits_in_ttrpc], ids=["grpc", "ttrpc"]
)
async def test_two_thousand_waits_on_one_connection(
    tmp_path: Path, wait_all: Callable[[Path, Tasks], Awaitable[None]]
) -> None:
    """All run at the same time, all are answered, and nothing is left of them."""
    tasks = Tasks()
    path = tmp_path / "s"
    async with on_a_socket(path, tasks) as server:
        await check_answers(partial(trio.open_unix_socket, path))
        await connections(server, 0)
        before = Footprint.now()
        await wait_all(path, tasks)
        assert tasks.finished == ["wait"] * 2000
        await check_answers(partial(trio.open_unix_socket, path))
        await connections(server, 0)
        del tasks.started[:], tasks.finished[:]
        before.check_nothing_more()


# ---------------------------------------------------------------- many connections


async def test_three_hundred_idle_connections(tmp_path: Path) -> None:
    """Silent ones, and some of each wire that have been answered: others do not notice."""
    path = tmp_path / "s"
    async with on_a_socket(path, Tasks()) as server:
        await check_answers(partial(trio.open_unix_socket, path))
        await connections(server, 0)
        before = Footprint.now()
        idle = [await trio.open_unix_socket(path) for _ in range(300)]
        for stream in idle[:100]:
            peer = Peer(stream)
            peer.h2.initiate_connection()
            assert await peer.still_served()
        for stream in idle[100:200]:
            caller = ttrpc_world.Peer(stream, Role.CLIENT)
            await caller.send(Request(1, TASK.full_name, "Connect", b""))
            await caller.receive()
        assert server.connections == 300
        each = Footprint.now()
        assert each.tasks - before.tasks < 3 * 300
        assert each.memory - before.memory < 300 * 128 * 1024
        await check_answers(partial(trio.open_unix_socket, path))
        for stream in idle:
            await stream.aclose()
        await connections(server, 0)
        del idle, stream, peer, caller
        before.check_nothing_more()


async def drop_half_way(path: Path, wire: Wire, rng: random.Random) -> None:
    """A good conversation, cut at any byte; some of it in two pieces; never a reply read."""
    said = wire.preface + b"".join(wire.frames)
    end = rng.randrange(len(said))
    middle = rng.randrange(end + 1)
    stream = await trio.open_unix_socket(path)
    for piece in (said[:middle], said[middle:end]):
        if piece:
            await stream.send_all(piece)
    await stream.aclose()


async def test_a_thousand_connections_that_are_dropped_half_way(tmp_path: Path) -> None:
    """At a random byte, of either wire: what was begun is ended, and what changes goes on."""
    tasks = Tasks()
    tasks.go_on.set()
    path = tmp_path / "s"
    rng = random.Random(4)
    with no_errors_logged():
        async with on_a_socket(path, tasks) as server:

            async def drop(count: int) -> None:
                for _ in range(count // TOGETHER):
                    async with trio.open_nursery() as nursery:
                        for number in range(TOGETHER):
                            wire = (GRPC, TTRPC)[number % 2]
                            nursery.start_soon(drop_half_way, path, wire, rng)
                await check_answers(partial(trio.open_unix_socket, path))
                await connections(server, 0)
                for notes in (tasks.started, tasks.finished, tasks.cancelled):
                    notes.clear()

            await drop(100)
            before = Footprint.now()
            await drop(1000)
            before.check_nothing_more()


# ---------------------------------------------------------------- malformed strings


async def say(listener: MemoryListener, strings: list[bytes]) -> None:
    """Each on a connection of its own, all at the same time; then all are closed."""
    streams = [listener.connect() for _ in strings]
    for stream, string in zip(streams, strings, strict=True):
        await stream.send_all(string)  # in one piece, so it cannot be too late
    await trio.testing.wait_all_tasks_blocked()
    for stream in streams:
        await stream.aclose()
    await trio.testing.wait_all_tasks_blocked()


async def open_memory(listener: MemoryListener) -> trio.abc.Stream:
    return listener.connect()


@WIRES
async def test_ten_thousand_malformed_strings(wire: Wire) -> None:
    """None takes the server down, is an error of ours, or leaves anything behind."""
    listener, tasks = MemoryListener(), Tasks()
    tasks.go_on.set()
    with no_errors_logged():
        async with serving(listener, tasks) as server:

            async def say_all(seeds: range) -> None:
                for start in seeds[::TOGETHER]:
                    some = range(start, start + TOGETHER)
                    await say(listener, [malformed.damaged(wire, seed) for seed in some])
                    assert server.connections == 0
                await check_answers(partial(open_memory, listener))
                await trio.testing.wait_all_tasks_blocked()
                for notes in (tasks.started, tasks.finished, tasks.cancelled):
                    notes.clear()

            await say_all(range(STRINGS, STRINGS + 500))
            before = Footprint.now()
            await say_all(range(STRINGS))
            before.check_nothing_more()


@WIRES
async def test_the_corpus(wire: Wire) -> None:
    """Strings that somebody thought of, whole and byte by byte, while a good client is served."""
    listener, tasks = MemoryListener(), Tasks()
    with no_errors_logged():
        async with serving(listener, tasks) as server:
            for name, string in wire.corpus.items():
                stream = listener.connect()
                with suppress(trio.BrokenResourceError):  # hung up on in the middle
                    for byte in string[:200]:
                        await stream.send_all(bytes([byte]))
                await say(listener, [string])
                await check_answers(partial(open_memory, listener))
                await stream.aclose()
                await trio.testing.wait_all_tasks_blocked()
                assert server.connections == 0, name


def test_the_strings_are_malformed_in_many_ways() -> None:
    """Else ten thousand of them were one."""
    for wire in (GRPC, TTRPC):
        strings = {malformed.damaged(wire, seed) for seed in range(2000)}
        assert len(strings) > 1500
        good = wire.preface + b"".join(wire.frames)
        assert sum(good.startswith(string) for string in strings) < 400


def test_frames_are_found_again() -> None:
    """What damages by frames knows where they are."""
    assert len(TTRPC.frames) == 4
    assert [frame[3] for frame in GRPC.frames] == [4, *[1, 0] * 4, 8, 6]
    assert struct.unpack(">I", TTRPC.frames[0][:4])[0] == len(TTRPC.frames[0]) - 10
