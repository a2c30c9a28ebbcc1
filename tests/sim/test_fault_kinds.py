"""What each kind of fault does to a call: as the contract of the port allows, and no more."""

from __future__ import annotations

import errno
from contextlib import nullcontext
from dataclasses import replace

import pytest
import trio

from tests.sim import requests as ask
from trioshim import abc
from trioshim.errors import DeadlineExceededError, RuntimeFailedError, UnavailableError
from trioshim.linux import LinuxKernel
from trioshim.proto.types_pb2 import Envelope
from trioshim.testing import (
    FakeKernel,
    FakeRuntime,
    FakeStdio,
    Fault,
    FaultKind,
    FaultPlan,
    MemoryPublisher,
    Program,
    open_shim,
)

SPEC = abc.ContainerSpec("c1", "/bundles/c1")
FOREVER = Program(after=None)


def made(plan: FaultPlan, programs: trio.Nursery) -> tuple[FakeKernel, FakeRuntime, abc.Runtime]:
    kernel = FakeKernel()
    runtime = FakeRuntime(kernel, programs, program=lambda *_: FOREVER)
    plan.kernel(kernel)
    return kernel, runtime, plan.runtime(runtime)


@pytest.mark.parametrize(
    ("kind", "error"),
    [(FaultKind.DIES, RuntimeFailedError), (FaultKind.HANGS, DeadlineExceededError)],
)
@pytest.mark.parametrize("verb", ["create", "restore"])
async def test_a_process_whose_birth_fails_late_is_killed(
    verb: str, kind: FaultKind, error: type[Exception], autojump_clock: trio.abc.Clock
) -> None:
    """As `Runtime` promises: what was begun is ended, and the reaper gets it."""
    async with trio.open_nursery() as programs:
        plan = FaultPlan(Fault(f"runtime.{verb}", kind, done=True))
        kernel, inner, runtime = made(plan, programs)
        programs.start_soon(kernel.reap_strangers)
        with pytest.raises(error):
            await getattr(runtime, verb)(SPEC, FakeStdio(SPEC.io, []))
        assert list(inner.containers) == ["c1"]
        await trio.sleep(1)
        assert not kernel.processes
        programs.cancel_scope.cancel()


async def test_a_late_birth_that_is_cancelled_leaves_no_process(
    autojump_clock: trio.abc.Clock,
) -> None:
    """The answer is on its way, and nobody waits for it any more."""
    async with trio.open_nursery() as programs:
        plan = FaultPlan(Fault("runtime.create", FaultKind.SLOW, done=True))
        kernel, _, runtime = made(plan, programs)
        programs.start_soon(kernel.reap_strangers)
        with trio.move_on_after(5):
            await runtime.create(SPEC, FakeStdio(SPEC.io, []))
        await trio.sleep(1)
        assert not kernel.processes
        programs.cancel_scope.cancel()


@pytest.mark.parametrize("done", [False, True])
async def test_what_dies_has_done_its_work_or_has_not(
    done: bool, autojump_clock: trio.abc.Clock
) -> None:
    """The caller is told the same."""
    async with trio.open_nursery() as programs:
        _, inner, runtime = made(
            FaultPlan(Fault("runtime.start", FaultKind.DIES, done=done)), programs
        )
        await runtime.create(SPEC, FakeStdio(SPEC.io, []))
        with pytest.raises(RuntimeFailedError, match="signal: killed") as caught:
            await runtime.start(SPEC)
        assert caught.value.status == 137
        assert inner.containers["c1"].started is done


@pytest.mark.parametrize("done", [False, True])
async def test_init_ends_before_or_after_the_work(
    done: bool, autojump_clock: trio.abc.Clock
) -> None:
    """A start that comes too late is refused by the runtime itself."""
    async with trio.open_nursery() as programs:
        plan = FaultPlan(Fault("runtime.start", FaultKind.ENDS, done=done))
        _, inner, runtime = made(plan, programs)
        init = await runtime.create(SPEC, FakeStdio(SPEC.io, []))
        if done:
            await runtime.start(SPEC)
        else:
            with pytest.raises(RuntimeFailedError, match="cannot start a container that has st"):
                await runtime.start(SPEC)
        assert (await init.wait()).status == 137
        assert inner.containers["c1"].started is done


