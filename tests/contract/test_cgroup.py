"""The cgroups of this machine, v1 or v2: kills, notices, processes, numbers.

Each test makes cgroups of its own, at the top of the hierarchies, and removes them.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioshim.linux._cgroup import open_cgroup
from trioshim.linux._cgroup_v2 import CgroupV2

TOP = Path("/sys/fs/cgroup")
UNIFIED = (TOP / "cgroup.controllers").exists()
CONTROLLERS = ("memory", "pids", "cpu", "cpuacct", "blkio", "devices")
LIMIT = 32 << 20
WATCHDOG = 30  # seconds after which a test that hangs fails

HOG = "b = bytearray(96 << 20)"  # dies of it
HOLD = "import sys; print(flush=True); sys.stdin.read()"


def why_not() -> str:
    if os.geteuid() != 0:
        return "making cgroups needs root"
    if UNIFIED:
        missing = {"memory", "pids"} - set((TOP / "cgroup.subtree_control").read_text().split())
        return f"not enabled at the top: {', '.join(sorted(missing))}" if missing else ""
    here = (TOP / "memory/memory.oom_control").exists()
    return "" if here else "there is no memory controller in /sys/fs/cgroup"


pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")


class MadeCgroup:
    """A cgroup of our own in every hierarchy, and the processes that we started in it."""

    def __init__(self, name):
        tops = [TOP] if UNIFIED else [TOP / c for c in CONTROLLERS if (TOP / c).is_dir()]
        self.directories = list(dict.fromkeys(top.resolve() / name for top in tops))
        self.memory = TOP / name if UNIFIED else TOP / "memory" / name
        self.processes = []
        for directory in self.directories:
            directory.mkdir()

    def limit_memory(self, size=LIMIT):
        files = ["memory.max", "memory.swap.max"] if UNIFIED else ["memory.limit_in_bytes"]
        for name in files:
            (self.memory / name).write_text(str(size))

    def run(self, code, *, below=""):
        """Start Python in it (with a stdin and a stdout), or in a cgroup below it."""
        files = [f"{directory}/{below}/cgroup.procs" for directory in self.directories]
        join = "".join(f"echo 0 > {file} || exit 9; " for file in files if os.path.exists(file))
        process = subprocess.Popen(
            ["/bin/sh", "-c", f'{join} exec "$0" -I -S -c "$1"', sys.executable, code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.processes.append(process)
        return process

    def hold(self, *, below=""):
        """A process that is in it and stays."""
        process = self.run(HOLD, below=below)
        process.stdout.readline()
        return process

    def hog(self, *, below=""):
        """One process is killed for memory."""
        assert self.run(HOG, below=below).wait(WATCHDOG) == -signal.SIGKILL

    def below(self, name):
        for directory in self.directories:
            (directory / name).mkdir()

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()
        self.processes.clear()

    def remove(self):
        """Remove it, once the kernel has let the processes go."""
        self.end()
        for directory in self.directories:
            for path in sorted(directory.glob("**/"), reverse=True):
                remove(path)


def remove(directory):
    deadline = time.monotonic() + WATCHDOG
    while directory.exists():
        try:
            directory.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise


@pytest.fixture
def made():
    """A cgroup with a limit on memory."""
    group = MadeCgroup(f"trioshim-test-{os.getpid()}")
    try:
        group.limit_memory()
        yield group
    finally:
        group.remove()


@pytest.fixture
def held(made):
    """A process in it."""
    return made.hold()


@pytest.fixture
def cgroup(held):
    """The cgroup, opened through that process."""
    opened = open_cgroup(held.pid)
    yield opened
    opened.close()


def open_fds():
    return sorted(os.listdir("/proc/self/fd"))


async def test_a_kill_wakes_the_watch_and_is_counted(made, cgroup):
    """`oom_changed` returns and by then `oom_kills` has grown."""
    assert cgroup.oom_kills() == 0
    for count in (1, 2):
        with trio.fail_after(WATCHDOG):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cgroup.oom_changed)
                await wait_all_tasks_blocked()
                made.hog()
        assert cgroup.oom_kills() == count


async def test_a_kill_between_opening_and_watching_is_not_missed(made, cgroup):
    """The kernel keeps the notice."""
    made.hog()

    with trio.fail_after(WATCHDOG):
        await cgroup.oom_changed()

    assert cgroup.oom_kills() == 1


async def test_a_kill_in_a_cgroup_below_is_counted(made, cgroup):
    """The container's own cgroups are the container."""
    made.below("inner")
    made.hog(below="inner")

    with trio.fail_after(WATCHDOG):
        await cgroup.oom_changed()

    assert cgroup.oom_kills() == 1


async def test_the_count_outlives_the_cgroup(made, held, cgroup):
    """What was seen is still told after the removal, until the end."""
    made.hog()
    assert cgroup.oom_kills() == 1

    made.remove()

    assert cgroup.oom_kills() == 1
    assert cgroup.pids() == []
    assert not cgroup.stats().memory.ListFields()


