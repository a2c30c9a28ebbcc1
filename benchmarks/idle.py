"""A shim that has nothing to do: how often it wakes, and what all the work before has left in it.

    python -m benchmarks.idle [--seconds 10]

* Never, or many of them would keep a machine awake.  A real shim with one running container and a
  connected client is left alone.  Counted are the times that any of its threads has slept or was
  put on a processor, and how long they ran; the kernel does the counting (/proc/PID/task/*), so
  looking wakes nobody.
* Nothing.  The memory of a shim is looked at between many execs, each time when it is at rest
  (`exec_slope`, for benchmarks.growth).  Its wires, its service, its kernel and its events are the
  real ones; only the runtime is none, since runc would take an hour.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from io import BufferedRWPair
from pathlib import Path
from statistics import linear_regression

import trio
from google.protobuf.any_pb2 import Any

from trioshim.abc import Child, ContainerSpec, ExecSpec, Exit, Runtime, Stdio
from trioshim.linux import LinuxKernel
from trioshim.proto import task_v2_pb2 as api
from trioshim.publisher import open_publisher
from trioshim.shim import serve

from . import _shims, slope
from ._clients import TtrpcClient
from ._figures import cpu_of
from ._report import Report, Verdict, table
from ._servers import Kind, open_server

__all__ = ["Idleness", "Look", "bytes_each", "exec_slope", "measure", "report", "verdict"]

SECONDS = 10.0
# Threads that have had work wait this long for more (trio's: 10 s), and Go's garbage is swept.
SETTLING = 12.0
_QUICK = 1.0  # seconds, for both
_LOOKS = 400  # at a process's memory
_PATIENCE = 10  # seconds for an event
_MOMENT = 0.02  # seconds in which a process that has something to do does some of it


@dataclass(frozen=True, slots=True)
class Look:
    """What the kernel has counted of a process so far.

    Attributes:
        switches: times that a thread has slept, or had to make room for another.
        runs: times that a thread was put on a processor.
        ran: nanoseconds that they were there.
    """

    switches: int
    runs: int
    ran: int

    @classmethod
    def at(cls, pid: int) -> Look:
        """Look at all threads of a process."""
        looks = [_look(thread) for thread in Path(f"/proc/{pid}/task").iterdir()]
        return cls(*(sum(column) for column in zip(*looks, strict=True)))


def _look(thread: Path) -> tuple[int, int, int]:
    with suppress(FileNotFoundError):  # it has ended meanwhile
        status = (thread / "status").read_text("ascii", "replace")
        switches = re.findall(r"^(?:non)?voluntary_ctxt_switches:\s+(\d+)", status, re.MULTILINE)
        ran, _, runs = (thread / "schedstat").read_text("ascii").split()
        return sum(map(int, switches)), int(runs), int(ran)
    return 0, 0, 0


@dataclass(frozen=True, slots=True)
class Idleness:
    """Two looks at one shim.

    Attributes:
        seconds: between them.
        threads: how many it had at the second.
    """

    shim: str
    seconds: float
    begun: Look
    ended: Look
    threads: int

    @property
    def wakes(self) -> int:
        """How often it has run in between, by whichever of the two counters says more."""
        runs = self.ended.runs - self.begun.runs
        return max(runs, self.ended.switches - self.begun.switches)

    @property
    def ran(self) -> float:
        """Microseconds of processor in between."""
        return (self.ended.ran - self.begun.ran) / 1e3


def measure(program: str, *, seconds: float, settling: float) -> Idleness:
    """Leave a shim alone for a while, and look at it before and after.

    Args:
        program: its name.
        seconds: how long.
        settling: seconds that it has before the first look.

    Raises:
        ValueError, subprocess.SubprocessError: it does not start, or refuses a call.
    """
    with tempfile.TemporaryDirectory(prefix="tsb-") as directory, ExitStack() as stack:
        daemon = Path(directory, "daemon")
        stack.enter_context(open_server(Kind.EVENTS, daemon, b""))
        shim = stack.enter_context(_shims.open_shim(program, daemon))
        time.sleep(settling)
        begun = Look.at(shim.pid)
        time.sleep(seconds)
        ended = Look.at(shim.pid)
        threads = sum(1 for _ in Path(f"/proc/{shim.pid}/task").iterdir())
    return Idleness(program, seconds, begun, ended, threads)


# ---------------------------------------------------------------- what stays


class _Quick(Child):
    """A process that has always ended, or never does: the work of the shim, and of nobody else."""

    def __init__(self, *, ends: bool) -> None:
        self._ends = ends

    @property
    def pid(self) -> int:
        return os.getpid()

    async def wait(self) -> Exit:
        await trio.sleep(0 if self._ends else math.inf)
        return Exit(0, time.time_ns())

    def signal(self, signum: int) -> None:
        """It is not there to be killed."""

    def close(self) -> None:
        """Nothing is held."""


class _NoRuntime(Runtime):
    """Containers of `_Quick` processes.

    Args:
        kernel: if given, an exec is a real process of it.
    """

    def __init__(self, kernel: LinuxKernel | None) -> None:
        self._kernel = kernel

    async def create(self, spec: ContainerSpec, stdio: Stdio) -> Child:  # noqa: ARG002
        await trio.lowlevel.checkpoint()
        return _Quick(ends=False)

    async def start(self, spec: ContainerSpec) -> None:
        """Nothing to do."""

    async def kill(self, spec: ContainerSpec, init: Child, signum: int, *, all: bool) -> None:  # noqa: A002
        """Nothing to do."""

    async def delete(self, spec: ContainerSpec, *, force: bool = False) -> None:
        """Nothing to do."""

    async def exec(self, spec: ContainerSpec, process: ExecSpec, stdio: Stdio) -> Child:  # noqa: ARG002
        await trio.lowlevel.checkpoint()
        return self._kernel.spawn(["true"]) if self._kernel else _Quick(ends=True)


async def _serve_until_parent_leaves(path: str, daemon: str, processes: str) -> None:
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(path)
    sock.listen()
    kernel = LinuxKernel()
    runtime = _NoRuntime(kernel if processes == "real" else None)
    async with open_publisher(daemon) as publisher, trio.open_nursery() as nursery:
        listener = trio.SocketListener(sock)
        shim = partial(serve, listener, runtime=runtime, kernel=kernel, publisher=publisher)
        await nursery.start(shim)
        print("ready", flush=True)
        await trio.lowlevel.wait_readable(sys.stdin.fileno())
        nursery.cancel_scope.cancel()


class _Ear:
    """The daemon's: takes events when it is told to, so that none is waiting while memory is read.

    A queue that has been long once, because somebody else was busy, would look like growth.
    """

    _HEADER = struct.Struct(">IIBB")  # length, stream id, type, flags
    _RESPONSE = 2

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._listener.settimeout(_PATIENCE)
        self._ends = ExitStack()
        self._ends.callback(self._listener.close)
        self._stream: BufferedRWPair | None = None

    def hear(self, events: int) -> None:
        """Wait for so many, and acknowledge each.

        Raises:
            TimeoutError: one does not come.
        """
        stream = self._stream = self._stream or self._accept()
        for _ in range(events):
            header = stream.read(self._HEADER.size)
            length, stream_id, _, _ = self._HEADER.unpack(header)
            stream.read(length)
            stream.write(self._HEADER.pack(0, stream_id, self._RESPONSE, 0))
            stream.flush()

    def _accept(self) -> BufferedRWPair:
        shim = self._ends.enter_context(self._listener.accept()[0])
        shim.settimeout(_PATIENCE)
        return self._ends.enter_context(shim.makefile("rwb"))

    def close(self) -> None:
        """Nobody is heard any more."""
        self._ends.close()


def exec_slope(count: int, *, real: bool = False) -> float:
    """Bytes that each of many execs leaves in a shim.

    Args:
        count: of execs, one after the other; each has a name of its own.
        real: they are processes; else nothing runs, and only the shim has work.
    """
    with tempfile.TemporaryDirectory(prefix="tsb-") as directory, ExitStack() as stack:
        path, daemon = Path(directory, "shim"), Path(directory, "daemon")
        ear = stack.enter_context(closing(_Ear(daemon)))
        words = [str(path), str(daemon), "real" if real else "none"]
        shim = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.idle", "--serve", *words],
                cwd=Path(__file__).parents[1],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
        assert shim.stdout is not None
        if shim.stdout.readline() != b"ready\n":
            raise RuntimeError("the shim without a runtime does not start; it has said why")
        question = api.ConnectRequest(id="box").SerializeToString()
        client = stack.enter_context(closing(TtrpcClient(str(path), "Connect", question)))
        bundle = api.CreateTaskRequest(id="box", bundle=directory)
        client.call("Create", bundle.SerializeToString())
        client.call("Start", api.StartRequest(id="box").SerializeToString())
        ear.hear(2)
        looks = []
        for number in range(count):
            _call_exec(client, f"e{number}")
            ear.hear(3)  # added, started, ended
            if (number + 1) % max(count // _LOOKS, 1) == 0:
                looks.append((number + 1, _resident_at_rest(shim.pid)))
    return bytes_each(looks)


def _call_exec(client: TtrpcClient, exec_id: str) -> None:
    spec = Any(value=b'{"args":["true"]}')
    exec_ = api.ExecProcessRequest(id="box", exec_id=exec_id, spec=spec)
    client.call("Exec", exec_.SerializeToString())
    # All of them have the same two fields.
    then = api.StartRequest(id="box", exec_id=exec_id).SerializeToString()
    for method in ("Start", "Wait", "Delete"):
        client.call(method, then)


def _resident_at_rest(pid: int) -> int:
    """Its own memory when it does nothing: its events are with the daemon then."""
    ran = -1
    while ran != (now := cpu_of(pid)):
        ran = now
        time.sleep(_MOMENT)
    return slope.resident(pid)


def bytes_each(looks: Sequence[tuple[int, int]]) -> float:
    """Bytes for each operation: the slope by least squares over the second half.

    Args:
        looks: how many operations there had been, and the bytes then.
    """
    done, held = zip(*looks[len(looks) // 2 :], strict=True)
    return linear_regression(done, held).slope


# ---------------------------------------------------------------- the report


def verdict(found: Iterable[Idleness]) -> Verdict:
    """Whether ours has slept all the time; what cannot be measured is not met."""
    asked = "0 wake-ups"
    for idleness in found:
        if idleness.shim == _shims.TRIO:
            said = f"{idleness.wakes} in {idleness.seconds:g} s, {idleness.ran:.0f} µs"
            return Verdict("an idle shim", asked, said, idleness.wakes == 0)
    return Verdict("an idle shim", asked, f"not measured: {_shims.missing(_shims.TRIO)}", met=False)


def lines(found: Iterable[Idleness]) -> list[str]:
    """One row for each shim."""
    head = ("shim", "seconds", "wake-ups", "µs of processor", "threads")
    rows = [(i.shim, f"{i.seconds:g}", str(i.wakes), f"{i.ran:.0f}", str(i.threads)) for i in found]
    return list(table(head, rows))


def report(quick: bool, seconds: float = SECONDS) -> Report:
    """Ours and Go's, one after the other.

    Args:
        quick: a second is enough; it may still see what came before.
        seconds: how long, if it is not quick.
    """
    found, left_out = [], []
    for program in (_shims.TRIO, _shims.GO):
        if reason := _shims.missing(program):
            left_out.append(f"Left out: {program}: {reason}.")
            continue
        spans = (_QUICK, _QUICK) if quick else (seconds, SETTLING)
        found.append(measure(program, seconds=spans[0], settling=spans[1]))
    return Report("An idle shim", (*lines(found), *left_out), (verdict(found),))


def main() -> int:
    """Measure, print; 1 if ours was awake."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long (10)")
    parser.add_argument("--quick", action="store_true", help="a second each")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)  # the other process
    told = parser.parse_args()
    if told.serve:
        trio.run(_serve_until_parent_leaves, *told.serve)
        return 0
    done = report(told.quick, told.seconds)
    print(done)
    return int(not all(verdict.met for verdict in done.verdicts))


if __name__ == "__main__":
    sys.exit(main())
