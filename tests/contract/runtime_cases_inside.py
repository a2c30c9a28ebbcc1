"""What every `Runtime` promises of a container that is there: execs, pause, cancellation, cgroup.

Cases of the same kind as in `runtime_cases`, for the same worlds.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
import trio

from trioshim.abc import ContainerSpec
from trioshim.errors import FailedPreconditionError, RuntimeFailedError

from .kernel_cases import until
from .runtime_cases import KILLED, RUNS_ALREADY, SHARED, Does, World, create, exec_, kill, run

# ---------------------------------------------------------------- exec


async def check_exec_statuses(world: World) -> None:
    """An exec is ours to wait for, and its end is not init's."""
    spec, init = await run(world, Does.SLEEPS)
    assert (await (await exec_(world, spec, Does.ENDS_WITH_7)).wait()).status == 7
    child = await exec_(world, spec, Does.SLEEPS)
    child.signal(signal.SIGTERM)
    assert (await child.wait()).status == 128 + signal.SIGTERM
    assert world.alive(init.pid)


async def check_exec_before_start(world: World) -> None:
    """A created container can run execs."""
    spec, init = await create(world, Does.SLEEPS)
    child = await exec_(world, spec, Does.ENDS_WITH_7)
    assert (await child.wait()).status == 7
    assert world.alive(init.pid)


async def check_exec_of_a_missing_program_fails(world: World) -> None:
    """And leaves nothing."""
    spec, _ = await run(world, Does.SLEEPS)
    with pytest.raises(RuntimeFailedError, match=r"^OCI runtime exec failed: .*not found"):
        await exec_(world, spec, Does.IS_MISSING)
    assert world.count(spec) == 1


async def check_exec_in_a_stopped_container_fails(world: World) -> None:
    """In the runtime's words."""
    spec, init = await run(world, Does.ENDS_WITH_0)
    await init.wait()
    with pytest.raises(RuntimeFailedError, match=r"^OCI runtime exec failed: .*stopped"):
        await exec_(world, spec, Does.ENDS_WITH_0)


async def check_init_takes_its_namespace_with_it(world: World) -> None:
    """Its end kills the execs, and it is not over before their exits were collected."""
    spec, init = await run(world, Does.SLEEPS)
    child = await exec_(world, spec, Does.SLEEPS)
    await kill(world, spec, init)
    await until(lambda: not world.alive(child.pid))
    assert world.alive(init.pid)
    assert (await child.wait()).status == KILLED
    assert (await init.wait()).status == KILLED


async def check_a_shared_namespace_keeps_the_execs(world: World) -> None:
    """Until they are killed by name; killing them again is no failure."""
    spec, init = await run(world, Does.SLEEPS, shared=SHARED)
    child = await exec_(world, spec, Does.SLEEPS)
    await kill(world, spec, init)
    assert (await init.wait()).status == KILLED
    assert world.alive(child.pid)
    await world.runtime.kill_remaining(spec)
    assert (await child.wait()).status == KILLED
    await world.runtime.kill_remaining(spec)


async def check_delete_ends_what_outlived_init(world: World) -> None:
    """In a shared pid namespace an exec may be left when init is gone."""
    spec, init = await run(world, Does.SLEEPS, shared=SHARED)
    child = await exec_(world, spec, Does.SLEEPS)
    await kill(world, spec, init)
    await init.wait()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child.wait)
        await world.runtime.delete(spec)
    assert (await child.wait()).status == KILLED


# ---------------------------------------------------------------- pause

NOT_PAUSED = r"^OCI runtime resume failed: .*not paused"


async def check_a_paused_container(world: World) -> None:
    """It runs no exec and is not paused twice; resumed it does, and is not resumed twice."""
    spec, _ = await run(world, Does.SLEEPS)
    await world.runtime.pause(spec)
    with pytest.raises(RuntimeFailedError, match=r"^OCI runtime exec failed: .*paused"):
        await exec_(world, spec, Does.ENDS_WITH_0)
    with pytest.raises(RuntimeFailedError, match=r"^OCI runtime pause failed: .*not running"):
        await world.runtime.pause(spec)
    await world.runtime.resume(spec)
    assert (await (await exec_(world, spec, Does.ENDS_WITH_7)).wait()).status == 7
    with pytest.raises(FailedPreconditionError, match=NOT_PAUSED):
        await world.runtime.resume(spec)


async def check_pausing_before_start(world: World) -> None:
    """A created container can be paused, and is not started as long as it is."""
    spec, init = await create(world, Does.ENDS_WITH_7)
    await world.runtime.pause(spec)
    with pytest.raises(RuntimeFailedError, match=r"^OCI runtime start failed: .*paused"):
        await world.runtime.start(spec)
    await world.runtime.resume(spec)
    await world.runtime.start(spec)
    assert (await init.wait()).status == 7


async def check_pausing_what_has_ended_fails(world: World) -> None:
    """So do resuming and updating it."""
    spec, init = await run(world, Does.ENDS_WITH_0)
    await init.wait()
    with pytest.raises(RuntimeFailedError, match=r"^OCI runtime pause failed: .*not running"):
        await world.runtime.pause(spec)
    with pytest.raises(FailedPreconditionError, match=NOT_PAUSED):
        await world.runtime.resume(spec)
    with pytest.raises(RuntimeFailedError, match="not running"):
        await world.runtime.update(spec, b"{}")


async def check_a_signal_waits_for_the_thaw(world: World) -> None:
    """A paused program handles nothing; resumed it does."""
    spec, init = await run(world, Does.ENDS_WITH_42_ON_TERM)
    await world.ready(spec)
    await world.runtime.pause(spec)
    await kill(world, spec, init, signal.SIGTERM)
    assert world.alive(init.pid)
    await world.runtime.resume(spec)
    assert (await init.wait()).status == 42


