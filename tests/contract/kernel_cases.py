"""What every `Kernel` promises about processes, as cases that know only the port.

`test_kernel.py` runs them on the machine; the same cases run on the kernel in memory, so that
what a simulation shows is true of Linux.  A case gets a kernel whose reaper runs and `programs`,
which knows what to start to see a certain end.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import Protocol

import pytest
import trio

from trioshim.abc import Child, Exit, Kernel


class Orphan(Protocol):
    """A program that ends with 0 and leaves a child of its own to us."""

    argv: Sequence[str]

    def pid(self) -> int:
        """The orphan's pid; known once the program has ended."""
        ...


class Programs(Protocol):
    """What to start, and two looks at the process table from outside of the port."""

    def exits(self, code: int) -> Sequence[str]: ...

    def killed_by(self, signum: int) -> Sequence[str]: ...

    def sleeps(self) -> Sequence[str]:
        """Runs until a signal ends it."""
        ...

    def missing(self) -> Sequence[str]:
        """No such program."""
        ...

    def orphan(self, code: int) -> Orphan:
        """The orphan ends at once with `code`."""
        ...

    def wait_ended(self, *pids: int) -> None:
        """Return when all have ended (collected or not) without letting the event loop run."""
        ...

    def exists(self, pid: int) -> bool:
        """Whether the pid is in use; it is until an ended process has been collected."""
        ...


async def run(kernel: Kernel, argv: Sequence[str]) -> int:
    """Start a program and return its status."""
    exit_ = await kernel.spawn(argv).wait()
    return exit_.status


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until it holds; fail if it does not come true."""
    for _ in range(100_000):
        if condition():
            return
        await trio.lowlevel.checkpoint()
    raise AssertionError("it did not come true")


async def leave_orphan(kernel: Kernel, programs: Programs, code: int) -> int:
    """Have an orphan left to us that has ended, and return its pid.  Call inside `birth`."""
    orphan = programs.orphan(code)
    assert await run(kernel, orphan.argv) == 0
    programs.wait_ended(orphan.pid())
    return orphan.pid()


# ---------------------------------------------------------------- exits


async def check_exit_codes(kernel: Kernel, programs: Programs) -> None:
    """The status is the code that the program gave."""
    for code in (0, 1, 3, 127, 255):
        assert await run(kernel, programs.exits(code)) == code


async def check_signals(kernel: Kernel, programs: Programs) -> None:
    """Ended by a signal: 128 and its number."""
    for signum in (signal.SIGKILL, signal.SIGTERM, signal.SIGPIPE):
        assert await run(kernel, programs.killed_by(signum)) == 128 + signum


async def check_missing_program(kernel: Kernel, programs: Programs) -> None:
    """A program that does not exist is an error of `spawn`, not an exit."""
    with pytest.raises(FileNotFoundError):
        kernel.spawn(programs.missing())


async def check_wait_twice(kernel: Kernel, programs: Programs) -> None:
    """Waiting again gives the same answer, stamp and all."""
    child = kernel.spawn(programs.exits(3))
    first = await child.wait()
    assert first.at > 0
    assert await child.wait() == first


async def check_wait_cancelled(kernel: Kernel, programs: Programs) -> None:
    """A wait that is cancelled takes nothing from the next one."""
    child = kernel.spawn(programs.sleeps())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child.wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    child.signal(signal.SIGTERM)
    assert (await child.wait()).status == 128 + signal.SIGTERM


async def check_wait_cancelled_at_the_end(kernel: Kernel, programs: Programs) -> None:
    """Even if the process has ended by the time of the cancellation, its exit is kept."""
    child = kernel.spawn(programs.exits(7))
    programs.wait_ended(child.pid)
    with trio.CancelScope() as scope:
        scope.cancel()
        await child.wait()
    assert scope.cancelled_caught
    assert (await child.wait()).status == 7


async def check_signal_after_the_end(kernel: Kernel, programs: Programs) -> None:
    """Once collected, the pid may be another's: no signal goes there."""
    child = kernel.spawn(programs.exits(0))
    await child.wait()
    with pytest.raises(ProcessLookupError):
        child.signal(signal.SIGKILL)


async def check_kill_group(kernel: Kernel, programs: Programs) -> None:
    """The child is killed; when it has ended, there is nothing to do."""
    child = kernel.spawn(programs.sleeps())
    kernel.kill_group(child)
    assert (await child.wait()).status == 128 + signal.SIGKILL
    kernel.kill_group(child)


