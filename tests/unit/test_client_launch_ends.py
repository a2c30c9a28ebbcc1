"""However a launch ends, nothing is left: shims that obey or do not, cancellation at any time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from trioshim.client import LaunchError, _shim_process
from trioshim.client import _shim_life as shim_life
from trioshim.errors import FailedPreconditionError, InternalError

from .launch_world import PATIENCE, FakeShim, launched, open_fake, refused, runs


@pytest.fixture
def fake() -> Iterator[FakeShim]:
    with open_fake() as fake:
        yield fake


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Call it with the names of time limits: who lets them pass is not waited for."""

    def shorten(*names: str) -> None:
        for name in names:
            monkeypatch.setattr(shim_life, name, 0.3)

    return shorten


# ---------------------------------------------------------------- who is ended, and how


async def test_an_empty_shim_is_told_to_shut_down(fake: FakeShim) -> None:
    """It ends by itself; `delete` is not needed, and its dead socket goes."""
    async with fake.serving():
        async with launched(fake) as shim:
            pass
        assert fake.asked == ["Connect", "Connect", "State", "Shutdown"]
    assert fake.verbs() == ["start"]
    assert shim.deleted is None
    assert not runs(shim.pid)


async def test_a_container_is_deleted_before_its_shim_is_ended(fake: FakeShim) -> None:
    """The shim sees the exit first, so that it can tell of it."""
    fake.holds = True
    async with fake.serving(), launched(fake):
        pass
    assert fake.asked == ["Connect", "Connect", "State", "Wait", "Shutdown"]
    assert fake.verbs() == ["start", "delete"]
    assert not fake.lives()


@pytest.mark.parametrize("holds", [False, True])
async def test_a_shim_that_does_not_obey_gets_a_signal(
    fake: FakeShim, impatient: Callable[..., None], holds: bool
) -> None:
    """SIGTERM, on which it can say its last words; then `delete`, as after a crash."""
    fake.obeys, fake.holds = False, holds
    if not holds:
        impatient("_DRAIN")
    async with fake.serving(), launched(fake) as shim:
        pass
    assert not runs(shim.pid)
    assert fake.verbs() == ["start", "delete"]
    assert shim.deleted is not None
    assert not holds or (fake.bundle / "last-words").exists()


async def test_a_shim_that_does_not_end_is_killed(
    fake: FakeShim, impatient: Callable[..., None]
) -> None:
    """By SIGKILL, when SIGTERM has had its time."""
    impatient("_DRAIN")
    fake.starts(leave="stubborn")
    fake.obeys = False
    async with fake.serving(), launched(fake) as shim:
        pass
    assert not runs(shim.pid)
    assert fake.verbs() == ["start", "delete"]


async def test_a_shim_that_falls_silent_is_ended(
    fake: FakeShim, impatient: Callable[..., None]
) -> None:
    """State has no answer: what it holds is deleted without it, after its end."""
    impatient("_STATE")
    async with fake.serving(), launched(fake) as shim:
        fake.deaf = True
    assert "Shutdown" not in fake.asked
    assert not runs(shim.pid)
    assert fake.verbs() == ["start", "delete"]


async def test_a_shim_that_dies_in_the_block_is_noticed(fake: FakeShim) -> None:
    """`wait_ended` returns, and what it held is deleted at the end."""
    async with fake.serving(), launched(fake) as shim:
        os.kill(shim.pid, 9)
        await shim.wait_ended()
    assert fake.verbs() == ["start", "delete"]
    assert shim.deleted is not None


async def test_anothers_shim_is_left_running(fake: FakeShim) -> None:
    """It ran before: only the container goes, and nobody is asked to shut down."""
    fake.pids = [os.getpid()]
    fake.holds = True
    async with fake.serving(), launched(fake) as shim:
        assert shim.shared
    assert "Shutdown" not in fake.asked
    assert fake.verbs() == ["start", "delete"]
    assert fake.socket.exists()


