"""A v1 cgroup on directories that we made: what is opened, counted and told, and when.

The test plays the kernel: what was written to `cgroup.event_control` names the eventfd.
"""

from __future__ import annotations

import errno
import os

import pytest
import trio

from trioshim.linux._cgroup import open_cgroup
from trioshim.linux._cgroup_v1 import CgroupV1
from trioshim.proto import cgroups_v1_pb2 as v1

from .fds import no_fd_left, open_fds

CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"
OLD_CONTROL = "oom_kill_disable 0\nunder_oom 0\n"  # before Linux 4.13


@pytest.fixture
def root(tmp_path):
    """procfs with process 42, in the cgroup /c1 of the hierarchies `memory` and `pids`."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/42").mkdir()
    for name in ("memory", "pids"):
        (tmp_path / name / "c1").mkdir(parents=True)
        (tmp_path / name / "c1/cgroup.procs").write_text("43\n42\n")
    (tmp_path / "proc/self/mountinfo").write_text(
        f"1 0 0:1 / {tmp_path}/memory rw - cgroup cgroup rw,memory\n"
        f"2 0 0:2 / {tmp_path}/pids rw - cgroup cgroup rw,pids\n"
    )
    (tmp_path / "proc/42/cgroup").write_text("4:memory:/c1\n3:pids:/c1\n0::/\n")
    (tmp_path / "proc/42/stat").write_text("42 (x) R 1 42 42 0 -1 4194304 0\n")
    killed(tmp_path, 0)
    (tmp_path / "memory/c1/cgroup.event_control").write_text("")
    return tmp_path


def open_made(root):
    return open_cgroup(42, proc=f"{root}/proc", mount_root=str(root))


@pytest.fixture
def cgroup(root):
    """The cgroup, open."""
    opened = open_made(root)
    yield opened
    opened.close()


def killed(root, count, *, below="."):
    (root / "memory/c1" / below / "memory.oom_control").write_text(CONTROL.format(count))


def give_notice(root, times=1):
    """What the kernel does when it runs out of memory there."""
    eventfd, _ = (root / "memory/c1/cgroup.event_control").read_text().split()
    os.eventfd_write(int(eventfd), times)


def test_stats_come_from_all_hierarchies(cgroup, root):
    """One message of them all."""
    (root / "memory/c1/memory.stat").write_text("rss 5\n")
    (root / "pids/c1/pids.current").write_text("2\n")

    stats = cgroup.stats()

    assert isinstance(stats, v1.Metrics)
    assert (stats.memory.rss, stats.pids.current) == (5, 2)


def test_a_missing_hierarchy_is_no_error(root):
    """The other one tells the processes and its part of the numbers."""
    (root / "pids/c1/cgroup.procs").unlink()
    (root / "pids/c1").rmdir()
    cgroup = open_made(root)
    try:
        assert cgroup.pids() == [42, 43]
        assert not cgroup.stats().HasField("pids")
    finally:
        cgroup.close()


def test_without_any_directory_there_is_no_cgroup(root):
    """It went between reading its name and opening it."""
    for name in ("memory", "pids"):
        (root / name / "c1").rename(root / name / "elsewhere")

    with pytest.raises(FileNotFoundError, match="pids/c1"):
        open_made(root)


def test_an_exiting_process_is_not_opened(root):
    """The kernel shows it in the root cgroup, which must not be taken for the container's."""
    (root / "proc/42/stat").write_text("42 (x) R 1 42 42 0 -1 4194308 0\n")

    with pytest.raises(ProcessLookupError, match="42 has ended"):
        open_made(root)


def test_a_process_that_is_gone_is_not_opened(root):
    """No procfs entry, no cgroup."""
    with pytest.raises(ProcessLookupError, match="no process"):
        open_cgroup(41, proc=f"{root}/proc", mount_root=str(root))


