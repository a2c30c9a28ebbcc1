"""What the next container, exec or event costs when there have been many: as much as the first.

    python -m benchmarks.growth [--containers 500] [--execs 1000] [--operations 200000] [--quick]

Four curves: containers in one shim, execs in one container, memory over many execs and calls, and
events through the outbox.

Rules of this file:

* shims take turns, ours beside Go's; and runc by hand has its turn too: what it loses when there
  are many containers is the machine's, and no shim's;
* a latency is the median of many; the shims' containers are all on the machine at the same time;
* memory is measured when the process has nothing left to do.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import trio
from google.protobuf.any_pb2 import Any

from trioshim.proto import events_pb2 as events
from trioshim.proto import task_v2_pb2 as api
from trioshim.proto.events_service_pb2 import ForwardRequest
from trioshim.proto.types_pb2 import Envelope
from trioshim.publisher import open_publisher
from trioshim.task import open_events

from . import _shims, slope
from ._clients import TtrpcClient
from ._daemon import Daemon, open_daemon
from ._figures import cpu_of, in_turns
from ._report import Report, Verdict, table
from ._servers import Kind, open_server
from .idle import exec_slope

__all__ = ["Cost", "decades", "report"]

CONTAINERS, EXECS, OPERATIONS, EVENTS = 500, 1000, 200_000, 20_000
LIVES = 15  # that are measured at each number of containers
LIMIT = 1.3  # times what the first one took
OURS, GO, RUNC = "trioshim", "Go, runc.v2", "runc by hand"
KINDS = (_shims.Kind(OURS, _shims.TRIO, {"TRIOSHIM_TEMPLATE": "off"}), _shims.Kind(GO, _shims.GO))
PHASES = ("create", "exec", "exit")
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER


@dataclass(frozen=True, slots=True)
class Cost:
    """One container's life, or the median of some; milliseconds.

    Attributes:
        create: of Create.
        exec: of Exec and Start, for `true`.
        exit: from the kill of init to TaskExit at the daemon.
        cpu: that the shim has run for all of the life.
        resident, proportional: the shim's memory before, MiB.
    """

    create: float
    exec: float
    exit: float
    cpu: float = 0.0
    resident: float = 0.0
    proportional: float = 0.0

    @classmethod
    def of(cls, lives: Sequence[Cost]) -> Cost:
        """The median of each."""
        return cls(*(median(getattr(life, name) for life in lives) for name in cls.__slots__))


def decades(most: int) -> list[int]:
    """1, 10, 100, ... and the last."""
    found = [10**power for power in range(len(str(most))) if 10**power < most]
    return [*found, most]


def _since(begun: int) -> float:
    return (time.perf_counter_ns() - begun) / 1e6


# ---------------------------------------------------------------- containers


def _live_in(shim: _shims.Shim, daemon: Daemon, name: str) -> Cost:
    """A container's life in a shim, among those that are there."""
    bundle, memory, cpu = shim.place.bundle(name), _memory(shim.pid), cpu_of(shim.pid)
    begun = time.perf_counter_ns()
    pid = shim.create(bundle)
    create = _since(begun)
    shim.start(name)
    exec_ = _exec_in(shim, name, "e")
    begun = time.perf_counter_ns()
    os.kill(pid, 9)
    exit_ = (daemon.exit_of(name).at - begun) / 1e6
    shim.call("Delete", api.DeleteRequest(id=name))
    cpu = cpu_of(shim.pid) - cpu
    shim.place.forget(name)
    return Cost(create, exec_, exit_, cpu / 1e6, *memory)


def _exec_in(shim: _shims.Shim, name: str, exec_id: str) -> float:
    """Run `true`; milliseconds until it was started."""
    spec = Any(value=json.dumps(shim.place.process("true")).encode())
    begun = time.perf_counter_ns()
    shim.call("Exec", api.ExecProcessRequest(id=name, exec_id=exec_id, spec=spec))
    shim.call("Start", api.StartRequest(id=name, exec_id=exec_id))
    took = _since(begun)
    shim.call("Wait", api.WaitRequest(id=name, exec_id=exec_id))
    shim.call("Delete", api.DeleteRequest(id=name, exec_id=exec_id))
    return took