async def test_a_delete_that_fails_is_told(fake: FakeShim) -> None:
    """It is tried again without the shim; then the caller learns what may be left."""
    fake.does(
        start={"say": f"unix://{fake.socket}", "leave": "willing"},
        delete={"complain": "cannot", "status": 1},
    )
    fake.holds = True
    async with fake.serving():
        with pytest.raises(LaunchError, match="delete ended with status 1: cannot"):
            async with launched(fake):
                pass
    assert fake.verbs() == ["start", "delete", "delete"]
    assert not fake.lives()


async def test_the_blocks_own_error_comes_out(
    fake: FakeShim, caplog: pytest.LogCaptureFixture
) -> None:
    """A failing `delete` does not hide it, but is not kept secret."""
    fake.does(start={"say": f"unix://{fake.socket}", "leave": "willing"}, delete={"say": "\xff"})
    fake.holds = True
    async with fake.serving():
        with pytest.raises(ZeroDivisionError):
            async with launched(fake):
                raise ZeroDivisionError
    assert "may have left something" in caplog.text
    assert not fake.lives()


@pytest.mark.parametrize(
    ("fails", "pids", "why"),
    [
        (FailedPreconditionError("not today"), [], "not today"),
        (InternalError(), [], "internal"),
        (None, [2**32 - 1], "pid is 4294967295"),
        (None, [4194303], "pid is 4194303"),
        (None, [os.getpid(), 7], f"pid was {os.getpid()}, and now it is 7"),
    ],
)
async def test_a_shim_that_cannot_be_met_is_told(
    fake: FakeShim, fails: Any, pids: list[int], why: str
) -> None:
    """Connect fails, or tells of a process that is not there."""
    fake.does(start={"say": f"unix://{fake.socket}"})
    fake.fails, fake.pids = fails, list(pids)
    async with fake.serving():
        error = await refused(fake)
    assert why in str(error)


@pytest.mark.parametrize("kind", ["willing", "stubborn"])
async def test_a_server_that_never_answers_is_found_and_ended(
    fake: FakeShim, impatient: Callable[..., None], kind: str
) -> None:
    """By its socket: it has told nobody its pid."""
    impatient("_MEET")
    fake.starts(leave=kind, listen=str(fake.socket))
    error = await refused(fake)
    assert "no answer to Connect within" in str(error)
    assert fake.left()
    assert not fake.lives()
    assert not fake.socket.exists()


async def test_a_silent_server_that_was_there_before_is_not_ours(
    fake: FakeShim, impatient: Callable[..., None]
) -> None:
    """`start` told of somebody else's; it is left as it is."""
    impatient("_MEET")
    fake.starts(listen=str(fake.socket))
    await trio.run_process([str(fake.program), "start"], cwd=fake.bundle, capture_stdout=True)
    while _shim_process._age_now() <= _shim_process._began(fake.left()):  # noqa: ASYNC110 (a clock)
        await trio.sleep(0.01)
    fake.does(start={"say": f"unix://{fake.socket}"})
    error = await refused(fake)
    assert "no answer to Connect within" in str(error)
    assert fake.lives()
    assert fake.socket.exists()


@pytest.mark.parametrize("marked", [True, False])
async def test_a_process_that_is_older_than_its_start_is_known_by_its_mark(marked: bool) -> None:
    """A template's spare is; whoever clears the environment is known by its age alone."""
    mark = _shim_process.Mark()
    environ = mark.variable if marked else {"TRIOSHIM_LAUNCHED": "another's"}
    async with trio.open_nursery() as nursery:
        sleeper = await nursery.start(partial(trio.run_process, ["sleep", "60"], env=environ))
        process = _shim_process.ShimProcess(sleeper.pid)
        nursery.start_soon(process.watch)
        assert mark.is_on(process)  # it began after the mark was made
        process.began = -1
        assert mark.is_on(process) is marked
        nursery.cancel_scope.cancel()


