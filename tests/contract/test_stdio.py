"""Opening and leaving the streams, whatever they are; and files."""

from __future__ import annotations

import errno
import logging
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio

from trioshim.errors import (
    InvalidArgumentError,
    RuntimeFailedError,
)
from trioshim.linux import LinuxKernel, _pump
from trioshim.linux._fd import make_pipe
from trioshim.linux._pump import Pump
from trioshim.linux._stdio import open_stdio

from . import stdio_world
from .stdio_world import (
    BIG,
    READY,
    Fifos,
    container_end,
    digest,
    fd_targets,
    read_all,
    reader,
    script,
    spec,
    warnings_in,
    write_both,
)

nothing_is_left = stdio_world.nothing_is_left
fifos = stdio_world.fifos


async def test_nothing_given_opens_nothing() -> None:
    """The null kind has no fds and every call is harmless."""
    before = fd_targets()
    async with open_stdio(spec(), LinuxKernel()) as streams:
        assert fd_targets() == before
        assert dict(streams.fds) == {}
        assert streams.console_socket == ""
        await streams.attach()
        streams.take_input()
        streams.resize(1, 2)
        streams.close_stdin()
        await streams.drain()


async def test_a_missing_fifo_is_named(tmp_path: Path) -> None:
    """The error says which stream and which path."""
    path = str(tmp_path / "missing")
    for name in ("stdin", "stdout", "stderr"):
        with pytest.raises(FileNotFoundError, match=f"cannot open {name}: .*{path}"):
            async with open_stdio(spec(**{name: path}), LinuxKernel()):
                pytest.fail("it must not open")


async def test_a_directory_is_no_stream(tmp_path: Path) -> None:
    """Neither for input nor for output, and a regular file is no input."""
    file = tmp_path / "file"
    file.touch()
    for fields, text in (
        ({"stdin": str(tmp_path)}, "stdin .* is not a fifo"),
        ({"stdin": str(file)}, "stdin .* is not a fifo"),
        ({"stdout": str(tmp_path)}, "stdout .* is neither a fifo nor a file"),
    ):
        with pytest.raises(InvalidArgumentError, match=text):
            async with open_stdio(spec(**fields), LinuxKernel()):
                pytest.fail("it must not open")


async def test_an_unknown_scheme_is_refused() -> None:
    """It is the client's mistake."""
    with pytest.raises(InvalidArgumentError, match="unknown STDIO scheme http"):
        async with open_stdio(spec(stdout="http://x/"), LinuxKernel()):
            pytest.fail("it must not open")


async def test_what_the_block_raises_comes_out_as_it_is(fifos: Fifos) -> None:
    """Not in an exception group, although tasks run inside."""

    async def fail() -> None:
        async with open_stdio(spec(stdin=fifos.stdin), LinuxKernel()) as streams:
            await streams.attach()
            streams.take_input()
            raise RuntimeFailedError("runc says no")

    with pytest.raises(RuntimeFailedError, match="runc says no"):
        await fail()


async def test_the_blocks_own_error_survives_a_cancellation(fifos: Fifos) -> None:
    """A pump that is cancelled with the block does not replace what the block raises."""

    async def fail_when_cancelled() -> None:
        async with open_stdio(spec(stdin=fifos.stdin), LinuxKernel()) as streams:
            await streams.attach()
            streams.take_input()
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                raise RuntimeFailedError("cleaning up failed")

    with pytest.raises(RuntimeFailedError), trio.CancelScope() as scope:
        await fail_when_cancelled()


@pytest.mark.parametrize("attached", [False, True])
async def test_cancelling_the_block_closes_everything(fifos: Fifos, attached: bool) -> None:
    """Before `attach` and after it; `nothing_is_left` counts."""
    client = reader(fifos.stdout)
    with trio.CancelScope() as scope:
        async with open_stdio(spec(stdin=fifos.stdin, stdout=fifos.stdout), LinuxKernel()) as s:
            if attached:
                await s.attach()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert await read_all(client) == b""
    await client.aclose()