async def test_without_a_kill_the_watch_stays_asleep(made, cgroup):
    """A process that comes and goes is no news."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cgroup.oom_changed)
        await wait_all_tasks_blocked()
        assert made.run("pass").wait(WATCHDOG) == 0
        await wait_all_tasks_blocked()
        assert nursery.child_tasks
        nursery.cancel_scope.cancel()
    assert cgroup.oom_kills() == 0


async def test_removal_ends_the_watch_with_an_error(made, cgroup):
    """The kernel's last notice is not taken for a kill."""
    with trio.fail_after(WATCHDOG):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def watch():
                with pytest.raises(OSError, match=r".") as caught:
                    await cgroup.oom_changed()
                assert caught.value.errno == errno.ENODEV

            await wait_all_tasks_blocked()
            made.remove()
    assert cgroup.oom_kills() == 0
    with trio.fail_after(WATCHDOG), pytest.raises(OSError, match=r"."):
        await cgroup.oom_changed()


async def test_closing_ends_the_watch_with_an_error(cgroup):
    """A task that waits is told, and the program goes on."""
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def watch():
            with pytest.raises(OSError, match="closed"):
                await cgroup.oom_changed()

        await wait_all_tasks_blocked()
        cgroup.close()
    with pytest.raises(OSError, match="closed"):
        await cgroup.oom_changed()


def test_pids_are_those_in_it_and_below(made, held, cgroup):
    """Also of cgroups that were made after it was opened."""
    made.below("inner")
    inner = made.hold(below="inner")

    assert cgroup.pids() == sorted([held.pid, inner.pid])


def test_pids_follow_the_processes(made, held, cgroup):
    """When the last one has ended there are none."""
    made.end()

    assert cgroup.pids() == []


def test_stats_tell_what_the_cgroup_uses(held, cgroup):
    """Of the right version, with the limit that was set and something in use."""
    stats = cgroup.stats()

    if UNIFIED:
        assert stats.DESCRIPTOR.full_name == "io.containerd.cgroups.v2.Metrics"
        memory, cpu = (stats.memory.usage_limit, stats.memory.usage), stats.cpu.usage_usec
    else:
        assert stats.DESCRIPTOR.full_name == "io.containerd.cgroups.v1.Metrics"
        memory, cpu = (stats.memory.usage.limit, stats.memory.usage.usage), stats.cpu.usage.total
        assert len(stats.cpu.usage.per_cpu) >= 1
        assert stats.memory.rss > 0
    assert memory[0] == LIMIT
    assert 0 < memory[1] <= LIMIT
    assert cpu > 0
    assert stats.pids.current == 1


def test_a_process_that_has_ended_is_not_opened(held):
    """Not even while it is a zombie, when v1 shows it in the root cgroup."""
    held.kill()
    os.waitid(os.P_PID, held.pid, os.WEXITED | os.WNOWAIT)
    if not UNIFIED:
        with pytest.raises(ProcessLookupError):
            open_cgroup(held.pid)

    held.wait()
    with pytest.raises(ProcessLookupError):
        open_cgroup(held.pid)


async def test_nothing_is_left_open(made, held):
    """Neither after a watch that was cancelled nor without one."""
    with trio.move_on_after(0):  # trio's own fds are there now
        await trio.lowlevel.wait_readable(held.stdout)
    before = open_fds()
    cgroup = open_cgroup(held.pid)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cgroup.oom_changed)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    cgroup.close()
    cgroup.close()

    assert open_fds() == before


@pytest.fixture
def unified():
    """A v2 cgroup without the memory controller, as a hybrid machine has them."""
    top = TOP if UNIFIED else TOP / "unified"
    if not (top / "cgroup.controllers").exists():
        pytest.skip("there is no cgroup2 mount")
    directory = top / f"trioshim-test-v2-{os.getpid()}"
    directory.mkdir()
    yield directory
    remove(directory)


async def test_v2_notices_wake_the_watch(unified, tmp_path):
    """A change of the kernel's own files is noticed: here that the last process has left.

    On a hybrid machine no v2 cgroup has `memory.events`; `cgroup.events` stands in for it.
    """
    for name in ("memory.events", "cgroup.events"):
        (tmp_path / name).symlink_to(unified / "cgroup.events")
    group = MadeCgroup.__new__(MadeCgroup)
    group.directories, group.processes = [unified], []
    group.hold()
    cgroup = CgroupV2(str(tmp_path))
    try:
        with trio.fail_after(WATCHDOG):
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def watch():
                    with pytest.raises(OSError, match="no process"):
                        await cgroup.oom_changed()

                await wait_all_tasks_blocked()
                assert nursery.child_tasks
                group.end()
    finally:
        cgroup.close()
        group.end()
