"""What is read from /proc/self/mountinfo: the layers of a bundle, and where the cgroups are."""

from __future__ import annotations

from trioshim._mountinfo import cgroup_roots, mounts_below

MOUNTINFO = rb"""22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:26 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw
31 22 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
40 22 0:40 / /b/rootfs rw - overlay overlay rw
41 40 0:41 / /b/rootfs/a\040b rw master:1 - tmpfs tmpfs rw
42 22 0:42 / /b/rootfs rw - tmpfs tmpfs rw
43 42 0:43 / /b/rootfs/c rw - tmpfs tmpfs rw
44 22 0:44 / /b/rootfs2 rw - tmpfs tmpfs rw
"""


def test_mounts_are_found_layer_by_layer() -> None:
    """The last mounted first, each layer once, and no neighbour with a longer name."""
    expected = ["/b/rootfs/c", "/b/rootfs", "/b/rootfs/a b", "/b/rootfs"]
    assert mounts_below(MOUNTINFO, "/b/rootfs") == expected


def test_a_hybrid_host_has_cgroups_of_version_1() -> None:
    """The unified hierarchy of such a host controls nothing."""
    assert cgroup_roots(MOUNTINFO) == (["/sys/fs/cgroup/memory"], True)
    unified = b"30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    assert cgroup_roots(unified) == (["/sys/fs/cgroup"], False)