def _live_by_hand(place: _shims.Place, name: str) -> Cost:
    """The same with no shim: what runc and the kernel take."""
    bundle = place.bundle(name)
    config = json.loads((bundle / "config.json").read_text())
    config["root"]["path"] = str(place.rootfs)
    (bundle / "config.json").write_text(json.dumps(config))
    (bundle / "process.json").write_text(json.dumps(place.process("true")))
    pid_file = bundle / "pid"
    runc = partial(_runc, f"{place.base}/runc/{place.base.name}")
    with _subreaper():
        create = runc("create", "--bundle", str(bundle), "--pid-file", str(pid_file), name)
        pid = int(pid_file.read_text())
        runc("start", name)
        options = ["--detach", "--process", str(bundle / "process.json")]
        exec_ = runc("exec", *options, "--pid-file", str(pid_file), name)
        os.waitpid(int(pid_file.read_text()), 0)
        begun = time.perf_counter_ns()
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        exit_ = _since(begun)
        runc("delete", name)
    place.forget(name)
    return Cost(create, exec_, exit_)


def _runc(root: str, *words: str) -> float:
    begun, null = time.perf_counter_ns(), subprocess.DEVNULL
    subprocess.run(["runc", "--root", root, *words], stdin=null, stdout=null, check=True)
    return _since(begun)


@contextmanager
def _subreaper() -> Iterator[None]:
    """What runc leaves behind is our child during the block."""
    libc = ctypes.CDLL(None)
    libc.prctl(_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_SUBREAPER, 0, 0, 0, 0)


def _memory(pid: int) -> tuple[float, float]:
    """MiB, resident and proportional."""
    fields = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").split()
    resident, proportional = (int(fields[fields.index(name) + 1]) for name in ("Rss:", "Pss:"))
    return resident / 1024, proportional / 1024


Curve = dict[str, dict[int, Cost]]
Execs = dict[str, dict[int, tuple[float, float]]]


@contextmanager
def _open_shims(kinds: Sequence[_shims.Kind]) -> Iterator[tuple[dict[str, _shims.Shim], Daemon]]:
    """One of each, with a running container; their events come to us."""
    with (
        tempfile.TemporaryDirectory(prefix="tsb-") as directory,
        open_daemon(Path(directory, "daemon")) as daemon,
        _shims.open_place(daemon.path) as place,
        ExitStack() as ours,
    ):
        shims = {}
        for number, kind in enumerate(kinds):
            shims[kind.name] = shim = _shims.Shim(kind, place, place.bundle(f"s{number}"))
            ours.callback(shim.close)
            shim.create()
            shim.start()
        yield shims, daemon
        ours.pop_all()  # their ends close them
        for shim in shims.values():
            shim.remove()
            shim.end()


def curve(kinds: Sequence[_shims.Kind], sizes: Sequence[int], lives: int) -> Curve:
    """Each shim, and runc by hand, at each number of containers in each shim."""
    with _open_shims(kinds) as (shims, daemon), ThreadPoolExecutor(len(kinds)) as pool:
        place = next(iter(shims.values())).place
        livers: dict[str, Callable[[str], Cost]] = {
            name: partial(_live_in, shim, daemon) for name, shim in shims.items()
        }
        livers[RUNC] = partial(_live_by_hand, place)
        found: Curve = {name: {} for name in livers}
        size = 1
        for wanted in sizes:
            list(pool.map(lambda shim: _fill(shim, size, wanted), shims.values()))  # noqa: B023
            size = wanted
            for name, cost in _take_turns(livers, lives).items():
                found[name][size] = cost
        for number in range(1, size):
            list(pool.map(lambda shim: shim.remove(f"{shim.id}-{number}"), shims.values()))  # noqa: B023
    return found


