"""The text of cgroup files becomes the message that containerd's clients expect.

The texts are those of a busy v1 cgroup on Linux 6.18; `test_metrics_v2.py` has v2.
"""

from __future__ import annotations

import pytest

from trioshim.linux._metrics_text import UINT32_MAX, UINT64_MAX, number, page_sizes, pairs
from trioshim.linux._metrics_v1 import metrics_v1
from trioshim.linux._metrics_v2 import metrics_v2
from trioshim.proto import cgroups_v1_pb2 as v1

V1_FILES = {
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 1\noom_kill 3\n",
    "memory.stat": """\
cache 696320
rss 823296
rss_huge 2097152
shmem 0
mapped_file 155648
dirty 12288
writeback 4096
workingset_refault_anon 0
workingset_refault_file 136
swap 0
swapcached 0
pgpgin 3369
pgpgout 2998
pgfault 3587
pgmajfault 6
inactive_anon 815104
active_anon 8192
inactive_file 167936
active_file 528384
unevictable 1
hierarchical_memory_limit 67108864
hierarchical_memsw_limit 9223372036854771712
total_cache 1696320
total_rss 1823296
total_rss_huge 12097152
total_shmem 0
total_mapped_file 1155648
total_dirty 112288
total_writeback 14096
total_workingset_refault_anon 0
total_workingset_refault_file 136
total_swap 0
total_swapcached 0
total_pgpgin 13369
total_pgpgout 12998
total_pgfault 13587
total_pgmajfault 16
total_inactive_anon 1815104
total_active_anon 18192
total_inactive_file 1167936
total_active_file 1528384
total_unevictable 11
""",
    "memory.limit_in_bytes": "67108864\n",
    "memory.usage_in_bytes": "1867776\n",
    "memory.max_usage_in_bytes": "11239424\n",
    "memory.failcnt": "7\n",
    "memory.memsw.limit_in_bytes": "9223372036854771712\n",
    "memory.memsw.usage_in_bytes": "1867777\n",
    "memory.memsw.max_usage_in_bytes": "11239425\n",
    "memory.memsw.failcnt": "8\n",
    "memory.kmem.limit_in_bytes": "9223372036854771712\n",
    "memory.kmem.usage_in_bytes": "188416\n",
    "memory.kmem.max_usage_in_bytes": "655360\n",
    "memory.kmem.failcnt": "9\n",
    "memory.kmem.tcp.limit_in_bytes": "9223372036854771712\n",
    "memory.kmem.tcp.usage_in_bytes": "10\n",
    "memory.kmem.tcp.max_usage_in_bytes": "11\n",
    "memory.kmem.tcp.failcnt": "12\n",
    "cpuacct.usage": "32614987\n",
    "cpuacct.usage_percpu": "13688589 18926398 \n",
    "cpuacct.stat": "user 1\nsystem 2\n",
    "cpu.stat": (
        "nr_periods 3\nnr_throttled 1\nthrottled_time 39553506\nnr_bursts 0\nburst_time 0\n"
    ),
    "pids.current": "2\n",
    "pids.max": "64\n",
}

NO_LIMIT = 9223372036854771712


def test_v1_cpu_is_in_nanoseconds():
    """Ticks of 1/100 s become nanoseconds; what is nanoseconds stays."""
    cpu = metrics_v1(V1_FILES.get).cpu

    assert cpu == v1.CPUStat(
        usage=v1.CPUUsage(
            total=32614987, user=10_000_000, kernel=20_000_000, per_cpu=[13688589, 18926398]
        ),
        throttling=v1.Throttle(periods=3, throttled_periods=1, throttled_time=39553506),
    )


def test_v1_memory_counters_have_the_kernels_names():
    """Each key of memory.stat reaches its field, also those that are spelled differently."""
    memory = metrics_v1(V1_FILES.get).memory

    for entry in ("usage", "swap", "kernel", "kernel_tcp"):
        memory.ClearField(entry)
    assert memory == v1.MemoryStat(
        cache=696320,
        rss=823296,
        rss_huge=2097152,
        mapped_file=155648,
        dirty=12288,
        writeback=4096,
        pg_pg_in=3369,
        pg_pg_out=2998,
        pg_fault=3587,
        pg_maj_fault=6,
        inactive_anon=815104,
        active_anon=8192,
        inactive_file=167936,
        active_file=528384,
        unevictable=1,
        hierarchical_memory_limit=67108864,
        hierarchical_swap_limit=NO_LIMIT,
        total_cache=1696320,
        total_rss=1823296,
        total_rss_huge=12097152,
        total_mapped_file=1155648,
        total_dirty=112288,
        total_writeback=14096,
        total_pg_pg_in=13369,
        total_pg_pg_out=12998,
        total_pg_fault=13587,
        total_pg_maj_fault=16,
        total_inactive_anon=1815104,
        total_active_anon=18192,
        total_inactive_file=1167936,
        total_active_file=1528384,
        total_unevictable=11,
    )


def test_v1_memory_has_its_four_accounts():
    """Memory, swap, kernel and TCP each have limit, usage, highest usage and failures."""
    memory = metrics_v1(V1_FILES.get).memory
    entry = v1.MemoryEntry

    assert memory.usage == entry(limit=67108864, usage=1867776, max=11239424, failcnt=7)
    assert memory.swap == entry(limit=NO_LIMIT, usage=1867777, max=11239425, failcnt=8)
    assert memory.kernel == entry(limit=NO_LIMIT, usage=188416, max=655360, failcnt=9)
    assert memory.kernel_tcp == entry(limit=NO_LIMIT, usage=10, max=11, failcnt=12)


