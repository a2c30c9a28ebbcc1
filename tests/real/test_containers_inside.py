"""What can be done to a container that runs, with a real shim and runc."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator

import pytest
import trio

from trioshim.client import open_event_sink
from trioshim.containers import (
    PIPE,
    Container,
    open_container,
)
from trioshim.errors import FailedPreconditionError, ShimError

from . import container_world
from .container_world import (
    KILLED,
    SHIMS,
    SLEEP,
    Place,
    need,
    said_by,
    topics,
    until_true,
)

place = container_world.place

RUNNING = "while :; do sleep 0.1; done"


@pytest.fixture
async def container(place: Place) -> AsyncIterator[Container]:
    """One that runs until it is killed."""
    async with open_container(SLEEP, id="box", **place.box) as container:
        yield container


# ---------------------------------------------------------------- execs


async def test_execs(container: Container) -> None:
    """Each has its own status and streams, and what it is given."""
    async with container.exec(
        ["sh", "-c", "cat; echo $A >&2; pwd; id -u; exit 3"],
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env={"A": "b"},
        cwd="/tmp",
        user="9",
    ) as process:
        assert process.pid in await container.pids()
        assert process.stdin is not None
        await process.stdin.send_all(b"said\n")
        await process.stdin.aclose()
        assert await said_by(process.stdout) == b"said\n/tmp\n9\n"
        assert await said_by(process.stderr) == b"b\n"
        assert await process.wait() == 3
    assert container.returncode is None


async def test_leaving_the_block_ends_the_exec(container: Container) -> None:
    """By SIGTERM, which a program that is not init need not catch."""
    async with container.exec(SLEEP) as process:
        pass
    assert process.returncode == 128 + signal.SIGTERM
    assert await container.pids() == [container.pid]


async def test_an_exec_that_is_cancelled_while_it_starts(container: Container) -> None:
    """At whatever moment: nothing of it goes on in the container."""
    for part in range(12):
        with trio.move_on_after(part * 0.02):
            async with container.exec(SLEEP):
                await trio.sleep_forever()
        assert await container.pids() == [container.pid]


async def test_execs_at_once(container: Container) -> None:
    """Twenty of them, each with its own status."""
    told: dict[int, int] = {}

    async def run(status: int) -> None:
        async with container.exec(["sh", "-c", f"exit {status}"]) as process:
            told[status] = await process.wait()

    async with trio.open_nursery() as nursery:
        for status in range(20):
            nursery.start_soon(run, status)
    assert told == {status: status for status in range(20)}


async def test_an_exec_with_a_terminal(container: Container) -> None:
    """It has its own."""
    async with container.exec(
        ["sh", "-c", "tty; stty size"], stdout=PIPE, terminal=True
    ) as process:
        said = await said_by(process.stdout)
    assert said.startswith(b"/dev/pts/")


async def test_an_exec_that_cannot_be_started(container: Container) -> None:
    """The runtime says why; the container goes on."""
    with pytest.raises(ShimError, match="no such file"):
        async with container.exec(["/no/such/program"]):
            pytest.fail("it has no block")
    assert container.returncode is None


async def test_an_exec_after_the_end(place: Place) -> None:
    """Of the container's init, and of its block."""
    async with open_container(["true"], id="box", **place.box) as container:
        await container.wait()
        with pytest.raises(FailedPreconditionError, match="container box has ended with 0"):
            async with container.exec(["true"]):
                pytest.fail("it has no block")
    with pytest.raises(FailedPreconditionError, match="container box has ended with 0"):
        async with container.exec(["true"]):
            pytest.fail("it has no block")


async def test_the_end_of_the_container_ends_its_execs(place: Place) -> None:
    """They are killed, and their statuses say so."""
    async with (
        open_container(SLEEP, **place.box) as container,
        container.exec(SLEEP) as process,
    ):
        await container.kill()
        assert await process.wait() == KILLED
        assert await container.wait() == KILLED


# ---------------------------------------------------------------- the rest