def _fill(shim: _shims.Shim, there: int, wanted: int) -> None:
    for number in range(there, wanted):
        name = f"{shim.id}-{number}"
        shim.create(shim.place.bundle(name))
        shim.start(name)


def _take_turns(livers: Mapping[str, Callable[[str], Cost]], rounds: int) -> dict[str, Cost]:
    found: dict[str, list[Cost]] = {name: [] for name in livers}
    for turn in range(-1, rounds):  # the first one is to warm up
        for name in in_turns(list(livers), turn):
            cost = livers[name](f"life-{list(livers).index(name)}")
            found[name] += [cost] if turn >= 0 else []
    return {name: Cost.of(costs) for name, costs in found.items()}


def exec_curve(kinds: Sequence[_shims.Kind], most: int) -> Execs:
    """Execs of `true` in one container: milliseconds, and MiB resident, around some of them."""
    with _open_shims(kinds) as (shims, _):
        took: dict[str, list[float]] = {name: [] for name in shims}
        found: Execs = {name: {} for name in shims}
        wanted = decades(most)
        for number in range(most):
            for name in in_turns(list(shims), number):
                took[name].append(_exec_in(shims[name], shims[name].id, f"e{number}"))
                if number + 1 in wanted:
                    memory = _memory(shims[name].pid)[0]
                    found[name][number + 1] = (median(took[name][-LIVES:]), memory)
    return found


# ---------------------------------------------------------------- events


def _event() -> events.TaskExit:
    return events.TaskExit(container_id="box", id="box", pid=12345, exit_status=7)


async def _emit(path: Path, count: int) -> float:
    """Events a second, from the first `emit` until the last is acknowledged."""
    async with open_publisher(str(path)) as publisher:
        begun = time.perf_counter()
        async with open_events(publisher, namespace="b", now=time.time_ns, drain=600) as emit:
            for _ in range(count):
                emit(_event())
        return count / (time.perf_counter() - begun)


def _forward(path: Path, seconds: float) -> float:
    """The floor: the same, from a client that does nothing else."""
    packed = Any(type_url="containerd.events.TaskExit", value=_event().SerializeToString())
    envelope = Envelope(namespace="b", topic="/tasks/exit", event=packed)
    request = ForwardRequest(envelope=envelope).SerializeToString()
    with closing(TtrpcClient(str(path), "Forward", request)) as client:
        begun = time.perf_counter()
        return len(client.run(seconds, 1)) / (time.perf_counter() - begun)


def outbox(count: int, rounds: int) -> tuple[float, float]:
    """Events a second through the outbox, and the floor: medians of the rounds."""
    with tempfile.TemporaryDirectory(prefix="tsb-") as directory:
        path = Path(directory, "daemon")
        with open_server(Kind.EVENTS, path, b""):
            pairs = []
            for _ in range(rounds):
                emitted = trio.run(_emit, path, count)
                pairs.append((emitted, _forward(path, count / emitted)))
    ours, floor = zip(*pairs, strict=True)
    return median(ours), median(floor)


# ---------------------------------------------------------------- the report


def _ratios(costs: Mapping[int, Cost]) -> dict[str, float]:
    """What the last costs, in what the first did, by phase."""
    first, last = costs[min(costs)], costs[max(costs)]
    return {phase: getattr(last, phase) / getattr(first, phase) for phase in PHASES}


def flat(found: Curve) -> list[Verdict]:
    """Whether our last container costs what the first did, and what it was for the others."""
    most, ratios = max(found[OURS]), {name: _ratios(costs) for name, costs in found.items()}
    verdicts = []
    for phase, ratio in ratios[OURS].items():
        others = [f"{name} {of[phase]:.2f}" for name, of in ratios.items() if name != OURS]
        measured = f"{ratio:.2f} ({', '.join(others)})"
        what = f"{phase} at {most} containers in a shim, × the first"
        verdicts.append(Verdict(what, f"≤ {LIMIT}", measured, ratio <= LIMIT))
        if RUNC in ratios and phase != "exit":  # in which runc has no part
            own = ratio / ratios[RUNC][phase]
            what = f"{phase}, × what runc by hand loses there"
            verdicts.append(Verdict(what, f"≤ {LIMIT}", f"{own:.2f}", own <= LIMIT))
    return verdicts