async def test_a_note_of_a_socket_that_is_gone_goes_before_delete(fake: FakeShim) -> None:
    """containerd-shim-runc-v1 would stumble over it."""
    fake.starts(note=f"unix://{fake.socket}")
    async with fake.serving(), launched(fake) as shim:
        fake.socket.unlink()
        os.kill(shim.pid, 9)
        await shim.wait_ended()
    assert fake.verbs() == ["start", "delete"]
    assert not (fake.bundle / "address").exists()


@pytest.mark.parametrize("more", [{"hang": True}, {"holds": True}])
async def test_a_start_that_hangs_is_ended_with_what_it_made(
    fake: FakeShim, more: dict[str, Any]
) -> None:
    """It hangs itself, or its server keeps its output open; the address is in the bundle."""
    fake.starts(listen=str(fake.socket), note=f"unix://{fake.socket}", **more)
    error = await refused(fake, timeout=1)
    assert "start did not end in 1 seconds" in str(error)
    assert fake.left()
    assert not fake.lives()
    assert not fake.socket.exists()


async def test_the_kin_of_a_start_that_hangs_end_with_it(fake: FakeShim) -> None:
    """A script's children have its process group, and no socket to be found by."""
    fake.starts(leave="stubborn", hang=True, kin=True)
    await refused(fake, timeout=1)
    assert fake.left()
    assert not fake.lives()


# ---------------------------------------------------------------- cancellation


async def appears(path: Path) -> None:
    while not await trio.Path(path).exists():  # noqa: ASYNC110 (another process makes it)
        await trio.sleep(0.01)


async def test_a_launch_that_is_cancelled_before_it_begins_ends(fake: FakeShim) -> None:
    """Nothing of it waits behind a shield; what has begun nevertheless is undone."""
    async with fake.serving():
        with trio.CancelScope() as scope:
            scope.cancel()
            async with launched(fake):
                raise AssertionError
    assert scope.cancelled_caught
    assert not fake.lives()


async def test_a_cancelled_start_is_waited_for_and_undone(fake: FakeShim) -> None:
    """Killed half-way it would leave a server that nobody knows."""
    with open_gate(fake.bundle / "gate") as gate, trio.CancelScope() as scope:
        fake.starts(listen=str(fake.socket), gate=str(fake.bundle / "gate"))

        async def cancel() -> None:
            await appears(fake.bundle / "calls")
            scope.cancel()
            os.write(gate, b"x")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel)
            async with launched(fake):
                raise AssertionError
    assert scope.cancelled_caught
    assert fake.verbs() == ["start"]
    assert fake.left()
    assert not fake.lives()
    assert not fake.socket.exists()


@contextmanager
def open_gate(path: Path) -> Iterator[int]:
    """A fifo, open at both ends, where the fake shim waits for a byte."""
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


async def cancel_when(scope: trio.CancelScope, path: Path) -> None:
    await appears(path)
    scope.cancel()


async def test_a_hanging_start_does_not_keep_a_cancelled_caller(
    fake: FakeShim, impatient: Callable[..., None]
) -> None:
    """It has a few seconds, not all of its time limit."""
    impatient("_GRACE")
    fake.starts(listen=str(fake.socket), note=f"unix://{fake.socket}", hang=True)
    with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when, scope, fake.bundle / "hangs")
            async with launched(fake, timeout=1000):
                raise AssertionError
    assert scope.cancelled_caught
    assert fake.left()
    assert not fake.lives()
    assert not fake.socket.exists()


async def test_a_cancelled_meeting_leaves_nothing(fake: FakeShim) -> None:
    """The shim runs, and has not said who it is."""
    fake.starts(listen=str(fake.socket))
    with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when, scope, fake.socket)
            async with launched(fake):
                raise AssertionError
    assert scope.cancelled_caught
    assert not fake.lives()
    assert not fake.socket.exists()


@pytest.mark.parametrize("holds", [False, True])
async def test_a_cancelled_block_ends_its_shim(fake: FakeShim, holds: bool) -> None:
    """As one that returns."""
    fake.holds = holds
    async with fake.serving():
        with trio.CancelScope() as scope:
            async with launched(fake):
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
    assert fake.verbs() == ["start", "delete"] if holds else ["start"]
    assert not fake.lives()
