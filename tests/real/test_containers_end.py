"""How a block of `open_container` ends: whatever happens, in time, and with nothing left."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import trio

from trioshim.containers import (
    PIPE,
    Container,
    ContainerProcess,
    _ending,
    open_container,
    run_container,
)
from trioshim.containers._ending import GRACE
from trioshim.errors import UnavailableError

from . import container_world
from .container_world import (
    KILLED,
    SHIMS,
    SLEEP,
    Place,
    need,
    said_until,
    shim_pid,
)
from .shim_parts import until

place = container_world.place

LOOP = "echo ready; while :; do sleep 0.1; done"
IGNORES = f"trap '' TERM; {LOOP}"  # in SigIgn: nothing comes to it
DOES_NOTHING = f"trap : TERM; {LOOP}"  # in SigCgt: it comes, in vain
OBEYS = f"trap 'exit 7' TERM; {LOOP}"


async def leave(place: Place, script: str, **more: Any) -> tuple[int | None, float]:
    """Cancel a container that runs this: its status, and how long that took."""
    with trio.CancelScope() as scope:
        async with open_container(["sh", "-c", script], stdout=PIPE, **place.box | more) as box:
            await said_until(box.stdout, b"ready\n")
            scope.cancel()
            began = trio.current_time()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert place.traces() == []
    return box.returncode, trio.current_time() - began


# ---------------------------------------------------------------- cancelled


async def test_who_obeys_ends_by_himself(place: Place) -> None:
    """SIGTERM is enough, and its status is its own."""
    status, took = await leave(place, OBEYS)
    assert status == 7
    assert took < GRACE


@pytest.mark.parametrize("shim", SHIMS)
async def test_who_cannot_hear_is_killed_at_once(place: Place, shim: str) -> None:
    """Linux would drop the SIGTERM: nobody waits for what cannot be."""
    need(shim)
    for script in (IGNORES, LOOP):
        status, took = await leave(place, script, shim=shim)
        assert status == KILLED
        assert took < GRACE


async def test_who_does_not_obey_is_killed_in_time(place: Place) -> None:
    """5 seconds for it, and one for us."""
    status, took = await leave(place, DOES_NOTHING)
    assert status == KILLED
    assert GRACE <= took < GRACE + 1


async def test_a_deadline_ends_it(place: Place) -> None:
    """What the issue began with."""
    with trio.move_on_after(1) as scope:
        await run_container(SLEEP, **place.box)
    assert scope.cancelled_caught
    assert trio.current_time() - scope.deadline < 3


async def test_an_exec_that_does_not_obey(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its time too, and only it is killed."""
    monkeypatch.setattr(_ending, "GRACE", 1.0)
    async with open_container(SLEEP, **place.box) as container:
        with trio.CancelScope() as scope:
            async with container.exec(["sh", "-c", DOES_NOTHING], stdout=PIPE) as process:
                await said_until(process.stdout, b"ready\n")
                scope.cancel()
                began = trio.current_time()
                await trio.sleep_forever()
        assert process.returncode == KILLED
        assert 1 <= trio.current_time() - began < GRACE
        # What a shell leaves behind is init's, as in every container.
        assert container.returncode is None


async def test_ones_own_way_to_end_it(place: Place) -> None:
    """`deliver_cancel` says what is done; it may take its time."""

    async def deliver(process: ContainerProcess) -> None:
        assert isinstance(process, Container)
        async with process.exec(["kill", "-USR1", "1"]) as messenger:
            await messenger.wait()

    status, took = await leave(place, f"trap 'exit 9' USR1; {LOOP}", deliver_cancel=deliver)
    assert status == 9
    assert took < GRACE


async def test_ones_own_way_that_fails(place: Place) -> None:
    """The container is killed at once, and the error comes out as it is."""

    async def deliver(process: ContainerProcess) -> None:
        raise ZeroDivisionError

    async with open_container(SLEEP, **place.box) as container:
        with pytest.raises(ZeroDivisionError):
            async with container.exec(SLEEP, deliver_cancel=deliver) as process:
                pass
        assert process.returncode == KILLED
    with pytest.raises(ZeroDivisionError):
        async with open_container(SLEEP, deliver_cancel=deliver, **place.box) as container:
            pass
    assert container.returncode == KILLED
    assert place.traces() == []


async def test_cancelled_at_any_moment(place: Place) -> None:
    """From the first on, while all is made and started."""
    for part in range(10):
        with trio.move_on_after(part * 0.08):
            async with open_container(SLEEP, **place.box):
                await trio.sleep_forever()
        assert place.traces() == [], f"cancelled after {part * 0.08} s"


# ---------------------------------------------------------------- left


async def test_left_while_it_runs(place: Place) -> None:
    """By the end of the block, and by return."""

    async def run() -> Container:
        async with open_container(SLEEP, **place.box) as container:
            return container

    container = await run()
    assert container.returncode == KILLED
    assert await container.wait() == KILLED
    assert place.traces() == []