def test_v1_says_what_the_oom_killer_did():
    """memory.oom_control is reported as it is."""
    expected = v1.MemoryOomControl(oom_kill_disable=0, under_oom=1, oom_kill=3)

    assert metrics_v1(V1_FILES.get).memory_oom_control == expected


@pytest.mark.parametrize(("text", "limit"), [("64\n", 64), ("max\n", 0)])
def test_v1_pids_without_a_limit_is_zero(text, limit):
    """Clients of v1 read a limit of 0 as "none"."""
    pids = metrics_v1({**V1_FILES, "pids.max": text}.get).pids

    assert pids == v1.PidsStat(current=2, limit=limit)


def test_v1_of_no_files_has_an_empty_cpu_only():
    """After the cgroup's end the answer is a message, and `cpu` can be read without a check."""
    metrics = metrics_v1({}.get)

    assert metrics == v1.Metrics(
        cpu=v1.CPUStat(usage=v1.CPUUsage(), throttling=v1.Throttle()),
    )
    assert metrics.cpu.HasField("usage")
    assert metrics.cpu.HasField("throttling")


def test_v1_blkio_of_the_cfq_scheduler():
    """Lines with and without an operation are understood; the total is left out."""
    files = {
        "blkio.io_service_bytes_recursive": "8:0 Read 10\n8:0 Write 20\nTotal 30\n",
        "blkio.time_recursive": "8:0 44\n",
        "blkio.throttle.io_serviced": "8:0 Read 999\n",
        "partitions": "major minor  #blocks  name\n\n   8        0  268435456 sda\n",
    }

    entry = v1.BlkIOEntry
    assert metrics_v1(files.get).blkio == v1.BlkIOStat(
        io_service_bytes_recursive=[
            entry(op="Read", device="/dev/sda", major=8, minor=0, value=10),
            entry(op="Write", device="/dev/sda", major=8, minor=0, value=20),
        ],
        io_time_recursive=[entry(device="/dev/sda", major=8, minor=0, value=44)],
    )


def test_v1_blkio_falls_back_to_throttling():
    """Without CFQ entries the numbers come from blkio.throttle.*; a device may have no name."""
    files = {
        "blkio.io_serviced_recursive": "Total 0\n",
        "blkio.throttle.io_serviced": "253:7 Read 5\nTotal 5\n",
        "blkio.throttle.io_service_bytes": "253:7 Read 4096\nTotal 4096\n",
    }

    entry = v1.BlkIOEntry
    assert metrics_v1(files.get).blkio == v1.BlkIOStat(
        io_serviced_recursive=[entry(op="Read", major=253, minor=7, value=5)],
        io_service_bytes_recursive=[entry(op="Read", major=253, minor=7, value=4096)],
    )


def test_v1_blkio_without_traffic_is_there_and_empty():
    """The controller is enabled, so its part is present."""
    metrics = metrics_v1({"blkio.throttle.io_serviced": "Total 0\n"}.get)

    assert metrics.HasField("blkio")
    assert metrics.blkio == v1.BlkIOStat()


def test_v1_huge_pages_and_rdma():
    """Each page size and each device is an entry; rdma's "max" is the highest 32 bit number."""
    files = {
        "hugetlb.2MB.usage_in_bytes": "2097152\n",
        "hugetlb.2MB.max_usage_in_bytes": "4194304\n",
        "hugetlb.2MB.failcnt": "1\n",
        "rdma.current": "mlx4_0 hca_handle=2 hca_object=2000\n",
        "rdma.max": "mlx4_0 hca_handle=max hca_object=5000\n",
    }
    metrics = metrics_v1(files.get, ["2MB"])

    assert list(metrics.hugetlb) == [
        v1.HugetlbStat(usage=2097152, max=4194304, failcnt=1, pagesize="2MB")
    ]
    assert metrics.rdma == v1.RdmaStat(
        current=[v1.RdmaEntry(device="mlx4_0", hca_handles=2, hca_objects=2000)],
        limit=[v1.RdmaEntry(device="mlx4_0", hca_handles=UINT32_MAX, hca_objects=5000)],
    )


@pytest.mark.parametrize("parse", [metrics_v1, metrics_v2])
@pytest.mark.parametrize("junk", ["", "\n\n", "a", "a b c d e\n", "8:0\n", "some\n= =\n", "é -1\n"])
def test_junk_in_every_file_is_no_error(parse, junk):
    """Whatever a kernel writes, `stats` answers."""
    parse(lambda _: junk, ["2MB"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12\n", 12),
        ("max\n", UINT64_MAX),
        ("-1\n", 0),
        ("18446744073709551616\n", UINT64_MAX),
        ("x", 0),
        ("", 0),
        (None, 0),
    ],
)
def test_numbers_fit_their_field(text, value):
    """No text makes a number that a uint64 cannot hold."""
    assert number(text) == value


def test_pairs_leave_out_what_is_no_pair():
    """Lines of one or three words, and values that are no numbers."""
    assert list(pairs("a 1\nb\nc 2 3\nd x\ne 4")) == [("a", 1), ("e", 4)]


def test_page_sizes_are_listed_once():
    """From the names of the files in the directory."""
    names = ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max", "hugetlb.1GB.max", "memory.max"]

    assert page_sizes(names) == ["1GB", "2MB"]
