"""The kernel in memory keeps the promises of the port: the same cases as Linux, and pid reuse."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
import trio

from trioshim.abc import Kernel
from trioshim.linux import LinuxKernel
from trioshim.testing import FakeCgroup, FakeKernel, FakeProcess

from . import kernel_cases, test_kernel
from .kernel_cases import Programs, until

real_programs = test_kernel.programs
subreaper = test_kernel.subreaper


@dataclass
class NumberedOrphan:
    """The orphan of one spawned program."""

    argv: Sequence[str]
    pids: dict[Sequence[str], int]

    def pid(self) -> int:
        return self.pids[self.argv]


@dataclass
class FakePrograms:
    """Programs as words: what `run` makes of them is what they do."""

    kernel: FakeKernel = field(init=False)
    orphans: dict[Sequence[str], int] = field(default_factory=dict)
    count: int = 0

    def run(self, kernel: FakeKernel, process: FakeProcess) -> None:
        match process.argv:
            case ("exit", code):
                kernel.end(process, int(code))
            case ("kill", signum):
                kernel.signal(process, int(signum))
            case ("orphan", code, _):
                child = kernel.fork(ours=False)
                self.orphans[process.argv] = child.pid
                kernel.end(process, 0)
                kernel.orphan(child)
                kernel.end(child, int(code))
            case ("sleep",):
                pass
            case _:
                raise FileNotFoundError(process.argv[0])

    def exits(self, code: int) -> Sequence[str]:
        return ("exit", str(code))

    def killed_by(self, signum: int) -> Sequence[str]:
        return ("kill", str(int(signum)))

    def sleeps(self) -> Sequence[str]:
        return ("sleep",)

    def missing(self) -> Sequence[str]:
        return ("no-such-program",)

    def orphan(self, code: int) -> NumberedOrphan:
        self.count += 1
        return NumberedOrphan(("orphan", str(code), str(self.count)), self.orphans)

    def wait_ended(self, *pids: int) -> None:
        # Nothing here takes time: what ends has ended when the call that ends it returns.
        for pid in pids:
            process = self.kernel.processes.get(pid)
            assert process is None or process.exit is not None, f"process {pid} runs"

    def exists(self, pid: int) -> bool:
        return pid in self.kernel.processes


async def open_fake(pid_max: int) -> AsyncIterator[tuple[FakeKernel, FakePrograms]]:
    programs = FakePrograms()
    kernel = programs.kernel = FakeKernel(pid_max=pid_max, program=programs.run)
    async with trio.open_nursery() as nursery:
        await nursery.start(kernel.reap_strangers)
        yield kernel, programs
        nursery.cancel_scope.cancel()


@pytest.fixture
async def fake() -> AsyncIterator[tuple[FakeKernel, FakePrograms]]:
    async for pair in open_fake(32768):
        yield pair


@pytest.fixture
async def tiny() -> AsyncIterator[tuple[FakeKernel, FakePrograms]]:
    """Three pids, 2 to 4: each comes again soon."""
    async for pair in open_fake(4):
        yield pair


@pytest.mark.parametrize("case", kernel_cases.CASES, ids=lambda case: case.__name__)
async def test_the_fake_keeps_the_promises_of_the_port(case, fake) -> None:
    """Each case that is true of Linux is true in memory, and nothing is left."""
    kernel, programs = fake
    with trio.fail_after(60):
        await case(kernel, programs)
    await until(lambda: not kernel.processes)


# ---------------------------------------------------------------- more cases, for both kernels


async def check_closing_wakes_the_waiter(kernel: Kernel, programs: Programs) -> None:
    """Letting go of a child ends a wait for it with an error, at once and later."""
    child = kernel.spawn(programs.sleeps())
    with kernel.birth():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_closed, child.wait)
            await trio.testing.wait_all_tasks_blocked()
            child.close()
        again = kernel.adopt(child.pid)
    await expect_closed(child.wait)
    with pytest.raises(ProcessLookupError):
        child.signal(signal.SIGTERM)
    kernel.kill_group(child)
    again.signal(signal.SIGTERM)
    assert (await again.wait()).status == 128 + signal.SIGTERM


async def expect_closed(wait) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await wait()


async def check_a_closed_child_that_has_ended_gives_no_exit(
    kernel: Kernel, programs: Programs
) -> None:
    """Its exit belongs to whoever collects it now."""
    child = kernel.spawn(programs.exits(3))
    programs.wait_ended(child.pid)
    child.close()
    child.close()
    await expect_closed(child.wait)
    await until(lambda: not programs.exists(child.pid))


async def check_one_task_may_wait(kernel: Kernel, programs: Programs) -> None:
    """A second waiter is refused, and the first is not disturbed."""
    child = kernel.spawn(programs.sleeps())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child.wait)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await child.wait()
        child.signal(signal.SIGTERM)
    assert (await child.wait()).status == 128 + signal.SIGTERM


async def check_a_signal_to_a_zombie_is_lost(kernel: Kernel, programs: Programs) -> None:
    """It has ended but is not collected: its pid is still its own, its status stays."""
    child = kernel.spawn(programs.exits(3))
    programs.wait_ended(child.pid)
    child.signal(signal.SIGKILL)
    kernel.kill_group(child)
    assert (await child.wait()).status == 3


async def check_harmless_signals(kernel: Kernel, programs: Programs) -> None:
    """Signal 0 asks, and what is ignored by default ends nobody."""
    child = kernel.spawn(programs.sleeps())
    for signum in (0, signal.SIGCHLD, signal.SIGWINCH, signal.SIGURG, signal.SIGCONT):
        child.signal(signum)
    child.signal(signal.SIGTERM)
    assert (await child.wait()).status == 128 + signal.SIGTERM


async def check_an_exit_is_stamped_when_it_is_collected(kernel: Kernel, programs: Programs) -> None:
    """Not when the process ended."""
    child = kernel.spawn(programs.exits(0))
    programs.wait_ended(child.pid)
    collecting = kernel.now()
    assert collecting <= (await child.wait()).at <= kernel.now()


MORE = tuple(case for name, case in globals().items() if name.startswith("check_"))


@pytest.mark.parametrize("case", MORE, ids=lambda case: case.__name__)
async def test_the_fake_agrees_on_the_details(case, fake) -> None:
    """As below."""
    kernel, programs = fake
    with trio.fail_after(60):
        await case(kernel, programs)
    await until(lambda: not kernel.processes)


@pytest.fixture
async def linux(subreaper, real_programs) -> AsyncIterator[tuple[LinuxKernel, Programs]]:
    kernel = LinuxKernel()
    async with trio.open_nursery() as nursery:
        await nursery.start(kernel.reap_strangers)
        yield kernel, real_programs
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("case", MORE, ids=lambda case: case.__name__)
async def test_linux_agrees_on_the_details(case, linux) -> None:
    """The same cases as above."""
    kernel, programs = linux
    with trio.fail_after(60):
        await case(kernel, programs)
    await until(programs.none_is_left)


# ---------------------------------------------------------------- pids that come again (P7)


async def test_a_pid_comes_again_only_after_it_was_collected(tiny) -> None:
    """A zombie keeps its pid; with all three taken nothing can be started."""
    kernel, programs = tiny
    children = [kernel.spawn(programs.exits(code)) for code in range(3)]
    with pytest.raises(BlockingIOError, match="no free pid"):
        kernel.spawn(programs.exits(0))
    assert (await children[1].wait()).status == 1
    again = kernel.spawn(programs.exits(9))
    assert again.pid == children[1].pid
    for child, code in (again, 9), (children[0], 0), (children[2], 2), (children[1], 1):
        assert (await child.wait()).status == code


async def test_an_old_name_does_not_reach_the_new_owner_of_its_pid(tiny) -> None:
    """Neither by a signal nor by killing its group."""
    kernel, programs = tiny
    old = kernel.spawn(programs.exits(0))
    await old.wait()
    new = [kernel.spawn(programs.sleeps()) for _ in range(3)]
    assert old.pid in [child.pid for child in new]
    with pytest.raises(ProcessLookupError):
        old.signal(signal.SIGKILL)
    kernel.kill_group(old)
    old.close()
    assert all(process.exit is None for process in kernel.processes.values())
    for child in new:
        child.signal(signal.SIGTERM)
        assert (await child.wait()).status == 128 + signal.SIGTERM


async def test_in_a_birth_no_pid_comes_again(tiny) -> None:
    """An orphan's pid is its own until it is adopted or the birth is over."""
    kernel, programs = tiny
    with kernel.birth():
        pid = await kernel_cases.leave_orphan(kernel, programs, 42)
        others = [kernel.spawn(programs.exits(0)) for _ in range(2)]
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(BlockingIOError, match="no free pid"):
            kernel.spawn(programs.exits(0))
        child = kernel.adopt(pid)
    assert (await child.wait()).status == 42
    for other in others:
        assert (await other.wait()).status == 0


