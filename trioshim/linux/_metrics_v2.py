"""The files of a v2 cgroup as `io.containerd.cgroups.v2.Metrics`.  Pure.

Rules, those of containerd's own shim: `pids`, `cpu`, `memory`, `io` and `rdma` are always there,
empty if the controller is not enabled; `memory_events` only if the kernel counts them; "max" is
2^64 - 1 (2^32 - 1 for rdma).  Fields that an older containerd does not know are filled all the
same: it skips them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..proto.cgroups_v2_pb2 import Metrics
from ._metrics_text import number, pairs, rdma_devices, set_counters

if TYPE_CHECKING:
    from ..proto.cgroups_v2_pb2 import IOStat, PSIData, PSIStats
    from ._metrics_text import Read

_IO_KEYS = ("rbytes", "wbytes", "rios", "wios")


def metrics_v2(read: Read, page_sizes: Iterable[str] = ()) -> Metrics:
    """Everything that the files say.

    Args:
        read: a file of the cgroup.
        page_sizes: the sizes of huge pages that the cgroup counts, like "2MB".
    """
    metrics = Metrics()
    metrics.pids.SetInParent()
    metrics.pids.current = number(read("pids.current"))
    metrics.pids.limit = number(read("pids.max"))
    _cpu(metrics, read)
    _memory(metrics, read)
    metrics.io.SetInParent()
    _io(metrics.io, read("io.stat"))
    _pressure(metrics.io.psi, read("io.pressure"))
    _rdma(metrics, read)
    _hugetlb(metrics, read, page_sizes)
    return metrics


def _cpu(metrics: Metrics, read: Read) -> None:
    metrics.cpu.SetInParent()
    set_counters(metrics.cpu, pairs(read("cpu.stat")))
    _pressure(metrics.cpu.psi, read("cpu.pressure"))


def _memory(metrics: Metrics, read: Read) -> None:
    memory = metrics.memory
    memory.SetInParent()
    set_counters(memory, pairs(read("memory.stat")))
    memory.usage = number(read("memory.current"))
    memory.usage_limit = number(read("memory.max"))
    memory.max_usage = number(read("memory.peak"))
    memory.swap_usage = number(read("memory.swap.current"))
    memory.swap_limit = number(read("memory.swap.max"))
    memory.swap_max_usage = number(read("memory.swap.peak"))
    _pressure(memory.psi, read("memory.pressure"))
    events = list(pairs(read("memory.events")))
    if events:
        metrics.memory_events.SetInParent()
        set_counters(metrics.memory_events, events)


def _pressure(psi: PSIStats, text: str | None) -> None:
    """Lines "some avg10=0.00 avg60=0.00 avg300=0.00 total=0", and the same with "full"."""
    for line in (text or "").splitlines():
        match line.split():
            case ["some", *words]:
                _pressure_line(psi.some, words)
            case ["full", *words]:
                _pressure_line(psi.full, words)


def _pressure_line(data: PSIData, words: Iterable[str]) -> None:
    data.SetInParent()
    values = dict(word.partition("=")[::2] for word in words)
    data.avg10 = _decimal(values.get("avg10"))
    data.avg60 = _decimal(values.get("avg60"))
    data.avg300 = _decimal(values.get("avg300"))
    data.total = number(values.get("total"))


def _decimal(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def _io(io: IOStat, text: str | None) -> None:
    """Lines "8:0 rbytes=0 wbytes=0 rios=0 wios=0 ..."; devices without a counter are left out."""
    for line in (text or "").splitlines():
        numbers, counters = "", dict[str, int]()
        # Some kernels print a device that has no counters without ending its line, so the
        # last "major:minor" is the one that the counters belong to (containerd#3951).
        for word in line.split():
            key, equals, value = word.partition("=")
            if not equals:
                numbers = word
            elif key in _IO_KEYS:
                counters[key] = number(value)
        major, colon, minor = numbers.partition(":")
        if colon and counters:
            io.usage.add(major=number(major), minor=number(minor), **counters)


def _rdma(metrics: Metrics, read: Read) -> None:
    metrics.rdma.SetInParent()
    for name, entries in (
        ("rdma.current", metrics.rdma.current),
        ("rdma.max", metrics.rdma.limit),
    ):
        for device, handles, objects in rdma_devices(read(name)):
            entries.add(device=device, hca_handles=handles, hca_objects=objects)


def _hugetlb(metrics: Metrics, read: Read, page_sizes: Iterable[str]) -> None:
    for size in page_sizes:
        events = dict(pairs(read(f"hugetlb.{size}.events")))
        metrics.hugetlb.add(
            pagesize=size,
            current=number(read(f"hugetlb.{size}.current")),
            max=number(read(f"hugetlb.{size}.max")),
            failcnt=events.get("max", 0),
        )
