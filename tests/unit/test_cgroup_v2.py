"""A v2 cgroup on directories that we made: what is read, when it wakes, what it leaves behind.

Files on an ordinary file system tell no changes, so here the cgroup looks once a second (of the
virtual clock); `tests/contract/test_cgroup.py` is about the kernel's own notices.
"""

from __future__ import annotations

import errno
import os

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioshim.linux._cgroup import open_cgroup
from trioshim.linux._cgroup_files import Notice, read_open
from trioshim.proto import cgroups_v2_pb2 as v2

from .fds import no_fd_left, open_fds


@pytest.fixture
def root(tmp_path):
    """The cgroup /pod/c1 with process 42, below a mount of the whole hierarchy."""
    group = tmp_path / "groups/pod/c1"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/42").mkdir()
    table = f"1 0 0:1 / {tmp_path}/groups rw - cgroup2 cgroup2 rw\n"
    (tmp_path / "proc/self/mountinfo").write_text(table)
    (tmp_path / "proc/42/cgroup").write_text("0::/pod/c1\n")
    (group / "memory.events").write_text("low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n")
    (group / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    (group / "cgroup.procs").write_text("42\n")
    return tmp_path


@pytest.fixture
def group(root):
    """The directory of the cgroup."""
    return root / "groups/pod/c1"


def open_made(root):
    return open_cgroup(42, proc=f"{root}/proc", mount_root=f"{root}/groups")


@pytest.fixture
def cgroup(root):
    """The cgroup, open."""
    opened = open_made(root)
    yield opened
    opened.close()


def killed(group, count, *, oom=0):
    (group / "memory.events").write_text(f"low 0\nhigh 9\nmax 9\noom {oom}\noom_kill {count}\n")


def test_stats_are_those_of_the_directory(cgroup, group):
    """One message, of what is there now."""
    (group / "memory.current").write_text("4096\n")
    (group / "pids.max").write_text("7\n")

    stats = cgroup.stats()

    assert isinstance(stats, v2.Metrics)
    assert (stats.memory.usage, stats.pids.limit) == (4096, 7)


def test_huge_pages_are_found_by_their_files(root, group):
    """Whatever sizes the machine has."""
    (group / "hugetlb.2MB.current").write_text("2097152\n")
    cgroup = open_made(root)
    try:
        assert list(cgroup.stats().hugetlb) == [v2.HugeTlbStat(current=2097152, pagesize="2MB")]
    finally:
        cgroup.close()


def test_pids_are_those_in_it_and_below(cgroup, group):
    """Ascending, each once, without those that our namespace does not show."""
    (group / "a/b").mkdir(parents=True)
    (group / "cgroup.procs").write_text("100\n9\n0\n")
    (group / "a/cgroup.procs").write_text("")
    (group / "a/b/cgroup.procs").write_text("77\n9\n")

    assert cgroup.pids() == [9, 77, 100]


def test_pids_of_deep_cgroups_are_found(cgroup, group):
    """The container decides how deep; we neither recurse nor hold an fd for each."""
    deep = group.joinpath(*["d"] * 300)
    deep.mkdir(parents=True)
    (deep / "cgroup.procs").write_text("5\n")

    with no_fd_left(but=2):
        assert cgroup.pids() == [5, 42]


def test_pids_of_a_cgroup_that_is_gone_are_none(cgroup, group):
    """Gone is an answer: there are no processes."""
    (group / "cgroup.procs").unlink()

    assert cgroup.pids() == []


def test_pids_without_a_free_fd_is_an_error(cgroup):
    """To say "none" would make the daemon drop a live container (containerd#13784)."""
    with no_fd_left(), pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        cgroup.pids()


def test_stats_without_a_free_fd_is_an_error(cgroup):
    """Zeros would be a wrong answer."""
    with no_fd_left(), pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        cgroup.stats()


def test_oom_kills_needs_no_free_fd(cgroup, group):
    """The last look before the exit event must not depend on luck."""
    killed(group, 2)

    with no_fd_left():
        assert cgroup.oom_kills() == 2


def test_oom_kills_never_goes_down(cgroup, group):
    """What was seen stays true when the file says nothing any more, and after `close`."""
    killed(group, 2)
    assert cgroup.oom_kills() == 2

    (group / "memory.events").write_text("")
    assert cgroup.oom_kills() == 2

    cgroup.close()
    assert cgroup.oom_kills() == 2


async def test_a_kill_before_the_first_wait_is_not_missed(cgroup, group):
    """Between opening and watching nothing is lost."""
    killed(group, 1)

    await cgroup.oom_changed()

    assert cgroup.oom_kills() == 1


async def test_each_kill_wakes_once(cgroup, group, autojump_clock):
    """After a kill was told, only another one ends the wait."""
    told = []
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def watch():
            while True:
                await cgroup.oom_changed()
                told.append(cgroup.oom_kills())

        for count in (1, 3):
            await trio.sleep(10)
            killed(group, count)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()

    assert told == [1, 3]


async def test_running_out_of_memory_without_a_kill_is_no_news(cgroup, group, autojump_clock):
    """`oom` is charged to the cgroup with the limit, `oom_kill` where it hit (containerd#6323)."""
    killed(group, 0, oom=5)

    with trio.move_on_after(60) as scope:
        await cgroup.oom_changed()

    assert scope.cancelled_caught
    assert cgroup.oom_kills() == 0


async def test_the_watch_ends_with_the_last_process(cgroup, group, autojump_clock):
    """A cgroup that is empty has no more kills."""
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def watch():
            with pytest.raises(OSError, match="no process") as caught:
                await cgroup.oom_changed()
            assert caught.value.errno == errno.ENODEV

        await wait_all_tasks_blocked()
        (group / "cgroup.events").write_text("populated 0\nfrozen 0\n")


async def test_the_kill_that_emptied_it_is_told_first(cgroup, group):
    """OOM before the end, or never."""
    killed(group, 1)
    (group / "cgroup.events").write_text("populated 0\nfrozen 0\n")

    await cgroup.oom_changed()
    assert cgroup.oom_kills() == 1

    with pytest.raises(OSError, match="no process"):
        await cgroup.oom_changed()


async def test_without_a_memory_controller_there_is_no_watch(root, group):
    """The watcher is told so, and the rest works."""
    (group / "memory.events").unlink()
    cgroup = open_made(root)
    try:
        with pytest.raises(OSError, match="no memory controller") as caught:
            await cgroup.oom_changed()
        assert caught.value.errno == errno.ENOTSUP
        assert (cgroup.oom_kills(), cgroup.pids()) == (0, [42])
    finally:
        cgroup.close()


async def test_closing_ends_the_watch_with_an_error(cgroup, autojump_clock):
    """Nobody waits for ever, and nothing reads an fd that is somebody else's by now."""
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def watch():
            with pytest.raises(OSError, match="closed") as caught:
                await cgroup.oom_changed()
            assert caught.value.errno == errno.EBADF

        await wait_all_tasks_blocked()
        cgroup.close()


def test_closed_it_says_nothing(cgroup):
    """Closing twice is no error; afterwards there is nothing to read."""
    cgroup.close()
    cgroup.close()

    assert cgroup.pids() == []
    assert not cgroup.stats().memory.ListFields()


def test_open_and_close_leave_no_fd(root):
    """All that was opened is closed."""
    before = open_fds()
    opened = open_made(root)
    assert len(open_fds()) > len(before)

    opened.close()

    assert open_fds() == before


@pytest.mark.parametrize("spare", range(1, 5))
def test_a_failure_half_way_leaves_no_fd(root, spare):
    """Whichever fd is the one that cannot be had."""
    before = open_fds()

    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)), no_fd_left(but=spare - 1):
        open_made(root)

    assert open_fds() == before


def test_a_cgroup_that_cannot_be_opened_is_an_error(root, group):
    """Its directory is gone although the process was there."""
    group.rename(root / "elsewhere")

    with pytest.raises(FileNotFoundError):
        open_made(root)


async def test_a_notice_can_be_closed_while_somebody_waits():
    """The waiting task gets an OSError, not trio's own error; with no waiter nothing happens."""
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    notice = Notice(fd)
    notice.closing()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def wait():
            with pytest.raises(OSError, match="closed"):
                await notice.wait()

        await wait_all_tasks_blocked()
        notice.closing()
    os.close(fd)


def test_long_files_are_read_whole(tmp_path):
    """Also when they are longer than one read."""
    (tmp_path / "long").write_text("1234567\n" * 20_000)
    fd = os.open(tmp_path / "long", os.O_RDONLY)
    try:
        assert len(read_open(fd)) == 160_000
        assert len(read_open(fd)) == 160_000
    finally:
        os.close(fd)