def test_only_what_is_read_is_opened(tmp_path):
    """Other hierarchies would cost an fd for each container and tell nothing."""
    for name in ("pids", "memory", "freezer", "devices"):
        (tmp_path / name).mkdir()
    paths = {name: str(tmp_path / name) for name in ("memory", "pids")}
    listing = [str(tmp_path / name) for name in ("gone", "pids", "freezer", "devices")]
    before = open_fds()

    cgroup = CgroupV1(paths, listing)
    try:
        assert len(open_fds()) == len(before) + 2
    finally:
        cgroup.close()
    assert open_fds() == before


@pytest.mark.parametrize("spare", range(3))
def test_a_failure_half_way_leaves_no_fd(root, spare):
    """Whichever fd is the one that cannot be had; a directory less is not an answer."""
    before = open_fds()

    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)), no_fd_left(but=spare):
        CgroupV1(
            {"memory": f"{root}/memory", "pids": f"{root}/pids"},
            [f"{root}/{name}" for name in ("proc", "memory")],
        )

    assert open_fds() == before


def test_open_and_close_leave_no_fd(root):
    """All that was opened is closed, once."""
    before = open_fds()
    opened = open_made(root)
    assert len(open_fds()) > len(before)

    opened.close()
    opened.close()

    assert open_fds() == before


def test_kills_of_the_cgroups_below_are_counted(cgroup, root):
    """Each counts its own; the container may have made some, and may remove them again."""
    (root / "memory/c1/a/b").mkdir(parents=True)
    killed(root, 1)
    killed(root, 2, below="a/b")
    assert cgroup.oom_kills() == 3

    (root / "memory/c1/a/b/memory.oom_control").unlink()
    assert cgroup.oom_kills() == 3

    cgroup.close()
    assert cgroup.oom_kills() == 3


async def test_a_kill_without_a_notice_is_told_before_waiting(cgroup, root):
    """The notice may have been used up by an earlier wait."""
    killed(root, 1)

    await cgroup.oom_changed()

    assert cgroup.oom_kills() == 1


async def test_the_kill_may_come_after_the_notice(cgroup, root, autojump_clock):
    """The kernel tells first and kills then; the wait ends with the kill."""
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def kernel():
            await trio.sleep(10)
            give_notice(root)
            await trio.sleep(0.5)
            killed(root, 1)

        await cgroup.oom_changed()
        assert cgroup.oom_kills() == 1


async def test_a_notice_without_a_kill_is_used_up(cgroup, root, autojump_clock):
    """It ends one wait (nobody was killed here), not the next one."""
    give_notice(root)
    await cgroup.oom_changed()
    assert cgroup.oom_kills() == 0

    with trio.move_on_after(60) as scope:
        await cgroup.oom_changed()

    assert scope.cancelled_caught


async def test_old_kernels_have_their_notices_counted(root):
    """Without `oom_kill` in the file each notice is a kill, also those not waited for."""
    (root / "memory/c1/memory.oom_control").write_text(OLD_CONTROL)
    cgroup = open_made(root)
    try:
        assert cgroup.oom_kills() == 0
        give_notice(root)
        await cgroup.oom_changed()
        assert cgroup.oom_kills() == 1
        give_notice(root, 2)
        assert cgroup.oom_kills() == 3
    finally:
        cgroup.close()


@pytest.mark.parametrize("name", ["memory.oom_control", "cgroup.event_control"])
async def test_where_the_kernel_gives_no_notices_there_is_no_watch(root, name):
    """The watcher is told so, and the rest works."""
    (root / "memory/c1" / name).unlink()
    cgroup = open_made(root)
    try:
        with pytest.raises(OSError, match="does not watch") as caught:
            await cgroup.oom_changed()
        assert caught.value.errno == errno.ENOTSUP
        assert (cgroup.oom_kills(), cgroup.pids()) == (0, [42, 43])
    finally:
        cgroup.close()


async def test_closed_it_says_nothing(cgroup):
    """Only that it is closed."""
    cgroup.close()

    assert cgroup.pids() == []
    assert not cgroup.stats().HasField("memory")
    with pytest.raises(OSError, match="closed") as caught:
        await cgroup.oom_changed()
    assert caught.value.errno == errno.EBADF