def curve_lines(found: Curve) -> Iterator[str]:
    """A row for each number of containers and each who had them."""
    head = ["containers", "in", *(f"{phase}, ms (× first)" for phase in PHASES)]
    head += ["shim CPU of a life, ms", "RSS, MiB", "PSS, MiB"]
    rows = []
    for size in next(iter(found.values())):
        for name, costs in found.items():
            cost, first = costs[size], costs[min(costs)]
            cells = [
                f"{(now := getattr(cost, phase)):.1f} ({now / getattr(first, phase):.2f})"
                for phase in PHASES
            ]
            figures = (cost.cpu, cost.resident, cost.proportional)
            rows.append([str(size), name, *cells, *(f"{f:.1f}" if f else "" for f in figures)])
    yield from table(head, rows)


def _real(containers: int, execs: int, lives: int) -> tuple[list[str], list[Verdict]]:
    """What needs root and runc; with the reason, if it cannot be measured."""
    reasons = {kind.program: _shims.missing(kind.program) for kind in KINDS}
    if ours := reasons[_shims.TRIO]:
        return [f"No containers: {ours}."], [
            Verdict(
                "containers in a shim", f"≤ {LIMIT} × the first", f"not measured: {ours}", False
            )
        ]
    kinds = [kind for kind in KINDS if not reasons[kind.program]]
    found = curve(kinds, decades(containers), lives)
    head = ["execs", *(f"{kind.name}, {unit}" for kind in kinds for unit in ("ms", "RSS MiB"))]
    by_kind = exec_curve(kinds, execs)
    rows = [
        [f"{done:,}", *(f"{f:.1f}" for kind in kinds for f in by_kind[kind.name][done])]
        for done in decades(execs)
    ]
    return [*curve_lines(found), "", *table(head, rows), ""], flat(found)


def _steep(what: str, each: float) -> Verdict:
    return Verdict(f"memory of {what}", "< 1 byte each", f"{each:.3f}", each < 1)


def report(
    quick: bool, containers: int = CONTAINERS, execs: int = EXECS, operations: int = OPERATIONS
) -> Report:
    """All curves.

    Args:
        quick: a few of everything, too few for a verdict.
        containers, execs, operations: how many, if it is not quick.
    """
    if quick:
        containers, execs, operations = 2, 3, 400
    lines, verdicts = _real(containers, execs, 2 if quick else LIVES)
    verdicts.append(_steep(f"{operations:,} execs", exec_slope(operations)))
    calls = operations if quick else 1_000_000
    for found in slope.measure(calls):
        verdicts.append(_steep(f"{calls:,} calls of {found.method}", found.each))
    count = 200 if quick else EVENTS
    ours, floor = outbox(count, 1 if quick else 5)
    head = ["events", "outbox, a second", "a plain client, a second", "outbox / client"]
    lines += table(head, [[f"{count:,}", f"{ours:,.0f}", f"{floor:,.0f}", f"{ours / floor:.2f}"]])
    return Report("Growth", tuple(lines), () if quick else tuple(verdicts))


def main() -> int:
    """Measure, print; 1 if something grows that should not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--containers", type=int, default=CONTAINERS, help="in one shim (500)")
    parser.add_argument("--execs", type=int, default=EXECS, help="real ones (1000)")
    parser.add_argument("--operations", type=int, default=OPERATIONS, help="execs without runc")
    parser.add_argument("--quick", action="store_true", help="a few of everything")
    told = parser.parse_args()
    done = report(told.quick, told.containers, told.execs, told.operations)
    print(done)
    return int(not all(verdict.met for verdict in done.verdicts))


if __name__ == "__main__":
    sys.exit(main())