async def test_an_error_comes_out_as_it_is(place: Place) -> None:
    """Not in a group; of the container's block and of an exec's."""
    with pytest.raises(KeyError, match="mine"):
        async with open_container(SLEEP, **place.box):
            raise KeyError("mine")
    with pytest.raises(KeyError, match="mine"):
        async with open_container(SLEEP, **place.box) as container, container.exec(SLEEP):
            raise KeyError("mine")
    assert place.traces() == []


@pytest.mark.parametrize("everybody", [False, True])
@pytest.mark.parametrize("run", ["run_container({}, **box)", "hold({})"])
async def test_ctrl_c(place: Place, run: str, everybody: bool) -> None:
    """KeyboardInterrupt comes out, and the container has ended; so if a terminal tells them all."""
    command = ["sh", "-c", f"echo ready; {LOOP}"]
    script = place.script(
        f"""
        async def hold(argv):
            async with open_container(argv, **box):
                await trio.sleep_forever()
        try:
            await {run.format(command)}
        except KeyboardInterrupt:
            sys.exit(5)
        """,
        start_new_session=True,
    )
    assert script.stdout is not None
    assert await trio.to_thread.run_sync(script.stdout.read, 6) == b"ready\n"
    (os.killpg if everybody else os.kill)(script.pid, signal.SIGINT)
    _, err = await trio.to_thread.run_sync(script.communicate)
    assert (script.returncode, err) == (5, b"")
    assert place.traces() == []


async def test_an_error_of_a_cancelled_block_comes_out(place: Place) -> None:
    """It is not lost in the cancellation."""
    with pytest.raises(KeyError, match="mine"), trio.CancelScope() as scope:
        async with open_container(SLEEP, **place.box):
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("mine")


# ---------------------------------------------------------------- its shim is gone


async def test_its_shim_is_killed(place: Place) -> None:
    """Nobody knows how it ended: that is told, and nothing is left."""
    with pytest.raises(UnavailableError):
        async with open_container(SLEEP, **place.box) as container:
            os.kill(await shim_pid(container), signal.SIGKILL)
            await container.wait()
    assert container.returncode is None
    assert place.traces() == []


async def test_its_shim_is_killed_under_run_container(place: Place) -> None:
    """The same error, not in a group, whatever was being read and written."""

    async def kill() -> None:
        path = place.base / "st" / place.base.name / "box" / "shim.pid"
        await until(path.exists, "the shim")
        await until(lambda: "sleep 1000" in str(place.traces()), "the container")
        os.kill(int(path.read_text()), signal.SIGKILL)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill)
        with pytest.raises(UnavailableError):
            await run_container(
                SLEEP, id="box", stdin=bytes(1 << 20), capture_stdout=True, **place.box
            )


async def test_its_shim_is_stopped(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers nobody, and is ended with its container; not soon, but surely."""
    monkeypatch.setattr(_ending, "GRACE", 1.0)
    async with open_container(SLEEP, **place.box) as container:
        os.kill(await shim_pid(container), signal.SIGSTOP)
    assert place.traces() == []


# ---------------------------------------------------------------- patterns


async def test_a_pool_under_one_scope(place: Place) -> None:
    """Cancelled, they end at the same time, not one after the other."""
    started: list[Container] = []
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def work() -> None:
                async with open_container(
                    ["sh", "-c", DOES_NOTHING], stdout=PIPE, **place.box
                ) as container:
                    await said_until(container.stdout, b"ready\n")
                    started.append(container)
                    if len(started) == 4:
                        scope.cancel()
                        scope.deadline = trio.current_time()
                    await trio.sleep_forever()

            for _ in range(4):
                nursery.start_soon(work)
    assert trio.current_time() - scope.deadline < 2 * GRACE
    assert [container.returncode for container in started] == [KILLED] * 4


async def test_a_race(place: Place) -> None:
    """The first to end is the winner, and ends the other."""
    results = []
    async with trio.open_nursery() as nursery:

        async def run(seconds: str) -> None:
            await run_container(["sleep", seconds], **place.box)
            results.append(seconds)
            nursery.cancel_scope.cancel()

        nursery.start_soon(run, "0.1")
        nursery.start_soon(run, "1000")
    assert results == ["0.1"]
    assert place.traces() == []


async def test_started_in_a_nursery(place: Place) -> None:
    """`nursery.start` hands the container over, and the nursery ends it."""

    async def serve(task_status: trio.TaskStatus[Container]) -> None:
        async with open_container(SLEEP, **place.box) as container:
            task_status.started(container)
            await container.wait()

    async with trio.open_nursery() as nursery:
        container = await nursery.start(serve)
        async with container.exec(["sh", "-c", "exit 3"]) as process:
            assert await process.wait() == 3
        nursery.cancel_scope.cancel()
    assert container.returncode == KILLED


async def test_an_error_beside_it_ends_it(place: Place) -> None:
    """As any task."""
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                async with open_container(SLEEP, **place.box) as container:
                    nursery.start_soon(fail)
                    await container.wait()

            async def fail() -> None:
                raise KeyError

            nursery.start_soon(run)
    assert [type(error) for error in caught.value.exceptions] == [KeyError]
    assert place.traces() == []