async def test_a_new_process_gets_the_pid_of_the_last(autojump_clock: trio.abc.Clock) -> None:
    """Without this fault, pids of this kernel come again only after 32766 others."""
    async with trio.open_nursery() as programs:
        plan = FaultPlan(Fault("runtime.create", FaultKind.REUSES, nth=2))
        _, _, runtime = made(plan, programs)
        first = await runtime.create(SPEC, FakeStdio(SPEC.io, []))
        first.signal(9)
        await first.wait()
        second, third = [
            await runtime.create(replace(SPEC, id=id_), FakeStdio(SPEC.io, []))
            for id_ in ("c2", "c3")
        ]
        assert second.pid == first.pid != third.pid


@pytest.mark.parametrize(
    ("fault", "seconds", "error"),
    [
        (Fault("runtime.create", FaultKind.HANGS), 120, DeadlineExceededError),
        (Fault("runtime.create", FaultKind.SLOW), 108, None),
        (Fault("runtime.create", FaultKind.SLOW, seconds=7), 7, None),
        (Fault("runtime.create", FaultKind.SLOW, done=True), 108, None),
    ],
    ids=str,
)
async def test_a_fault_takes_its_time(
    fault: Fault, seconds: float, error: type[Exception] | None, autojump_clock: trio.abc.Clock
) -> None:
    """Virtual seconds: nearly the limit of the real call, or all of it and an error."""
    async with trio.open_nursery() as programs:
        _, _, runtime = made(FaultPlan(fault), programs)
        with pytest.raises(error, match=fault.text) if error else nullcontext():
            await runtime.create(SPEC, FakeStdio(SPEC.io, []))
        assert trio.current_time() == pytest.approx(seconds)


async def test_the_daemon_is_away_for_ten_minutes(autojump_clock: trio.abc.Clock) -> None:
    """From the planned call on, for every event."""
    memory = MemoryPublisher()
    plan = FaultPlan(Fault("publisher.publish", FaultKind.AWAY, nth=2))
    publisher = plan.publisher(memory)
    await publisher.publish(Envelope(topic="/a"))
    for _ in range(2):
        with pytest.raises(UnavailableError, match="the daemon is away"):
            await publisher.publish(Envelope(topic="/b"))
        await trio.sleep(299)
    await trio.sleep(2)
    await publisher.publish(Envelope(topic="/b"))
    assert [envelope.topic for envelope in memory.envelopes] == ["/a", "/b"]


async def test_only_a_cancellation_ends_a_publish_that_hangs(
    autojump_clock: trio.abc.Clock,
) -> None:
    """It has no limit of its own."""
    publisher = FaultPlan(Fault("publisher.publish", FaultKind.HANGS)).publisher(MemoryPublisher())
    with trio.move_on_after(1e6) as patience:
        await publisher.publish(Envelope())
    assert patience.cancelled_caught


async def test_the_runtime_is_given_the_streams_without_faults(
    autojump_clock: trio.abc.Clock,
) -> None:
    """It may know their class: a fake runtime sends its terminal to a fake's streams only."""
    async with open_shim(faults=FaultPlan()) as world, world.client() as shim:
        await shim.create(ask.create("c1", terminal=True))
        assert [stdio.console_sent for stdio in world.kernel.stdios] == [True]
        assert trio.current_time() == 0


async def test_the_real_kernel_can_have_faults_too() -> None:
    """A plan needs the port and nothing else: the second program cannot be started."""
    plan = FaultPlan(Fault("kernel.spawn", FaultKind.FAILS, nth=2, errno=errno.ENOMEM))
    kernel = plan.kernel(LinuxKernel())
    with trio.fail_after(30):
        child = kernel.spawn(["sleep", "600"])
        kernel.kill_group(child)
        assert (await child.wait()).status == 137
    with pytest.raises(OSError, match="Cannot allocate memory"):
        kernel.spawn(["true"])
    assert [call.about for call in plan.calls] == ["sleep", "true"]