async def test_without_a_birth_the_pid_may_be_another_process(tiny) -> None:
    """What `birth` is for: the reaper has collected the orphan and its pid is taken."""
    kernel, programs = tiny
    pid = await kernel_cases.leave_orphan(kernel, programs, 42)
    await until(lambda: not programs.exists(pid))
    others = [kernel.spawn(programs.sleeps()) for _ in range(3)]
    assert pid in [child.pid for child in others]
    for child in others:
        kernel.kill_group(child)
        await child.wait()


# ---------------------------------------------------------------- pid namespaces and cgroups


@pytest.fixture
def family(fake) -> tuple[FakeKernel, FakeProcess, FakeProcess]:
    """The init of a pid namespace and one more process in it."""
    kernel, _ = fake
    cgroup = FakeCgroup()
    init = kernel.fork(cgroup=cgroup)
    init.is_init = True
    member = kernel.fork(cgroup=cgroup, namespace=init)
    init.on_end = lambda: kernel.end(member, 128 + signal.SIGKILL)
    return kernel, init, member


async def test_init_ends_when_the_others_are_collected(family) -> None:
    """As on Linux (zap_pid_ns_processes): until then it is not even a zombie."""
    kernel, init, member = family
    with kernel.birth():
        first, second = kernel.adopt(init.pid), kernel.adopt(member.pid)
    first.signal(signal.SIGKILL)
    await trio.testing.wait_all_tasks_blocked()
    assert init.exit is None
    assert (await second.wait()).status == 128 + signal.SIGKILL
    assert init.exit is not None
    assert (await first.wait()).status == 128 + signal.SIGKILL


