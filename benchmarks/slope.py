"""How much memory a call leaves behind in our shim: nothing, or it would fill up one day.

    python -m benchmarks.slope [--calls N] [--limit BYTES]

A real shim with a running container (where none can be started: its wire and a constant answer)
gets N calls of each kind, 64 in flight, from one client: one that its reader answers, one that
has a task, one that outlives its caller.  The first half is to warm up; what it has grown by in the
second half, divided by the calls, is the slope.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from trioshim.proto import task_v2_pb2 as api

from . import _shims
from ._clients import TtrpcClient
from ._servers import Kind, open_server

__all__ = ["Slope", "measure"]

IN_FLIGHT = 64
_MOMENT = 0.05  # seconds between two looks at how many calls there were
_ID = _shims.CONTAINER
# What a daemon may ask without end: with a container there, Shutdown changes nothing.
QUESTIONS = {
    "State": api.StateRequest(id=_ID).SerializeToString(),
    "CloseIO": api.CloseIORequest(id=_ID, stdin=True).SerializeToString(),
    "Shutdown": api.ShutdownRequest(id=_ID).SerializeToString(),
}


@dataclass(frozen=True, slots=True)
class Slope:
    """Two looks at one process; bytes, and the calls between them."""

    method: str
    begun: int
    ended: int
    calls: int

    @property
    def each(self) -> float:
        """Bytes by call; negative: it has become smaller."""
        return (self.ended - self.begun) / self.calls

    def __str__(self) -> str:
        size = f"{self.begun / 2**20:.2f} MiB, then {self.ended / 2**20:.2f} MiB"
        return f"{self.method:<10}{size:<28}{self.each:8.3f} bytes for each of {self.calls:,} calls"


def resident(pid: int) -> int:
    """Bytes of memory that are this process's own: not shared, and touched."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    own = re.findall(r"^(?:Private_\w+|Swap): +(\d+)", text, re.MULTILINE)
    return 1024 * sum(map(int, own))


def measure(calls: int) -> Iterator[Slope]:
    """The slope of each kind of call, one after the other on the same shim.

    Args:
        calls: of each kind; the first half is not measured.
    """
    with _open_target() as (path, pid, methods):
        for method in methods:
            with closing(TtrpcClient(str(path), method, QUESTIONS[method])) as client:
                _call(client, calls // 2)
                begun = resident(pid)
                done = _call(client, calls - calls // 2)
                yield Slope(method, begun, resident(pid), done)


def _call(client: TtrpcClient, calls: int) -> int:
    """At least so many calls; how many there were."""
    done = 0
    while done < calls:
        done += len(client.run(_MOMENT, IN_FLIGHT))
    return done


@contextmanager
def _open_target() -> Iterator[tuple[Path, int, tuple[str, ...]]]:
    """Where it listens, which process it is, and what it can be asked."""
    with tempfile.TemporaryDirectory(prefix="tsb-") as directory, ExitStack() as stack:
        where = Path(directory)
        if reason := _shims.missing(_shims.TRIO):
            print(f"no container, State only: {reason}", file=sys.stderr)
            answer = api.StateResponse(id=_ID, pid=12345).SerializeToString()
            path = where / "shim"
            server = stack.enter_context(open_server(Kind.TRIOSHIM, path, answer))
            yield path, server.pid, ("State",)
        else:
            daemon = where / "daemon"
            stack.enter_context(open_server(Kind.EVENTS, daemon, b""))
            shim = stack.enter_context(_shims.open_shim(_shims.TRIO, daemon))
            yield shim.path, shim.pid, tuple(QUESTIONS)


def main() -> int:
    """Measure, print; 1 if a slope is above the limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slope", description=__doc__)
    parser.add_argument("--calls", type=int, default=200_000, help="of each kind (200000)")
    parser.add_argument("--limit", type=float, default=1.0, help="bytes for each call (1)")
    told = parser.parse_args()
    steep = False
    for slope in measure(max(told.calls, 2)):
        print(slope, flush=True)
        steep |= slope.each >= told.limit
    return int(steep)


if __name__ == "__main__":
    sys.exit(main())
