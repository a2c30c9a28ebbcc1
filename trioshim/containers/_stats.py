"""What a cgroup counts, in one form for both versions.  Pure: a Stats reply in, numbers out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import InternalError
from ..proto import cgroups_v1_pb2, cgroups_v2_pb2

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any

__all__ = ["Stats", "read_stats"]

_NO_LIMIT = 1 << 60  # v1 says "none" as a number near 2**63


@dataclass(frozen=True, slots=True)
class Stats:
    """What the processes of a container use.

    Attributes:
        cpu_seconds: of all processors, since it was created.
        throttled_seconds: in which it wanted to run and had used up its share.
        memory: bytes, without the part of the page cache that is not in use.
        memory_limit: bytes; None: no limit.
        processes: tasks, which are processes and threads.
        processes_limit: None: no limit.
        metrics: everything: `io.containerd.cgroups.v1.Metrics`, or the v2 message.
    """

    cpu_seconds: float
    throttled_seconds: float
    memory: int
    memory_limit: int | None
    processes: int
    processes_limit: int | None
    metrics: cgroups_v1_pb2.Metrics | cgroups_v2_pb2.Metrics = field(repr=False, compare=False)


def read_stats(packed: Any) -> Stats:
    """The Stats of a reply.

    Raises:
        InternalError: it holds something that we do not know.
    """
    name = packed.type_url.rpartition("/")[2]
    if name == cgroups_v1_pb2.Metrics.DESCRIPTOR.full_name:
        return _v1(cgroups_v1_pb2.Metrics.FromString(packed.value))
    if name == cgroups_v2_pb2.Metrics.DESCRIPTOR.full_name:
        return _v2(cgroups_v2_pb2.Metrics.FromString(packed.value))
    raise InternalError(f"Stats answered a {name!r}, which is neither version of cgroup metrics")


def _v1(metrics: cgroups_v1_pb2.Metrics) -> Stats:
    memory = metrics.memory
    return Stats(
        cpu_seconds=metrics.cpu.usage.total / 1e9,
        throttled_seconds=metrics.cpu.throttling.throttled_time / 1e9,
        memory=max(memory.usage.usage - memory.total_inactive_file, 0),
        memory_limit=_limit(memory.usage.limit),
        processes=metrics.pids.current,
        processes_limit=_limit(metrics.pids.limit),
        metrics=metrics,
    )


def _v2(metrics: cgroups_v2_pb2.Metrics) -> Stats:
    memory = metrics.memory
    return Stats(
        cpu_seconds=metrics.cpu.usage_usec / 1e6,
        throttled_seconds=metrics.cpu.throttled_usec / 1e6,
        memory=max(memory.usage - memory.inactive_file, 0),
        memory_limit=_limit(memory.usage_limit),
        processes=metrics.pids.current,
        processes_limit=_limit(metrics.pids.limit),
        metrics=metrics,
    )


def _limit(value: int) -> int | None:
    return value if 0 < value < _NO_LIMIT else None
