"""The files of a v1 cgroup as `io.containerd.cgroups.v1.Metrics`.  Pure.

Rules, those of containerd's own shim: `cpu`, `cpu.usage` and `cpu.throttling` are always there;
every other part only if its file is; a pids limit of "max" is 0; ticks of cpuacct are 1/100 s.
File names carry their controller ("memory.stat"), so one `read` serves all hierarchies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ..proto.cgroups_v1_pb2 import Metrics
from ._metrics_text import number, pairs, rdma_devices, set_counters

if TYPE_CHECKING:
    from ..proto.cgroups_v1_pb2 import BlkIOStat, MemoryEntry
    from ._metrics_text import Read

_NS_PER_TICK = 1_000_000_000 // 100

_FIELD_OF_KEY = {
    "pgpgin": "pg_pg_in",
    "pgpgout": "pg_pg_out",
    "pgfault": "pg_fault",
    "pgmajfault": "pg_maj_fault",
    "hierarchical_memsw_limit": "hierarchical_swap_limit",
}

_CFQ = (
    ("io_service_bytes_recursive", "io_service_bytes_recursive"),
    ("io_serviced_recursive", "io_serviced_recursive"),
    ("io_queued_recursive", "io_queued_recursive"),
    ("io_service_time_recursive", "io_service_time_recursive"),
    ("io_wait_time_recursive", "io_wait_time_recursive"),
    ("io_merged_recursive", "io_merged_recursive"),
    ("io_time_recursive", "time_recursive"),
    ("sectors_recursive", "sectors_recursive"),
)
# Without the CFQ scheduler (gone since Linux 5.0) only the throttling layer counts.
_THROTTLE = (
    ("io_service_bytes_recursive", "throttle.io_service_bytes"),
    ("io_serviced_recursive", "throttle.io_serviced"),
)


def metrics_v1(read: Read, page_sizes: Iterable[str] = ()) -> Metrics:
    """Everything that the files say.

    Args:
        read: a file of the cgroup, whatever its hierarchy; also "partitions", as in /proc.
        page_sizes: the sizes of huge pages that the cgroup counts, like "2MB".
    """
    metrics = Metrics()
    _cpu(metrics, read)
    _memory(metrics, read)
    _pids(metrics, read)
    _blkio(metrics, read)
    _rdma(metrics, read)
    _hugetlb(metrics, read, page_sizes)
    return metrics


def _cpu(metrics: Metrics, read: Read) -> None:
    usage, throttling = metrics.cpu.usage, metrics.cpu.throttling
    usage.SetInParent()
    throttling.SetInParent()
    usage.total = number(read("cpuacct.usage"))
    usage.per_cpu.extend(number(word) for word in (read("cpuacct.usage_percpu") or "").split())
    ticks = dict(pairs(read("cpuacct.stat")))
    usage.user = ticks.get("user", 0) * _NS_PER_TICK
    usage.kernel = ticks.get("system", 0) * _NS_PER_TICK
    stat = dict(pairs(read("cpu.stat")))
    throttling.periods = stat.get("nr_periods", 0)
    throttling.throttled_periods = stat.get("nr_throttled", 0)
    throttling.throttled_time = stat.get("throttled_time", 0)


def _memory(metrics: Metrics, read: Read) -> None:
    control = read("memory.oom_control")
    if control is not None:
        metrics.memory_oom_control.SetInParent()
        set_counters(metrics.memory_oom_control, pairs(control))
    stat = read("memory.stat")
    if stat is None:
        return
    memory = metrics.memory
    memory.SetInParent()
    set_counters(memory, ((_memory_field(key), value) for key, value in pairs(stat)))
    _memory_entry(memory.usage, read, "memory")
    _memory_entry(memory.swap, read, "memory.memsw")
    _memory_entry(memory.kernel, read, "memory.kmem")
    _memory_entry(memory.kernel_tcp, read, "memory.kmem.tcp")


def _memory_field(key: str) -> str:
    if key.startswith("total_"):
        return "total_" + _memory_field(key.removeprefix("total_"))
    return _FIELD_OF_KEY.get(key, key)


def _memory_entry(entry: MemoryEntry, read: Read, prefix: str) -> None:
    # Present even if the kernel does not count it: readers of the Go shim's answer rely on that.
    entry.SetInParent()
    entry.limit = number(read(f"{prefix}.limit_in_bytes"))
    entry.usage = number(read(f"{prefix}.usage_in_bytes"))
    entry.max = number(read(f"{prefix}.max_usage_in_bytes"))
    entry.failcnt = number(read(f"{prefix}.failcnt"))


def _pids(metrics: Metrics, read: Read) -> None:
    current = read("pids.current")
    if current is not None:
        metrics.pids.current = number(current)
        metrics.pids.limit = number(read("pids.max"), max_is=0)
        metrics.pids.SetInParent()


def _blkio(metrics: Metrics, read: Read) -> None:
    stat = metrics.blkio
    seen = _blkio_entries(stat, read, _CFQ)
    if not stat.ListFields():
        seen |= _blkio_entries(stat, read, _THROTTLE)
    if not seen:
        metrics.ClearField("blkio")
    elif stat.ListFields():
        _name_devices(stat, _devices(read("partitions")))
    else:
        stat.SetInParent()


def _blkio_entries(stat: BlkIOStat, read: Read, names: Iterable[tuple[str, str]]) -> bool:
    """Add the entries of these files; whether any of the files is there."""
    seen = False
    for field, name in names:
        text = read(f"blkio.{name}")
        seen |= text is not None
        for line in (text or "").splitlines():
            match line.replace(":", " ").split():  # "8:0 Read 1", "8:0 1"; the last is "Total 1"
                case [major, minor, *op, value] if major.isdecimal():
                    getattr(stat, field).add(
                        op="".join(op),
                        major=number(major),
                        minor=number(minor),
                        value=number(value),
                    )
    return seen


def _devices(partitions: str | None) -> Mapping[tuple[int, int], str]:
    """ "major minor #blocks name" lines as device numbers to "/dev/name"."""
    rows = (line.split() for line in (partitions or "").splitlines())
    return {
        (int(row[0]), int(row[1])): f"/dev/{row[3]}"
        for row in rows
        if len(row) == 4 and row[0].isdecimal() and row[1].isdecimal()
    }


def _name_devices(stat: BlkIOStat, devices: Mapping[tuple[int, int], str]) -> None:
    for _, entries in stat.ListFields():
        for entry in entries:
            entry.device = devices.get((entry.major, entry.minor), "")


def _rdma(metrics: Metrics, read: Read) -> None:
    for name, entries in (
        ("rdma.current", metrics.rdma.current),
        ("rdma.max", metrics.rdma.limit),
    ):
        for device, handles, objects in rdma_devices(read(name)):
            entries.add(device=device, hca_handles=handles, hca_objects=objects)
    if not metrics.rdma.ListFields():
        metrics.ClearField("rdma")


def _hugetlb(metrics: Metrics, read: Read, page_sizes: Iterable[str]) -> None:
    for size in page_sizes:
        metrics.hugetlb.add(
            pagesize=size,
            usage=number(read(f"hugetlb.{size}.usage_in_bytes")),
            max=number(read(f"hugetlb.{size}.max_usage_in_bytes")),
            failcnt=number(read(f"hugetlb.{size}.failcnt")),
        )
