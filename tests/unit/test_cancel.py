"""cancel_everywhere and its ledger, on programs of a few lines."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio

from trioshim.testing import Blow, LeakError, Ledger, cancel_everywhere, check_trio


async def three_steps() -> None:
    for _ in range(3):
        await trio.lowlevel.checkpoint()


def test_every_step_of_the_scenario_is_cancelled_once() -> None:
    """Without an argument it is cancelled from outside, as a whole."""
    reached = []

    async def scenario() -> None:
        for step in range(3):
            await trio.lowlevel.checkpoint()
            reached.append(step)

    done = cancel_everywhere(scenario)
    assert (done.steps, done.fallen) == (3, 3)
    assert reached == [0, 1, 2, *[], *[0], *[0, 1]]


def test_steps_of_all_tasks_count() -> None:
    """Also those of siblings: the blow falls between any two."""

    async def scenario(blow: Blow) -> None:
        async with trio.open_nursery() as nursery:
            with blow.may_fall(nursery.cancel_scope.cancel):
                nursery.start_soon(three_steps)
                nursery.start_soon(three_steps)
                await three_steps()

    assert cancel_everywhere(scenario).steps > 3 + 3


def test_a_cancellation_that_does_harm_is_named() -> None:
    """A scenario that works, and loses something if it is cancelled at one of its steps."""
    money = {"a": 1, "b": 0}

    async def transfer() -> None:
        money["a"] -= 1
        await trio.lowlevel.checkpoint()
        money["b"] += 1

    async def scenario(blow: Blow) -> None:
        money.update(a=1, b=0)
        await three_steps()
        with trio.CancelScope() as scope, blow.may_fall(scope.cancel):
            await transfer()
        assert sum(money.values()) == 1

    with pytest.raises(AssertionError) as caught:
        cancel_everywhere(scenario, seed=5)
    assert caught.value.__notes__ == ["the blow fell at step 1 of 1, seed 5"]


def test_a_blow_may_be_anything() -> None:
    """An error of a sibling, for example."""

    async def fail() -> None:
        raise OSError("a sibling")

    async def scenario(blow: Blow) -> None:
        with pytest.raises(ExceptionGroup) if blow._at else trio.CancelScope():
            async with trio.open_nursery() as nursery:
                with blow.may_fall(lambda: nursery.start_soon(fail)):
                    await three_steps()

    assert cancel_everywhere(scenario).fallen == 3


def test_where_all_would_take_too_long_some_are_probed() -> None:
    """Steps 1 and 3 of 3."""
    assert cancel_everywhere(three_steps, every=2).fallen == 2


async def leave_a_channel() -> None:
    send, receive = trio.open_memory_channel[int](1)
    await send.send(1)
    receive.close()


async def leave_a_clone() -> None:
    send, receive = trio.open_memory_channel[int](1)
    with send, receive:
        send.clone()


async def leave_a_pipe() -> None:
    os.pipe()


async def leave_a_task() -> None:
    trio.lowlevel.spawn_system_task(trio.sleep_forever, name="the forgotten one")


LEAKS: list[tuple[Callable[[], Awaitable[None]], str]] = [
    (leave_a_channel, "memory channels left open: one with 1 sending and 0 receiving ends"),
    (leave_a_clone, "one with 1 sending and 0 receiving ends and 0 values inside"),
    (leave_a_pipe, r"file descriptors left open: \d+ \(pipe:\[\d+\]\), \d+ \(pipe:"),
    (leave_a_task, "system tasks left open: the forgotten one"),
]


@pytest.fixture
def no_fd_is_left() -> object:
    """Closes what a test has left on purpose."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    for fd in set(os.listdir("/proc/self/fd")) - before:
        os.close(int(fd))


@pytest.mark.parametrize(
    ("scenario", "told"), LEAKS, ids=lambda value: getattr(value, "__name__", "")
)
@pytest.mark.usefixtures("no_fd_is_left")
def test_what_a_run_leaves_is_told(scenario: Callable[[], Awaitable[None]], told: str) -> None:
    """Each kind, in words that say what it is."""
    with pytest.raises(LeakError, match=told), Ledger() as ledger:
        trio.run(ledger.watch, scenario)


def test_a_leak_in_one_cancelled_run_is_found() -> None:
    """It closes what it opens, except when it is cancelled between."""

    async def scenario() -> None:
        send, receive = trio.open_memory_channel[int](1)
        await trio.lowlevel.checkpoint()
        send.close()
        receive.close()

    with pytest.raises(LeakError, match="1 sending and 1 receiving") as caught:
        cancel_everywhere(scenario)
    assert caught.value.__notes__ == ["the blow fell at step 1 of 1, seed 0"]


def test_a_clean_run_leaves_a_clean_ledger() -> None:
    """Closed channels, clones, pipes and tasks are nobody's business."""

    async def scenario() -> None:
        send, receive = trio.open_memory_channel[int](1)
        with send, send.clone(), receive:
            await three_steps()

    with Ledger() as ledger:
        trio.run(ledger.watch, scenario)


def test_an_error_of_the_scenario_comes_before_the_ledgers() -> None:
    """Who fails may leave something; the failure is what counts."""

    async def scenario() -> None:
        await leave_a_channel()
        raise OSError("first")

    with pytest.raises(OSError, match="first"), Ledger() as ledger:
        trio.run(ledger.watch, scenario)


def test_what_cannot_be_probed_is_said() -> None:
    """No step, a wrong distance, too many arguments."""

    async def never(blow: Blow) -> None:
        blow.rest()

    async def two(blow: Blow, seed: int) -> None:
        raise AssertionError

    with pytest.raises(ValueError, match="there is no step to probe"):
        cancel_everywhere(never)
    with pytest.raises(ValueError, match="every must be 1 or more, not 0"):
        cancel_everywhere(three_steps, every=0)
    with pytest.raises(TypeError, match=r"or the blow; .* takes blow, seed: bind them"):
        cancel_everywhere(two)  # type: ignore[arg-type]  # that is the point
    assert cancel_everywhere(partial(two_bound, seed=1)).fallen == 1


async def two_bound(blow: Blow, seed: int) -> None:
    with trio.CancelScope() as scope, blow.may_fall(scope.cancel):
        await trio.lowlevel.checkpoint()
    assert seed == 1


def test_another_trio_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The private name that the ledger needs is looked for."""
    check_trio()
    monkeypatch.delattr(trio.MemorySendChannel, "__attrs_post_init__")
    with pytest.raises(RuntimeError, match="which memory channels are left open"):
        check_trio()
