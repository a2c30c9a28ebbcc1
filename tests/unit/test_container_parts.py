"""The parts of `open_container` one by one: what is asked for, what is told, what is counted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from google.protobuf import any_pb2

from trioshim.containers import (
    DEVNULL,
    PIPE,
    CompletedContainer,
    ContainerFailedError,
    run_container,
)
from trioshim.containers._options import ContainerOptions, plan
from trioshim.containers._outputs import Output, Streams
from trioshim.containers._run import run_to_its_end
from trioshim.containers._stats import read_stats
from trioshim.errors import InternalError, ShimError, UnavailableError
from trioshim.proto import cgroups_v1_pb2, cgroups_v2_pb2

# ---------------------------------------------------------------- which streams there are


@pytest.mark.parametrize(
    ("stdin", "stdout", "stderr", "terminal", "fifos", "targets"),
    [
        (DEVNULL, DEVNULL, DEVNULL, False, (False, False, False), (None, None)),
        (PIPE, PIPE, PIPE, False, (True, True, True), (None, None)),
        (DEVNULL, None, None, False, (False, True, True), (1, 2)),
        (DEVNULL, 7, PIPE, False, (False, True, True), (7, None)),
        (DEVNULL, None, None, True, (True, True, False), (1, None)),
        (DEVNULL, PIPE, 9, True, (True, True, False), (None, None)),
    ],
)
def test_streams(
    stdin: int,
    stdout: Output,
    stderr: Output,
    terminal: bool,
    fifos: tuple[bool, bool, bool],
    targets: tuple[int | None, int | None],
) -> None:
    """Which fifos a process needs, and where they are copied to."""
    streams = Streams(stdin, stdout, stderr, terminal=terminal)
    assert (streams.stdin, streams.stdout, streams.stderr) == fifos
    assert (streams.out, streams.err) == targets


def test_a_file_is_an_output(tmp_path: Path) -> None:
    """By its file descriptor."""
    with (tmp_path / "out").open("wb") as file:
        assert Streams(DEVNULL, file, None, terminal=False).out == file.fileno()


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ((3, None, None), "stdin=3: use PIPE or DEVNULL"),
        ((DEVNULL, -7, None), "stdout=-7: use PIPE, DEVNULL, None or an open file"),
        ((DEVNULL, None, -2), "stderr=-2: use PIPE"),
    ],
)
def test_what_is_no_stream_is_refused(streams: tuple[Any, Any, Any], message: str) -> None:
    """With the name of the argument, and what may stand there."""
    with pytest.raises(ValueError, match=message):
        Streams(*streams, terminal=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stdout": PIPE}, "capture_stdout=True"),
        ({"stderr": PIPE}, "capture_stderr=True"),
        ({"stdout": 3, "capture_stdout": True}, "stdout and capture_stdout: only one"),
        ({"stdin": PIPE}, "stdin=-1: give bytes or DEVNULL"),
    ],
)
async def test_run_container_says_what_to_write_instead(
    options: dict[str, Any], message: str
) -> None:
    """Before anything is made."""
    with pytest.raises(ValueError, match=message):
        await run_container(["true"], **options)


async def test_a_containers_cgroup_has_its_namespaces_name(tmp_path: Path) -> None:
    """Or two of one name would share it; who asks for another one gets that."""
    directory = tmp_path / "space" / "name"
    directory.mkdir(parents=True)

    async def cgroup(options: ContainerOptions) -> object:
        made = await plan(["true"], options, terminal=False, directory=directory)
        linux = made.config["linux"]
        assert isinstance(linux, dict)
        return linux["cgroupsPath"]

    options: ContainerOptions = {"rootfs": tmp_path}
    assert await cgroup(options) == "/space@name"
    assert await cgroup({"rootfs": tmp_path, "cgroup_path": "/mine"}) == "/mine"
    assert options == {"rootfs": tmp_path}


# ---------------------------------------------------------------- to the end


class FakeProcess:
    """As much of a ContainerProcess as `run_to_its_end` sees.

    Args:
        status: how it ends, once its stdin has; an error: nobody knows.
        reads: it reads its stdin.
    """

    def __init__(self, status: int | ShimError = 0, *, reads: bool = True) -> None:
        self.args, self.id = ["program"], "box"
        self.stdin, self._in = trio.testing.memory_stream_one_way_pair()
        self._out, self.stdout = trio.testing.memory_stream_one_way_pair()
        _, self.stderr = trio.testing.memory_stream_one_way_pair()
        self._status = status
        self._reads = reads
        if not reads:
            self.stdin, self._in = trio.testing.lockstep_stream_one_way_pair()
        self.left = False

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Any]:
        try:
            yield self
        finally:
            self.left = True

    async def wait(self) -> int:
        """Copy stdin to stdout, and end."""
        if self._reads:
            async for chunk in self._in:
                await self._out.send_all(chunk)
        # Its last words, without a chance to read them before it has ended.
        self.stderr.put_data(b"bye")
        for stream in (self.stdout, self.stderr):
            stream.put_eof()
        if isinstance(self._status, ShimError):
            raise self._status
        return self._status


async def test_it_is_fed_and_read() -> None:
    """And how it has ended is told."""
    done = await run_to_its_end(FakeProcess(3).opened(), b"data")
    assert done == CompletedContainer(["program"], "box", 3, b"data", b"bye")


async def test_who_reads_no_more_is_not_waited_for() -> None:
    """The rest of its input is its own business."""
    done = await run_to_its_end(FakeProcess(reads=False).opened(), bytes(10))
    assert done.returncode == 0


async def test_what_is_wrong_comes_out_as_it_is() -> None:
    """Not in a group, and after its block."""
    process = FakeProcess(UnavailableError("gone"))
    with pytest.raises(UnavailableError, match="gone"):
        await run_to_its_end(process.opened(), b"data")
    assert process.left


def test_a_failure_tells_what_failed() -> None:
    """The command line, the container, the status, a signal, and the end of what it said."""
    done = CompletedContainer(["sh", "-c", "x"], "box", 137, None, b"x" * 1000 + b"the end\n")
    with pytest.raises(ContainerFailedError) as caught:
        done.check_returncode()
    text = str(caught.value)
    assert text.startswith("sh -c x in container box ended with 137 (signal 9): x")
    assert text.endswith("the end")
    assert len(text) < 600
    assert caught.value.completed is done
    CompletedContainer(["true"], "box", 0).check_returncode()


# ---------------------------------------------------------------- numbers


def packed(metrics: cgroups_v1_pb2.Metrics | cgroups_v2_pb2.Metrics) -> any_pb2.Any:
    """As a shim does it: without the prefix that protobuf would add."""
    return any_pb2.Any(type_url=metrics.DESCRIPTOR.full_name, value=metrics.SerializeToString())


def test_stats_of_version_1() -> None:
    """Nanoseconds; and a limit near 2**63 is none."""
    metrics = cgroups_v1_pb2.Metrics()
    metrics.cpu.usage.total = 1_500_000_000
    metrics.cpu.throttling.throttled_time = 250_000_000
    metrics.memory.usage.usage = 100
    metrics.memory.usage.limit = (1 << 63) - 4096
    metrics.memory.total_inactive_file = 30
    metrics.pids.current = 3
    metrics.pids.limit = 17
    stats = read_stats(packed(metrics))
    assert (stats.cpu_seconds, stats.throttled_seconds) == (1.5, 0.25)
    assert (stats.memory, stats.memory_limit) == (70, None)
    assert (stats.processes, stats.processes_limit) == (3, 17)
    assert stats.metrics == metrics


def test_stats_of_version_2() -> None:
    """Microseconds; never less than nothing."""
    metrics = cgroups_v2_pb2.Metrics()
    metrics.cpu.usage_usec = 1_500_000
    metrics.cpu.throttled_usec = 250_000
    metrics.memory.usage = 100
    metrics.memory.inactive_file = 130
    metrics.memory.usage_limit = 64 << 20
    metrics.pids.current = 3
    stats = read_stats(packed(metrics))
    assert (stats.cpu_seconds, stats.throttled_seconds) == (1.5, 0.25)
    assert (stats.memory, stats.memory_limit) == (0, 64 << 20)
    assert (stats.processes, stats.processes_limit) == (3, None)


def test_stats_of_a_kind_that_nobody_knows() -> None:
    """Its name is in the error."""
    with pytest.raises(InternalError, match="windows"):
        read_stats(any_pb2.Any(type_url="x/io.containerd.windows.Metrics"))