async def test_stats_and_pids(place: Place) -> None:
    """What its processes use, and who they are."""
    script = "sleep 1000 & sleep 1000 & wait"
    async with open_container(["sh", "-c", script], memory="64m", pids=17, **place.box) as box:
        await until_true(lambda: has_three(box))
        pids = await box.pids()
        stats = await box.stats()
    assert box.pid in pids
    assert stats.processes == 3
    assert (stats.memory_limit, stats.processes_limit) == (64 << 20, 17)
    assert 0 < stats.memory < 64 << 20
    assert stats.cpu_seconds > 0


async def has_three(container: Container) -> bool:
    return len(await container.pids()) == 3


async def test_what_the_shim_tells_is_heard(container: Container) -> None:
    """From now on."""
    async with container.events() as events:
        async with container.paused():
            while (await events.receive()).topic != "/tasks/paused":
                pass  # what was under way
        assert (await events.receive()).topic == "/tasks/resumed"
        await container.kill()
        event = await events.receive()
        assert (event.topic, event.message.exit_status) == ("/tasks/exit", KILLED)  # type: ignore[attr-defined]  # a TaskExit


async def test_paused(place: Place) -> None:
    """It stands still while the block runs, also if that is cancelled, from the start or later."""
    counting = ["sh", "-c", "while echo x; do sleep 0.01; done"]
    async with open_container(counting, stdout=PIPE, **place.box) as container:
        assert container.stdout is not None
        for seconds in (None, 0, 0.01, 0.3):
            with trio.move_on_after(seconds if seconds is not None else 1000) as scope:
                async with container.paused():
                    await said_for(container.stdout, 0.1)  # what was under way
                    with trio.move_on_after(0.2):
                        pytest.fail(f"it goes on: {await container.stdout.receive_some()!r}")
            assert scope.cancelled_caught == (seconds is not None)
            await container.stdout.receive_some()


async def said_for(stream: trio.abc.ReceiveStream, seconds: float) -> None:
    with trio.move_on_after(seconds):
        while await stream.receive_some():
            pass


async def test_killed_while_it_is_paused(container: Container) -> None:
    """That is no failure of the block, and it ends."""
    async with container.paused():
        await container.kill()
    assert await container.wait() == KILLED


async def test_left_while_it_is_paused(place: Place) -> None:
    """It is ended all the same."""
    with pytest.raises(KeyError):
        async with open_container(SLEEP, **place.box) as container, container.paused():
            raise KeyError
    assert container.returncode == KILLED


async def test_a_checkpoint(
    place: Place, criu: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory holds an image of the processes; they go on, or end with it."""
    monkeypatch.setenv("PATH", f"{criu['CRIU_PATH']}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", criu["CRIU_HOME"])
    async with open_container(["sh", "-c", RUNNING], **place.box) as container:
        await container.checkpoint(str(place.base / "one"))
        assert container.returncode is None
        await container.checkpoint(str(place.base / "two"), leave_running=False)
        await container.wait()
    for name in ("one", "two"):
        assert (place.base / name / "inventory.img").exists()


async def test_a_checkpoint_that_fails_says_why(container: Container) -> None:
    """And the container goes on."""
    with pytest.raises(ShimError, match=r"/proc/none|criu"):
        await container.checkpoint("/proc/none")
    assert container.returncode is None


@pytest.mark.parametrize("shim", SHIMS)
async def test_the_same_program_drives_every_shim(place: Place, shim: str) -> None:
    """They tell the same, in this order."""
    need(shim)
    async with open_event_sink() as sink, sink.subscribe() as events:
        async with open_container(
            ["sh", "-c", "read line; echo $line; exit 4"],
            id="box",
            stdin=PIPE,
            stdout=PIPE,
            shim=shim,
            events=sink,
            **place.box,
        ) as container:
            async with container.exec(["sh", "-c", "exit 6"]) as process:
                assert await process.wait() == 6
            assert container.stdin is not None
            await container.stdin.send_all(b"hello\n")
            assert await said_by(container.stdout) == b"hello\n"
            assert await container.wait() == 4
        told = await topics(sink, events)
    inits = [topic for topic in told if not topic.startswith("exec")]
    inits.remove("exit")  # the exec's
    assert inits == ["create", "start", "exit", "delete"]