async def test_init_ignores_what_it_does_not_handle(family) -> None:
    """SIGKILL apart; a handler makes the difference."""
    kernel, init, member = family
    kernel.signal(init, signal.SIGTERM)
    assert init.status is None
    init.handles = {signal.SIGTERM: 42}
    kernel.signal(init, signal.SIGTERM)
    assert (init.status, member.status) == (42, 128 + signal.SIGKILL)


async def test_frozen_processes_get_their_signals_when_they_thaw(family) -> None:
    """SIGKILL does not wait."""
    kernel, init, member = family
    cgroup = member.cgroup
    cgroup.frozen = True
    kernel.signal(member, signal.SIGTERM)
    assert member.status is None
    kernel.thaw(cgroup)
    assert member.status == 128 + signal.SIGTERM
    cgroup.frozen = True
    kernel.signal(init, signal.SIGKILL)
    assert init.status == 128 + signal.SIGKILL


async def test_an_open_cgroup_remembers_what_it_has_seen(family) -> None:
    """Its counter outlives the cgroup; what came before the wait is not missed."""
    kernel, init, _ = family
    opened = kernel.cgroup(init.pid)
    init.cgroup.kill_for_memory()
    await opened.oom_changed()
    assert opened.oom_kills() == 1
    init.cgroup.kill_for_memory()
    init.cgroup.remove()
    assert (opened.oom_kills(), opened.pids()) == (1, [])
    with pytest.raises(OSError, match="gone"):
        await opened.oom_changed()
    opened.close()
    opened.close()
    assert kernel.cgroups == []


async def test_closing_a_cgroup_wakes_its_watcher(family) -> None:
    """With an OSError, as on Linux."""
    kernel, init, _ = family
    opened = kernel.cgroup(init.pid)

    async def watch() -> None:
        with pytest.raises(OSError, match="closed"):
            await opened.oom_changed()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        opened.close()


async def test_unmounting_takes_what_is_below(fake) -> None:
    """Every layer on and below the target, and no neighbour."""
    kernel, _ = fake
    kernel.mounts += ["/b/rootfs", "/b/rootfs", "/b/rootfs/proc", "/b/rootfs2"]
    await kernel.unmount("/b/rootfs")
    assert kernel.mounts == ["/b/rootfs2"]


async def test_a_program_that_cannot_start_leaves_nothing(fake) -> None:
    """No process and no owner."""
    kernel, programs = fake
    with pytest.raises(FileNotFoundError):
        kernel.spawn(programs.missing())
    assert kernel.processes == {}
    assert kernel._owned == set()
