"""Containers found by their bundles: ps, kill, stats and events with shims that answer here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import trio
from google.protobuf.any_pb2 import Any as Packed

from trioshim.cli import _kill, _proc
from trioshim.cli._events import Event, watch
from trioshim.cli._failures import CliError
from trioshim.cli._found import Place, find_places, look, look_at, open_task, read_command
from trioshim.cli._stats import _readable, _sample, _size, rows_of
from trioshim.containers import Stats
from trioshim.proto import cgroups_v2_pb2 as cgroups
from trioshim.proto import task_v2_pb2 as api
from trioshim.proto.task_types_pb2 import Status

from .cli_world import make_place, open_shim


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    """We are taken for root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)


# ---------------------------------------------------------------- who is there


def test_bundles_are_found_in_every_namespace(tmp_path: Path) -> None:
    """Not what is being made or removed, not files, not a directory that is not there."""
    box = make_place(tmp_path)
    other = make_place(tmp_path, "other", namespace="k8s.io")
    make_place(tmp_path, ".gone-box")
    (tmp_path / "file").touch()
    tops = [str(tmp_path), str(tmp_path / "nothing")]
    assert find_places(tops) == [other, box]
    assert find_places(tops, namespace="ns") == [box]
    assert find_places(tops, id_="other") == [other]


async def test_a_shim_is_asked_itself(tmp_path: Path) -> None:
    """Status and pids are its own words; the command is the bundle's."""
    place = make_place(tmp_path)
    async with open_shim(place):
        [seen] = await look_at([place])
    assert (seen.id, seen.namespace, seen.status) == ("box", "ns", "running")
    assert (seen.pid, seen.shim_pid, seen.exit_status) == (os.getpid(), os.getpid(), None)
    assert seen.command == ["sleep", "9"]
    assert seen.since is not None


async def test_a_container_that_has_ended_says_how(tmp_path: Path) -> None:
    """And not since when it runs."""
    place = make_place(tmp_path)
    async with open_shim(place) as task:
        task.status = Status.STOPPED
        [seen] = await look_at([place])
    assert (seen.status, seen.exit_status, seen.since) == ("stopped", 7, None)


@pytest.mark.parametrize(
    "announced",
    [
        "{path}",
        '{"version": 3, "address": "unix://{path}", "protocol": "ttrpc"}',
        '{"version": 2, "address": "{path}", "protocol": "grpc"}',
    ],
)
async def test_every_announcement_is_understood(announced: str, tmp_path: Path) -> None:
    """A path, JSON of version 3, gRPC for containerd 1.7."""
    place = make_place(tmp_path)
    async with open_shim(place, announced=announced):
        seen = await look(place)
    assert seen is not None
    assert seen.status == "running"


async def test_a_shim_that_is_gone_is_shown_as_such(tmp_path: Path) -> None:
    """Its bundle is there; who wants to talk to it is told who cleans up."""
    place = make_place(tmp_path)
    async with open_shim(place):
        pass
    seen = await look(place)
    assert seen is not None
    assert seen.status == "unreachable"
    with pytest.raises(CliError, match=r"does not listen any more .* cleans up"):
        async with open_task(place):
            pass


async def test_a_bundle_that_goes_meanwhile_is_left_out(tmp_path: Path) -> None:
    """No line for what is no more."""
    place = make_place(tmp_path)
    shutil.rmtree(place.bundle)
    assert await look_at([place]) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"process": 1}', '{"process": {"args": 1}}'])
def test_a_broken_config_has_no_command(text: str, tmp_path: Path) -> None:
    """It is not ours to complain about."""
    (tmp_path / "config.json").write_text(text)
    assert read_command(tmp_path) == []


async def test_a_signal_goes_to_the_shim(tmp_path: Path) -> None:
    """With the number and the choice of processes."""
    place = make_place(tmp_path)
    async with open_shim(place) as task:
        await _kill._kill("box", 15, True, "", [str(tmp_path)])
    assert task.killed == [(15, True)]


# ---------------------------------------------------------------- processes


