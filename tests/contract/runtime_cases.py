"""What every `Runtime` promises, as cases that know only the ports.

`test_runc_cases.py` runs them on the real runc, `test_fake_runtime.py` on the runtime in memory.
A case gets a world: a kernel whose reaper runs, a runtime, and the means to say what a process
does.  What the case leaves behind, the world ends; and it checks that nothing stays.

Here: create, start, kill, delete.  What happens to a container that is there is in
`runtime_cases_inside`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from enum import Enum, auto
from typing import Protocol

import pytest
import trio

from trioshim.abc import Child, ContainerSpec, ExecSpec, Kernel, Runtime, Stdio
from trioshim.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    NotFoundError,
    RuntimeFailedError,
)

from .kernel_cases import until

KILLED = 128 + signal.SIGKILL
SHARED = True  # a pid namespace shared with the host


class Does(Enum):
    """What a process does once it runs."""

    ENDS_WITH_0 = auto()
    ENDS_WITH_7 = auto()
    ENDS_WITH_255 = auto()
    SLEEPS = auto()  # until a signal ends it
    ENDS_WITH_42_ON_TERM = auto()
    IS_MISSING = auto()  # there is no such program
    DIES_IN_CREATE = auto()  # killed before the runtime's create has returned
    EATS_MEMORY = auto()  # until the kernel kills it


class World(Protocol):
    """The ports, and what a case cannot do through them."""

    @property
    def kernel(self) -> Kernel: ...

    @property
    def runtime(self) -> Runtime: ...

    @property
    def stdio(self) -> Stdio:
        """No streams at all."""
        ...

    def spec(self, does: Does, *, shared: bool = False) -> ContainerSpec:
        """A container to be, under a name of its own."""
        ...

    def exec_spec(self, does: Does) -> ExecSpec: ...

    def owns(self, child: Child) -> Child:
        """Have it waited for at the end of the test.  Gives it back."""
        ...

    async def ready(self, spec: ContainerSpec) -> None:
        """Return when the only program that runs has begun and is ready for signals."""
        ...

    def hung(self, verb: str) -> AbstractAsyncContextManager[None]:
        """For the time of the block, the runtime's verb does its work and then hangs.

        The block begins before, not when it hangs.
        """
        ...

    async def hangs(self) -> None:
        """Return when the verb has done its work and hangs."""
        ...

    def alive(self, pid: int) -> bool:
        """The process exists and is no zombie."""
        ...

    def count(self, spec: ContainerSpec) -> int:
        """How many processes of a container are alive."""
        ...


async def create(world: World, does: Does, *, shared: bool = False) -> tuple[ContainerSpec, Child]:
    spec = world.spec(does, shared=shared)
    await world.runtime.prepare(spec)
    return spec, world.owns(await world.runtime.create(spec, world.stdio))


async def run(world: World, does: Does, *, shared: bool = False) -> tuple[ContainerSpec, Child]:
    """Create and start."""
    spec, init = await create(world, does, shared=shared)
    await world.runtime.start(spec)
    return spec, init


async def exec_(world: World, spec: ContainerSpec, does: Does) -> Child:
    return world.owns(await world.runtime.exec(spec, world.exec_spec(does), world.stdio))


async def kill(
    world: World,
    spec: ContainerSpec,
    init: Child,
    signum: int = signal.SIGKILL,
    *,
    everyone: bool = False,
) -> None:
    await world.runtime.kill(spec, init, signum, all=everyone)


# ---------------------------------------------------------------- create and start


async def check_init_waits_to_be_started(world: World) -> None:
    """Created, it lives and its program has not begun; started, it ends in its own way."""
    spec, init = await create(world, Does.ENDS_WITH_7)
    assert world.alive(init.pid)
    await world.runtime.start(spec)
    assert (await init.wait()).status == 7


async def check_exit_statuses(world: World) -> None:
    """The status is the program's own."""
    for does, status in (
        (Does.ENDS_WITH_0, 0),
        (Does.ENDS_WITH_7, 7),
        (Does.ENDS_WITH_255, 255),
    ):
        _, init = await run(world, does)
        assert (await init.wait()).status == status


