"""Measure a Task call side by side: our wires, Go's shim, purerpc, grpc.aio, and trio's floor.

    python -m benchmarks.rpc [--rounds N] [--quick] [--write] [--profile]

All servers run at once and take turns: in every round each is asked State for a fraction of a
second, with one call in flight and with 64 on one connection.  The order turns with the rounds.
The real shims hold one running container each; the stand-ins for what is no shim give our shim's
answer, byte for byte.  A server that cannot run here is left out, and the reason is printed.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from trioshim.proto import task_v2_pb2 as api
from trioshim.proto.task_types_pb2 import Status

from . import _shims
from ._clients import Client, GrpcioClient, Http2Client, TtrpcClient
from ._figures import Row, Sample, cpu_of, machine, put_between, tables
from ._profile import profile
from ._servers import Kind, open_server

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
IN_FLIGHT = (1, 64)
WARM_UP = 0.3  # seconds, for each server and number in flight
PACKAGES = ("trio", "purerpc", "h2", "grpcio", "protobuf")

GO, OURS, CONSTANT, AIO, PURERPC, FLOOR = (
    "containerd-shim-runc-v2",
    "trioshim",
    "trioshim, no Task service",
    "grpc.aio",
    "purerpc",
    "echo on trio",
)
TTRPC, GRPC = "ttrpc", "gRPC"
Opener = Callable[[str, str, bytes], Client]
CLIENTS: dict[str, Opener] = {"raw": Http2Client, "grpcio": GrpcioClient}

# What a shim would say of a running container, where none can be started.
ANSWER = api.StateResponse(
    id="box", bundle="/tmp/tsb-01234567/box", pid=12345, status=Status.RUNNING
)


@dataclass
class Contest:
    """The servers that take turns, and what has been measured of them."""

    stack: ExitStack
    directory: Path
    rows: list[Row] = field(default_factory=list)
    _asked: list[tuple[Client, int]] = field(default_factory=list)

    def add(self, row: tuple[str, str, str, str], client: Client, pid: int) -> None:
        """One more row: `Row`'s first four fields, who asks, and which process answers."""
        self.stack.enter_context(closing(client))
        self.rows.append(Row(*row, samples={number: [] for number in IN_FLIGHT}))
        self._asked.append((client, pid))

    def add_server(
        self, name: str, path: Path, pid: int, question: bytes, clients: Sequence[str]
    ) -> None:
        """A server, over gRPC, once for each client."""
        for client in clients:
            against = "" if name == AIO else AIO
            there = CLIENTS[client](str(path), "State", question)
            self.add((name, GRPC, client, against), there, pid)

    def stand_in(self, kind: Kind, answer: bytes) -> tuple[Path, int]:
        """Start one that gives a constant answer; its socket and its pid."""
        path = self.directory / kind.value
        server = self.stack.enter_context(open_server(kind, path, answer))
        return path, server.pid

    def run(self, rounds: int, seconds: float) -> None:
        """Everybody's turn, so many times."""
        for client, pid in self._asked:
            for number in IN_FLIGHT:
                _measure(client, pid, min(WARM_UP, seconds), number)
        turns = list(zip(self.rows, self._asked, strict=True))
        for turn in range(rounds):
            first = turn % len(turns)
            for row, (client, pid) in turns[first:] + turns[:first]:
                for number in IN_FLIGHT:
                    row.samples[number].append(_measure(client, pid, seconds, number))


def _measure(client: Client, pid: int, seconds: float, in_flight: int) -> Sample:
    gc.collect()
    gc.disable()
    try:
        cpu, own, begin = cpu_of(pid), time.process_time_ns(), time.perf_counter_ns()
        took = client.run(seconds, in_flight)
        elapsed = time.perf_counter_ns() - begin
        own = time.process_time_ns() - own
        return Sample.of(took, elapsed=elapsed, server_cpu=cpu_of(pid) - cpu, client_cpu=own)
    finally:
        gc.enable()


def add_floor(contest: Contest, question: bytes) -> None:
    path, pid = contest.stand_in(Kind.ECHO, b"")
    contest.add((FLOOR, "none", "raw", GO), TtrpcClient(str(path), "State", question), pid)


def add_shims(contest: Contest) -> bytes:
    """The real ones, if they can run here; what ours answers, or would."""
    answer = ANSWER.SerializeToString()
    daemon, _ = contest.stand_in(Kind.EVENTS, b"")
    for name, program in ((GO, _shims.GO), (OURS, _shims.TRIO)):
        reason = _shims.missing(program)
        if reason:
            print(f"left out: the shim {name}: {reason}", file=sys.stderr)
            continue
        shim = contest.stack.enter_context(_shims.open_shim(program, daemon))
        path, question = str(shim.path), shim.question
        against = "" if name == GO else GO
        client = TtrpcClient(path, "State", question)
        contest.add((name, TTRPC, "raw", against), client, shim.pid)
        if name == OURS:
            answer = client.reply
            contest.add_server(name, shim.path, shim.pid, question, _clients())
    return answer


def add_stand_ins(contest: Contest, answer: bytes, kinds: dict[Kind, str]) -> None:
    question = api.StateRequest(id=_shims.CONTAINER).SerializeToString()
    for kind, name in kinds.items():
        path, pid = contest.stand_in(kind, answer)
        if kind is Kind.TRIOSHIM:
            contest.add((name, TTRPC, "raw", GO), TtrpcClient(str(path), "State", question), pid)
        clients = ["raw"] if kind is Kind.TRIOSHIM else _clients()
        contest.add_server(name, path, pid, question, clients)


def _clients() -> list[str]:
    return list(CLIENTS) if find_spec("grpc") else ["raw"]


def measure(rounds: int, *, quick: bool) -> str:
    """Markdown with all the figures.

    Args:
        rounds: how many turns each server has.
        quick: the floor and our own wires, for a moment; it needs neither root nor grpcio.
    """
    question = api.StateRequest(id=_shims.CONTAINER).SerializeToString()
    with tempfile.TemporaryDirectory(prefix="tsb-") as directory, ExitStack() as stack:
        contest = Contest(stack, Path(directory))
        add_floor(contest, question)
        kinds = {Kind.TRIOSHIM: CONSTANT}
        if quick:
            answer = ANSWER.SerializeToString()
        else:
            answer = add_shims(contest)
            if find_spec("grpc"):
                kinds[Kind.GRPC_AIO] = AIO
            kinds[Kind.PURERPC] = PURERPC
        add_stand_ins(contest, answer, kinds)
        contest.run(rounds, 0.03 if quick else 0.2)
        return f"{tables(contest.rows, IN_FLIGHT)}\n\n{rounds} rounds on {machine(PACKAGES)}"


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rpc", description=__doc__)
    parser.add_argument("--rounds", type=int, help="turns of each server (15, quick: 3)")
    parser.add_argument("--quick", action="store_true", help="the floor and our wires only")
    parser.add_argument("--write", action="store_true", help=f"put the figures into {PAGE.name}")
    parser.add_argument("--profile", action="store_true", help="where our gRPC server's time goes")
    told = parser.parse_args()
    if told.profile:
        print(profile(ANSWER.SerializeToString(), 0.2 if told.quick else 5.0))
        return
    figures = measure(told.rounds or (3 if told.quick else 15), quick=told.quick)
    print(figures)
    if told.write:
        PAGE.write_text(put_between(PAGE.read_text("utf-8"), figures), "utf-8")


if __name__ == "__main__":
    main()