def test_our_shim_is_known_by_its_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only it is ever sent SIGUSR1, which ends others."""
    lines = {
        1: [b"/opt/trioshim/bin/python3", b"-I", b"-m", b"trioshim", b"-namespace", b"x"],
        2: [b"/usr/bin/python3", b"/usr/bin/containerd-shim-trio-v1", b"-id", b"x"],
        3: [b"/opt/trioshim/bin/containerd-shim-runc-v2", b"-namespace", b"trioshim"],
        4: [b"python3", b"-m", b"pytest", b"trioshim"],
        5: [],
    }
    monkeypatch.setattr(_proc, "arguments", lines.__getitem__)
    assert [_proc.is_our_shim(pid) for pid in lines] == [True, True, False, False, False]
    names = [_proc.shim_name(pid) for pid in lines]
    assert names == ["trioshim", "trioshim", "containerd-shim-runc-v2", "python3", "-"]


def test_a_process_that_is_gone_has_no_beginning() -> None:
    """Not an error: it ended while we looked."""
    assert _proc.started_at(2**22 + 1) is None
    assert _proc.arguments(2**22 + 1) == []


# ---------------------------------------------------------------- stats


def stats(cpu: float) -> Stats:
    return Stats(cpu, 0.0, 1 << 20, None, 2, 16, cgroups.Metrics())


def test_percent_is_of_one_processor() -> None:
    """Half a second of its time in two seconds; nothing is said of what was not there before."""
    box, new = Place("ns", "box", Path("/b")), Place("ns", "new", Path("/n"))
    rows = rows_of({box: (10.0, stats(1.0))}, {box: (12.0, stats(1.5)), new: (12.0, stats(9.0))})
    assert [(row["id"], row["cpu"]) for row in rows] == [("box", 25.0), ("new", None)]
    shown = _readable(rows[0])
    assert (shown["cpu"], shown["memory"], shown["memory_limit"]) == ("25.0 %", "1 MiB", None)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (64 << 20, "64 MiB"), (1 << 50, "1024 TiB")],
)
def test_sizes_for_people(number: int, text: str) -> None:
    """In powers of 1024, as the options take them."""
    assert _size(number) == text


async def test_who_does_not_answer_has_no_stats(tmp_path: Path) -> None:
    """The others have."""
    dead, place = make_place(tmp_path, "dead"), make_place(tmp_path)
    async with open_shim(place) as task:
        packed = Packed()
        packed.Pack(cgroups.Metrics())
        task.used = api.StatsResponse(stats=packed)
        found = await _sample([dead, place])
    assert list(found) == [place]


# ---------------------------------------------------------------- events


async def test_what_happens_to_a_container_is_told_in_order(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """From its bundle to the end of it; of who was there before only what is new."""
    old = make_place(tmp_path, "old")
    told: list[Event] = []
    async with open_shim(old) as old_task, trio.open_nursery() as nursery:
        nursery.start_soon(watch, lambda: find_places([str(tmp_path)]), told.append)
        await trio.sleep(1)
        place = make_place(tmp_path)
        await trio.sleep(1)
        async with open_shim(place) as task:
            await trio.sleep(1)
            task.status = Status.PAUSED
            await trio.sleep(1)
            task.status = Status.RUNNING
            await trio.sleep(1)
            task.exited.set()
            await trio.sleep(1)
        shutil.rmtree(place.bundle)
        await trio.sleep(1)
        old_task.exited.set()
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert [(event.what, event.id, event.exit_status) for event in told] == [
        ("create", "box", None),
        ("start", "box", None),
        ("pause", "box", None),
        ("resume", "box", None),
        ("exit", "box", 7),
        ("delete", "box", None),
        ("exit", "old", 7),
    ]
    assert str(told[4]) == (
        f"2001-09-09T01:46:40.000+00:00 exit   ns/box pid={os.getpid()} status=7"
    )


async def test_a_container_that_vanishes_is_told_of(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Its shim was killed, its bundle removed: a delete without an exit."""
    place = make_place(tmp_path)
    told: list[Event] = []
    async with trio.open_nursery() as nursery:
        async with open_shim(place):
            nursery.start_soon(watch, lambda: find_places([str(tmp_path)]), told.append)
            await trio.sleep(1)
        await trio.sleep(1)
        shutil.rmtree(place.bundle)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert [event.what for event in told] == ["delete"]