async def check_an_exit_is_kept_until_somebody_waits(world: World) -> None:
    """A process that ends at once: the exit is there however late the wait comes."""
    spec, init = await run(world, Does.ENDS_WITH_7)
    await until(lambda: not world.alive(init.pid))
    await trio.testing.wait_all_tasks_blocked()
    assert (await init.wait()).status == 7
    await world.runtime.delete(spec)


async def check_a_missing_program_is_a_failure_of_create(world: World) -> None:
    """Nothing runs afterwards, and undoing it is no failure."""
    spec = world.spec(Does.IS_MISSING)
    await world.runtime.prepare(spec)
    with pytest.raises(RuntimeFailedError, match=r"^OCI runtime create failed: .*not found"):
        await world.runtime.create(spec, world.stdio)
    await world.runtime.delete(spec, force=True)
    assert world.count(spec) == 0


async def check_an_init_that_dies_in_create(world: World) -> None:
    """Create succeeds, the exit is there to be waited for, start fails, delete does not."""
    spec, init = await create(world, Does.DIES_IN_CREATE)
    await until(lambda: not world.alive(init.pid))  # runc may look before the signal has arrived
    with pytest.raises(RuntimeFailedError, match=r"^OCI runtime start failed: .*has stopped"):
        await world.runtime.start(spec)
    assert (await init.wait()).status == KILLED
    await world.runtime.delete(spec)


async def check_a_taken_id_is_told_apart(world: World) -> None:
    """The container that has it is not harmed, and its process is not taken for a new one."""
    spec, init = await run(world, Does.SLEEPS)
    with pytest.raises(AlreadyExistsError, match=r"^OCI runtime create failed: .*exists"):
        await world.runtime.create(spec, world.stdio)
    await kill(world, spec, init, 0)
    assert world.alive(init.pid)


async def check_an_id_can_be_used_again(world: World) -> None:
    """Once the container is deleted."""
    spec, init = await run(world, Does.ENDS_WITH_7)
    await init.wait()
    await world.runtime.delete(spec)
    again = world.owns(await world.runtime.create(spec, world.stdio))
    await world.runtime.start(spec)
    assert (await again.wait()).status == 7


RUNS_ALREADY = r"^OCI runtime start failed: .*already running"


async def check_starting_twice_fails(world: World) -> None:
    """It is told apart from other failures, and changes nothing."""
    spec, init = await run(world, Does.SLEEPS)
    with pytest.raises(FailedPreconditionError, match=RUNS_ALREADY):
        await world.runtime.start(spec)
    assert world.alive(init.pid)


async def check_verbs_for_a_container_that_is_not_there(world: World) -> None:
    """Each says so with its own beginning; killing has a class for it."""
    spec, init = await run(world, Does.ENDS_WITH_0)
    await init.wait()
    await world.runtime.delete(spec)
    runtime = world.runtime
    gone = "does not exist"
    with pytest.raises(RuntimeFailedError, match=f"^OCI runtime start failed: .*{gone}"):
        await runtime.start(spec)
    with pytest.raises(RuntimeFailedError, match=f"^OCI runtime exec failed: .*{gone}"):
        await exec_(world, spec, Does.SLEEPS)
    with pytest.raises(RuntimeFailedError, match=f"^OCI runtime pause failed: .*{gone}"):
        await runtime.pause(spec)
    with pytest.raises(RuntimeFailedError, match=f"^OCI runtime resume failed: .*{gone}"):
        await runtime.resume(spec)
    with pytest.raises(RuntimeFailedError, match=gone):
        await runtime.update(spec, b"{}")
    for everyone in (False, True):
        with pytest.raises(NotFoundError, match=r"^no such container: not found$"):
            await kill(world, spec, init, everyone=everyone)
    await runtime.kill_remaining(spec)


# ---------------------------------------------------------------- kill


async def check_kill_reaches_the_handler(world: World) -> None:
    """The program's own way to end on SIGTERM."""
    spec, init = await run(world, Does.ENDS_WITH_42_ON_TERM)
    await world.ready(spec)
    await kill(world, spec, init, signal.SIGTERM)
    assert (await init.wait()).status == 42


