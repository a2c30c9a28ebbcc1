"""The text of v2 cgroup files becomes the message that containerd's clients expect.

The texts follow the kernel's document of cgroup v2.
"""

from __future__ import annotations

from trioshim.linux._metrics_text import UINT64_MAX
from trioshim.linux._metrics_v2 import metrics_v2
from trioshim.proto import cgroups_v2_pb2 as v2

V2_FILES = {
    "cpu.stat": """\
usage_usec 1200
user_usec 700
system_usec 500
nice_usec 0
core_sched.force_idle_usec 0
nr_periods 5
nr_throttled 4
throttled_usec 3
nr_bursts 2
burst_usec 1
""",
    "cpu.pressure": """\
some avg10=1.50 avg60=0.25 avg300=0.10 total=12345
full avg10=0.50 avg60=0.00 avg300=0.00 total=678
""",
    "memory.stat": "anon 1\nfile 2\nkernel 99\nshmem 6\nslab 4\npgfault 18\nzswpin 3\n",
    "memory.current": "4096\n",
    "memory.max": "max\n",
    "memory.peak": "8192\n",
    "memory.swap.current": "0\n",
    "memory.swap.max": "1048576\n",
    "memory.swap.peak": "77\n",
    "memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
    "memory.events": "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\nother 9\n",
    "pids.current": "3\n",
    "pids.max": "max\n",
    "io.stat": """\
8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0
8:0 rbytes=90430464 wbytes=299008000 rios=8950 wios=1252 dbytes=50331648 dios=3021
""",
    "io.pressure": "full avg10=0.00 avg60=0.00 avg300=0.00 total=9\n",
}


def test_v2_cpu_with_bursts_and_pressure():
    """Known keys are taken, unknown ones left out."""
    assert metrics_v2(V2_FILES.get).cpu == v2.CPUStat(
        usage_usec=1200,
        user_usec=700,
        system_usec=500,
        nr_periods=5,
        nr_throttled=4,
        throttled_usec=3,
        nr_bursts=2,
        burst_usec=1,
        psi=v2.PSIStats(
            some=v2.PSIData(avg10=1.5, avg60=0.25, avg300=0.1, total=12345),
            full=v2.PSIData(avg10=0.5, total=678),
        ),
    )


def test_v2_memory_without_a_limit_is_the_highest_number():
    """ "max" becomes 2^64 - 1, and keys of memory.stat never reach the fields beside them."""
    assert metrics_v2(V2_FILES.get).memory == v2.MemoryStat(
        anon=1,
        file=2,
        shmem=6,
        slab=4,
        pgfault=18,
        usage=4096,
        usage_limit=UINT64_MAX,
        max_usage=8192,
        swap_limit=1048576,
        swap_max_usage=77,
        psi=v2.PSIStats(some=v2.PSIData(total=5)),
    )


def test_v2_memory_events():
    """All six counters, and not those that came later."""
    assert metrics_v2(V2_FILES.get).memory_events == v2.MemoryEvents(
        low=1, high=2, max=3, oom=4, oom_kill=5, oom_group_kill=6
    )


def test_v2_pids_without_a_limit_is_the_highest_number():
    """Unlike v1, where it is 0."""
    assert metrics_v2(V2_FILES.get).pids == v2.PidsStat(current=3, limit=UINT64_MAX)


def test_v2_io_devices():
    """One entry for each device, discards left out."""
    entry = v2.IOEntry
    assert metrics_v2(V2_FILES.get).io == v2.IOStat(
        usage=[
            entry(major=8, minor=16, rbytes=1459200, wbytes=314773504, rios=192, wios=353),
            entry(major=8, minor=0, rbytes=90430464, wbytes=299008000, rios=8950, wios=1252),
        ],
        psi=v2.PSIStats(full=v2.PSIData(total=9)),
    )


def test_v2_io_devices_without_counters_share_a_line():
    """A device without numbers does not spoil its neighbour (containerd#3951)."""
    files = {"io.stat": "7:0 7:1 8:0 rbytes=1 wbytes=2 rios=3 wios=4 cost.usage=5\n253:0 \n\n"}

    assert list(metrics_v2(files.get).io.usage) == [
        v2.IOEntry(major=8, minor=0, rbytes=1, wbytes=2, rios=3, wios=4)
    ]


def test_v2_of_no_files_has_its_five_parts_empty():
    """Clients read these without a check; `memory_events` is only there if it is counted."""
    metrics = metrics_v2({}.get)

    assert metrics == v2.Metrics(
        pids=v2.PidsStat(),
        cpu=v2.CPUStat(),
        memory=v2.MemoryStat(),
        io=v2.IOStat(),
        rdma=v2.RdmaStat(),
    )
    assert [field.name for field, _ in metrics.ListFields()] == [
        "pids",
        "cpu",
        "memory",
        "rdma",
        "io",
    ]


def test_v2_huge_pages_and_rdma():
    """Failures are the "max" of the events file."""
    files = {
        "hugetlb.1GB.current": "0\n",
        "hugetlb.1GB.max": "max\n",
        "hugetlb.1GB.events": "max 4\n",
        "rdma.current": "mlx5_1 hca_handle=0 hca_object=1\n",
    }
    metrics = metrics_v2(files.get, ["1GB"])

    assert list(metrics.hugetlb) == [v2.HugeTlbStat(max=UINT64_MAX, pagesize="1GB", failcnt=4)]
    assert metrics.rdma == v2.RdmaStat(current=[v2.RdmaEntry(device="mlx5_1", hca_objects=1)])