async def check_a_paused_container_can_be_killed(world: World) -> None:
    """SIGKILL does not wait for the thaw, and afterwards nothing is paused any more."""
    spec, init = await run(world, Does.SLEEPS)
    await world.runtime.pause(spec)
    await kill(world, spec, init)
    assert (await init.wait()).status == KILLED
    with pytest.raises(FailedPreconditionError, match=NOT_PAUSED):
        await world.runtime.resume(spec)
    await world.runtime.delete(spec)


# ---------------------------------------------------------------- cancellation


async def check_a_create_that_is_cancelled_leaves_no_process(world: World) -> None:
    """Nothing of it runs when the call returns, and `delete` with force does the rest."""
    spec = world.spec(Does.SLEEPS)
    await world.runtime.prepare(spec)
    async with world.hung("create"), trio.open_nursery() as nursery:
        nursery.start_soon(world.runtime.create, spec, world.stdio)
        await world.hangs()
        assert world.count(spec) == 1
        nursery.cancel_scope.cancel()
    await until(lambda: world.count(spec) == 0)
    await world.runtime.delete(spec, force=True)
    with pytest.raises(RuntimeFailedError, match="does not exist"):
        await world.runtime.start(spec)


async def check_an_exec_that_is_cancelled_leaves_no_process(world: World) -> None:
    """Init is not harmed, and execs can be run again."""
    spec, init = await run(world, Does.SLEEPS)
    async with world.hung("exec"), trio.open_nursery() as nursery:
        nursery.start_soon(world.runtime.exec, spec, world.exec_spec(Does.SLEEPS), world.stdio)
        await world.hangs()
        assert world.count(spec) == 2
        nursery.cancel_scope.cancel()
    await until(lambda: world.count(spec) == 1)
    assert world.alive(init.pid)
    assert (await (await exec_(world, spec, Does.ENDS_WITH_7)).wait()).status == 7


async def check_a_start_whose_answer_is_lost(world: World) -> None:
    """The container runs; asked again, the runtime says so."""
    spec, init = await create(world, Does.SLEEPS)
    await lose_the_answer(world, "start", spec)
    await world.ready(spec)
    with pytest.raises(FailedPreconditionError, match=RUNS_ALREADY):
        await world.runtime.start(spec)
    assert world.alive(init.pid)


async def check_a_start_whose_answer_is_lost_and_an_end(world: World) -> None:
    """Asked again when it has ended, the runtime does not say that it has run."""
    spec, init = await create(world, Does.ENDS_WITH_7)
    await lose_the_answer(world, "start", spec)
    await until(lambda: not world.alive(init.pid))
    with pytest.raises(RuntimeFailedError, match=r"^OCI runtime start failed: .*has stopped"):
        await world.runtime.start(spec)
    assert (await init.wait()).status == 7


async def check_a_pause_and_a_resume_whose_answers_are_lost(world: World) -> None:
    """A resume undoes the pause; asked for once more, it is told apart from other failures."""
    spec, _ = await run(world, Does.SLEEPS)
    await lose_the_answer(world, "pause", spec)
    with pytest.raises(RuntimeFailedError, match="paused"):
        await exec_(world, spec, Does.ENDS_WITH_7)
    await lose_the_answer(world, "resume", spec)
    with pytest.raises(FailedPreconditionError, match=NOT_PAUSED):
        await world.runtime.resume(spec)
    assert (await (await exec_(world, spec, Does.ENDS_WITH_7)).wait()).status == 7


async def lose_the_answer(world: World, verb: str, spec: ContainerSpec) -> None:
    """The runtime does its work, but its command does not come back and is cancelled."""
    async with world.hung(verb), trio.open_nursery() as nursery:
        nursery.start_soon(getattr(world.runtime, verb), spec)
        await world.hangs()
        nursery.cancel_scope.cancel()


# ---------------------------------------------------------------- the cgroup


async def check_the_cgroup_tells_the_processes(world: World) -> None:
    """Init from the beginning, an exec as long as it lives, nobody at the end."""
    spec, init = await create(world, Does.SLEEPS)
    cgroup = world.kernel.cgroup(init.pid)
    try:
        assert cgroup.pids() == [init.pid]
        await world.runtime.start(spec)
        child = await exec_(world, spec, Does.SLEEPS)
        assert cgroup.pids() == sorted([init.pid, child.pid])
        child.signal(signal.SIGKILL)
        await child.wait()
        assert cgroup.pids() == [init.pid]
        await kill(world, spec, init)
        await init.wait()
        assert cgroup.pids() == []
        await world.runtime.delete(spec)
        assert cgroup.pids() == []
    finally:
        cgroup.close()


async def check_the_cgroup_counts_kills_for_memory(world: World) -> None:
    """The watcher is woken, the kill is counted by init's exit and still known at the end."""
    spec, init = await create(world, Does.EATS_MEMORY)
    cgroup = world.kernel.cgroup(init.pid)
    try:
        assert cgroup.oom_kills() == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cgroup.oom_changed)
            await world.runtime.start(spec)
            assert (await init.wait()).status == KILLED
            assert cgroup.oom_kills() == 1
        await world.runtime.delete(spec)
        assert cgroup.oom_kills() == 1
    finally:
        cgroup.close()


async def check_a_process_that_is_gone_has_no_cgroup(world: World) -> None:
    """An error, not another's cgroup."""
    _, init = await run(world, Does.ENDS_WITH_0)
    await init.wait()
    with pytest.raises(OSError, match=str(init.pid)):
        world.kernel.cgroup(init.pid)


CASES: tuple[Callable[[World], object], ...] = tuple(
    case for name, case in globals().items() if name.startswith("check_")
)
