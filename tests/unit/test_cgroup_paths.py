"""Which directories are a process's cgroup: from the text of procfs alone."""

from __future__ import annotations

import pytest

from trioshim.linux._cgroup import (
    CgroupMount,
    _is_exiting,
    cgroup_mounts,
    controller_directories,
    listing_order,
    unified_directory,
)

HYBRID = """\
23 1 254:0 / / rw,relatime - ext4 /dev/root rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
""".splitlines(keepends=True)

MEMBER = """\
9:name=systemd:/kube/c1
8:pids:/kube/c1
4:memory:/kube/c1
2:cpu,cpuacct:/kube/c1
0::/
"""


def test_each_controller_has_its_hierarchys_directory():
    """Controllers that are mounted together share one; a named hierarchy has its name."""
    assert controller_directories(MEMBER, list(cgroup_mounts(HYBRID))) == {
        "name=systemd": "/sys/fs/cgroup/systemd/kube/c1",
        "pids": "/sys/fs/cgroup/pids/kube/c1",
        "memory": "/sys/fs/cgroup/memory/kube/c1",
        "cpu": "/sys/fs/cgroup/cpu,cpuacct/kube/c1",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/kube/c1",
    }


def test_a_controller_that_is_not_mounted_is_left_out():
    """The others are still found."""
    text = "5:rdma:/c1\n4:memory:/c1\n"

    assert list(controller_directories(text, list(cgroup_mounts(HYBRID)))) == ["memory"]


@pytest.mark.parametrize(
    ("root", "path", "directory"),
    [
        ("/", "/", "/m"),
        ("/", "/a/b", "/m/a/b"),
        ("/docker/x", "/docker/x", "/m"),
        ("/docker/x", "/docker/x/c1", "/m/c1"),
        ("/docker/x", "/docker/xy", None),
        ("/docker/x", "/", None),
        ("/", "/../c1", None),
        ("/..", "/../c1", "/m/c1"),
    ],
)
def test_paths_are_relative_to_the_mounts_root(root, path, directory):
    """A mount that begins further down the hierarchy shows what is below, and nothing else."""
    mount = CgroupMount(unified=True, root=root, point="/m", controllers=frozenset())

    assert mount.directory(path) == directory


def test_mount_points_with_a_blank_are_understood():
    """The mount table writes it as an octal number; a mount may have no source."""
    (mount,) = cgroup_mounts(["35 31 0:32 /a\\040b /my\\040groups rw - cgroup  rw,memory\n"])

    assert (mount.root, mount.point) == ("/a b", "/my groups")
    assert "memory" in mount.controllers


def test_the_unified_line_is_the_one_without_controllers():
    """On v2 the directory is below the one mount."""
    mount = CgroupMount(unified=True, root="/", point="/sys/fs/cgroup", controllers=frozenset())

    assert unified_directory(MEMBER + "0::/u/c1\n", mount) == "/sys/fs/cgroup"
    assert unified_directory("0::/u/c1\n", mount) == "/sys/fs/cgroup/u/c1"
    with pytest.raises(FileNotFoundError):
        unified_directory("4:memory:/c1\n", mount)


def test_a_hierarchy_with_the_process_at_its_top_is_asked_last():
    """There the list would be that of the whole host."""
    directories = {
        "pids": "/sys/fs/cgroup/pids",
        "cpu": "/sys/fs/cgroup/cpu/c1",
        "memory": "/sys/fs/cgroup/memory/c1",
    }
    mounts = list(cgroup_mounts(HYBRID))

    assert listing_order(directories, mounts) == [
        "/sys/fs/cgroup/memory/c1",
        "/sys/fs/cgroup/cpu/c1",
        "/sys/fs/cgroup/pids",
    ]


@pytest.mark.parametrize(("flags", "exiting"), [(0x400100, False), (0x400104, True)])
def test_an_exiting_process_is_known_by_its_flags(flags, exiting):
    """Whatever its name looks like."""
    stat = f"42 (a) b (c) R 1 42 42 0 -1 {flags} 91 0 0 0"

    assert _is_exiting(stat) is exiting