async def test_a_file_url_gets_both_outputs_appended(tmp_path: Path) -> None:
    """Its directories are made; what was in the file stays."""
    path = tmp_path / "a" / "b" / "log"
    url = f"file://{path}"
    umask = os.umask(0)
    try:
        for _ in range(2):
            async with open_stdio(spec(stdout=url, stderr=url), LinuxKernel()) as streams:
                await write_both(streams)
    finally:
        os.umask(umask)
    assert sorted(path.read_bytes().splitlines()) == [b"err", b"err", b"out", b"out"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o755


async def test_a_path_to_a_file_is_appended_to(tmp_path: Path) -> None:
    """A bare path may be a file that exists, the same one for both outputs."""
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    both = spec(stdout=str(path), stderr=str(path))
    async with open_stdio(both, LinuxKernel()) as streams:
        await write_both(streams)
    assert sorted(path.read_bytes().splitlines()) == [b"before", b"err", b"out"]


async def test_a_large_output_arrives_whole_in_a_file(tmp_path: Path) -> None:
    """8 MiB through the thread, byte for byte."""
    data = os.urandom(BIG)
    path = tmp_path / "log"
    async with open_stdio(spec(stdout=f"file://{path}"), LinuxKernel()) as streams:
        end = container_end(streams, 1)
        await streams.attach()
        streams.take_input()
        await end.send_all(data)
        await end.aclose()
        await streams.drain()
    assert digest(path.read_bytes()) == digest(data)


async def test_a_file_url_that_is_a_fifo_is_refused(fifos: Fifos) -> None:
    """With a reader and without one; no thread hangs in open."""
    url = f"file://{fifos.stdout}"
    with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
        async with open_stdio(spec(stdout=url), LinuxKernel()):
            pytest.fail("it must not open")
    client = reader(fifos.stdout)
    with pytest.raises(InvalidArgumentError, match="not a regular file"):
        async with open_stdio(spec(stdout=url), LinuxKernel()):
            pytest.fail("it must not open")
    await client.aclose()


async def test_a_full_disk_does_not_stop_the_container(caplog: pytest.LogCaptureFixture) -> None:
    """All is read and dropped, with one warning and the sum (containerd#12462)."""
    caplog.set_level(logging.INFO, "trioshim.stdio")
    async with open_stdio(spec(stdout="file:///dev/full"), LinuxKernel()) as streams:
        end = container_end(streams, 1)
        await streams.attach()
        streams.take_input()
        await end.send_all(bytes(BIG))
        await end.aclose()
        await streams.drain()
    assert warnings_in(caplog) == [
        "c1: stdout: cannot be written, bytes are dropped: [Errno 28] No space left on device"
    ]
    assert f"c1: stdout: {BIG} bytes lost in all" in caplog.messages


async def test_a_broken_pipe_does_not_stop_the_copying(caplog: pytest.LogCaptureFixture) -> None:
    """Where splice fails, what is read is dropped; the source never fills up."""
    source, container = make_pipe()
    gone, sink = make_pipe()
    gone.close()
    for end in (source, sink, container):
        os.set_blocking(end.fileno(), False)
    pump = Pump("output", source, sink)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        with container:
            for _ in range(BIG // 4096):
                assert await container.write_some(memoryview(bytes(4096))) in (0, 4096)
    assert pump.lost > 0
    assert source.closed
    assert sink.closed
    assert len(warnings_in(caplog)) == 1


async def test_a_busy_stream_lets_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """With data always ready, there is a turn for everybody after each chunk."""
    monkeypatch.setattr(_pump, "PIPE_SIZE", 4096)
    source, container = make_pipe()
    client, sink = make_pipe()
    with container:
        os.write(container.fileno(), bytes(16 * 4096))
    pump = Pump("output", source, sink)
    turns = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        while not source.closed:
            await trio.lowlevel.checkpoint()
            turns += 1
    assert turns >= 16
    client.close()


@pytest.mark.parametrize("kind", ["fifo", "file", "binary", "terminal"])
async def test_running_out_of_fds_leaks_none(tmp_path: Path, fifos: Fifos, kind: str) -> None:
    """Every step of opening fails once; `nothing_is_left` counts."""
    clients = [reader(fifos.stdout), reader(fifos.stderr)]
    url = {
        "file": f"file://{tmp_path}/log",
        "binary": f"binary-v2://{script(tmp_path / 'logger', READY)}",
    }.get(kind, fifos.stdout)
    given = spec(stdin=fifos.stdin, stdout=url, stderr=fifos.stderr, terminal=kind == "terminal")
    failures = []
    for limit in fd_limits():
        try:
            with at_most(limit):
                async with open_stdio(given, LinuxKernel()):
                    break
        except OSError as error:
            failures.append(error.errno)
            collect_strangers()
    else:
        pytest.fail("it never opened")
    assert len(failures) >= 4
    assert set(failures) == {errno.EMFILE}
    for client in clients:
        await client.aclose()


def collect_strangers() -> None:
    """A child for which there was no pidfd is killed and left to the reaper: here, to us."""
    with suppress(ChildProcessError):
        while True:
            os.waitid(os.P_ALL, 0, os.WEXITED)


def fd_limits() -> range:
    lowest = os.dup(0)
    os.close(lowest)
    return range(lowest, lowest + 60)


@contextmanager
def at_most(limit: int) -> Iterator[None]:
    """No fd of this number or above can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