async def check_many_exits_at_once(kernel: Kernel, programs: Programs) -> None:
    """300 processes end while the event loop is blocked: each exit reaches its own waiter."""
    signums = [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1] * 60
    expected = {kernel.spawn(programs.sleeps()): signum for signum in signums}
    seen: dict[Child, Exit] = {}

    async def collect(child: Child) -> None:
        seen[child] = await child.wait()

    async with trio.open_nursery() as nursery:
        for child in expected:
            nursery.start_soon(collect, child)
        await trio.testing.wait_all_tasks_blocked()
        for child, signum in expected.items():
            child.signal(signum)
        programs.wait_ended(*(child.pid for child in expected))

    assert {child: exit_.status - 128 for child, exit_ in seen.items()} == expected


# ---------------------------------------------------------------- births and strangers


async def check_adopted_after_its_end(kernel: Kernel, programs: Programs) -> None:
    """An orphan that ended before it got a name still has its status."""
    with kernel.birth():
        pid = await leave_orphan(kernel, programs, 42)
        await trio.testing.wait_all_tasks_blocked()
        child = kernel.adopt(pid)
    assert child.pid == pid
    assert (await child.wait()).status == 42


async def check_adopt_needs_a_birth(kernel: Kernel, programs: Programs) -> None:
    """Outside, the pid may have been collected and given to another process."""
    child = kernel.spawn(programs.sleeps())
    with pytest.raises(RuntimeError, match="birth"):
        kernel.adopt(child.pid)
    kernel.kill_group(child)
    await child.wait()


async def check_adopt_takes_no_owned_child(kernel: Kernel, programs: Programs) -> None:
    """Two owners would be two waiters."""
    child = kernel.spawn(programs.sleeps())
    with kernel.birth(), pytest.raises(RuntimeError, match="owner"):
        kernel.adopt(child.pid)
    kernel.kill_group(child)
    assert (await child.wait()).status == 128 + signal.SIGKILL


async def check_adopt_of_nobody(kernel: Kernel, programs: Programs) -> None:
    """A pid that is not in use, or can never be, is no child of ours."""
    child = kernel.spawn(programs.exits(0))
    await child.wait()
    for pid in (child.pid, 0, -1):
        with kernel.birth(), pytest.raises(ProcessLookupError):
            kernel.adopt(pid)


async def check_strangers_stay_until_the_birth_is_over(kernel: Kernel, programs: Programs) -> None:
    """Inside births an orphan is left alone; after the last one it is collected."""
    with kernel.birth():
        with kernel.birth():
            pid = await leave_orphan(kernel, programs, 9)
        await trio.testing.wait_all_tasks_blocked()
        assert programs.exists(pid)
    await until(lambda: not programs.exists(pid))


async def check_strangers_are_collected(kernel: Kernel, programs: Programs) -> None:
    """Without a birth an orphan is collected as soon as it has ended."""
    pid = await leave_orphan(kernel, programs, 9)
    await until(lambda: not programs.exists(pid))


async def check_strangers_behind_an_owned_one(kernel: Kernel, programs: Programs) -> None:
    """An ended child that nobody waits for yet delays strangers until it is collected."""
    child = kernel.spawn(programs.exits(5))
    programs.wait_ended(child.pid)
    pid = await leave_orphan(kernel, programs, 9)
    assert programs.exists(child.pid)
    assert (await child.wait()).status == 5
    await until(lambda: not programs.exists(pid))


async def check_a_closed_child_is_a_stranger(kernel: Kernel, programs: Programs) -> None:
    """Let go of, it is collected by the reaper, even if it had ended before."""
    child = kernel.spawn(programs.exits(0))
    programs.wait_ended(child.pid)
    await trio.testing.wait_all_tasks_blocked()
    assert programs.exists(child.pid)
    child.close()
    await until(lambda: not programs.exists(child.pid))


async def check_no_wrong_code_among_orphans(kernel: Kernel, programs: Programs) -> None:
    """200 exits with code 3 beside 200 orphans: none is taken by the reaper and lost."""
    statuses: list[int] = []
    few = trio.CapacityLimiter(20)

    async def exit_3() -> None:
        async with few:
            statuses.append(await run(kernel, programs.exits(3)))

    async def orphan() -> None:
        async with few:
            assert await run(kernel, programs.orphan(9).argv) == 0

    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(exit_3)
            nursery.start_soon(orphan)

    assert statuses == [3] * 200


CASES: tuple[Callable[[Kernel, Programs], object], ...] = tuple(
    case for name, case in globals().items() if name.startswith("check_")
)