async def check_an_init_ignores_what_it_does_not_handle(world: World) -> None:
    """In a pid namespace of its own: SIGTERM does nothing, SIGKILL ends it."""
    spec, init = await run(world, Does.SLEEPS)
    await world.ready(spec)
    await kill(world, spec, init, signal.SIGTERM)
    await kill(world, spec, init, 0)
    assert world.alive(init.pid)
    await kill(world, spec, init)
    assert (await init.wait()).status == KILLED


async def check_without_its_own_namespace_a_signal_ends_init(world: World) -> None:
    """There it is a process like any other."""
    spec, init = await run(world, Does.SLEEPS, shared=SHARED)
    await world.ready(spec)
    await kill(world, spec, init, signal.SIGTERM)
    assert (await init.wait()).status == 128 + signal.SIGTERM


async def check_kill_before_start(world: World) -> None:
    """A created container can be killed; it cannot be started any more."""
    spec, init = await create(world, Does.SLEEPS)
    await kill(world, spec, init)
    assert (await init.wait()).status == KILLED
    with pytest.raises(RuntimeFailedError, match="has stopped"):
        await world.runtime.start(spec)
    await world.runtime.delete(spec)


async def check_killing_what_has_ended_is_not_found(world: World) -> None:
    """Whether its exit was collected or not, and for signal 0 too."""
    spec, init = await run(world, Does.ENDS_WITH_0)
    await until(lambda: not world.alive(init.pid))
    for _ in range(2):
        for signum in (0, signal.SIGKILL):
            with pytest.raises(NotFoundError, match=r"^process already finished: not found$"):
                await kill(world, spec, init, signum)
        await init.wait()


async def check_kill_all_reaches_every_process(world: World) -> None:
    """Init and execs; once more, when all have ended, it is no failure."""
    for shared in (False, SHARED):
        spec, init = await run(world, Does.SLEEPS, shared=shared)
        child = await exec_(world, spec, Does.SLEEPS)
        await kill(world, spec, init, everyone=True)
        assert (await child.wait()).status == KILLED
        assert (await init.wait()).status == KILLED
        await kill(world, spec, init, everyone=True)


# ---------------------------------------------------------------- delete


async def check_delete_ends_what_was_never_started(world: World) -> None:
    """Its init is killed, and the container is gone."""
    spec, init = await create(world, Does.SLEEPS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(init.wait)
        await world.runtime.delete(spec)
    assert (await init.wait()).status == KILLED
    with pytest.raises(NotFoundError):
        await kill(world, spec, init, 0)


async def check_a_running_container_is_not_deleted(world: World) -> None:
    """It is refused and unharmed; paused or not."""
    spec, init = await run(world, Does.SLEEPS)
    refusal = r"^failed to delete task: .*not stopped: "
    with pytest.raises(RuntimeFailedError, match=f"{refusal}running"):
        await world.runtime.delete(spec)
    await world.runtime.pause(spec)
    with pytest.raises(RuntimeFailedError, match=f"{refusal}paused"):
        await world.runtime.delete(spec)
    await world.runtime.resume(spec)
    await kill(world, spec, init, 0)
    assert world.alive(init.pid)


async def check_force_deletes_what_runs(world: World) -> None:
    """Init is killed, and has ended when the call returns, even if an exec must go first."""
    spec, init = await run(world, Does.SLEEPS)
    child = await exec_(world, spec, Does.SLEEPS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child.wait)
        await world.runtime.delete(spec, force=True)
        assert not world.alive(init.pid)
    assert (await init.wait()).status == KILLED


async def check_deleting_what_is_not_there_is_no_failure(world: World) -> None:
    """Never created, or deleted before; with force or without."""
    spec = world.spec(Does.ENDS_WITH_0)
    await world.runtime.delete(spec)
    await world.runtime.delete(spec, force=True)
    spec, init = await run(world, Does.ENDS_WITH_0)
    await init.wait()
    for force in (False, False, True):
        await world.runtime.delete(spec, force=force)


CASES: tuple[Callable[[World], object], ...] = tuple(
    case for name, case in globals().items() if name.startswith("check_")
)
