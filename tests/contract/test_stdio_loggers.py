"""Streams to a client's logging process."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import trio

from trioshim.errors import (
    DeadlineExceededError,
    StatusError,
)
from trioshim.linux import LinuxKernel, _logger
from trioshim.linux._logger import open_logger
from trioshim.linux._stdio import _Streams, open_stdio
from trioshim.linux._stdio_url import parse_route

from . import stdio_world
from .stdio_world import (
    BIG,
    READY,
    Fifos,
    container_end,
    script,
    spec,
    warnings_in,
    write_both,
)

nothing_is_left = stdio_world.nothing_is_left
fifos = stdio_world.fifos


async def test_a_logger_reads_the_output_itself(tmp_path: Path) -> None:
    """Arguments, environment, fds and readiness are as containerd's loggers expect them."""
    program = script(
        tmp_path / "log",
        f'cd "{tmp_path}"\nenv > env\nprintf "%s," "$@" > args\nls /proc/$$/fd > fds\n'
        + READY
        + "cat <&3 > out &\ncat <&4 > err\nwait\n",
    )
    url = f"binary://{program}?b=1&a&c="
    async with open_stdio(spec(stdin="/no/fifo", stdout=url, stderr=url), LinuxKernel()) as s:
        assert set(s.fds) == {1, 2}
        await write_both(s)
    assert (tmp_path / "args").read_text() == "b,1,a,,c,,"
    told = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert told.pop("CONTAINER_ID") == "c1"
    assert told.pop("CONTAINER_NAMESPACE") == "ns"
    assert set(told) <= {"PWD", "OLDPWD", "SHLVL", "_"}, "more than the shell's own"
    assert (tmp_path / "out").read_bytes() == b"out\n"
    assert (tmp_path / "err").read_bytes() == b"err\n"
    assert {"3", "4", "5"} <= set((tmp_path / "fds").read_text().split())


async def test_a_logger_that_closes_fd_5_is_ready(tmp_path: Path) -> None:
    """The first version takes EOF for readiness; the second wants a byte."""
    program = script(tmp_path / "log", "exec 5>&-\ncat <&3 >/dev/null\n")
    async with open_stdio(spec(stdout=f"binary://{program}"), LinuxKernel()) as streams:
        await write_both(streams)


async def test_a_strict_logger_that_dies_is_an_error_with_its_status(tmp_path: Path) -> None:
    """Create fails and says why."""
    program = script(tmp_path / "log", "exit 41\n")
    with pytest.raises(StatusError, match=f"logger {program} ended with status 41"):
        async with open_stdio(spec(stdout=f"binary-v2://{program}"), LinuxKernel()):
            pytest.fail("it must not open")


async def test_a_missing_logger_is_named(tmp_path: Path) -> None:
    """The usual OSError."""
    with pytest.raises(FileNotFoundError, match="nobody"):
        async with open_stdio(spec(stdout=f"binary://{tmp_path}/nobody"), LinuxKernel()):
            pytest.fail("it must not open")


async def test_a_logger_that_is_never_ready_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At once: it may ignore SIGTERM, and Create has waited long enough."""
    monkeypatch.setattr(_logger, "READY_TIMEOUT", 0.05)
    program = script(tmp_path / "log", "trap '' TERM\nexec sleep 1000\n")
    with pytest.raises(DeadlineExceededError, match="did not write to fd 5"):
        async with open_stdio(spec(stdout=f"binary://{program}"), LinuxKernel()):
            pytest.fail("it must not open")
    assert warnings_in(caplog) == [], "it had time to end by itself"


async def test_a_logger_may_end_by_itself_when_nothing_was_attached(tmp_path: Path) -> None:
    """It sees the end of its input first; a failed Create looks like this."""
    program = script(tmp_path / "log", READY + f"cat <&3\necho bye > {tmp_path}/said\n")
    async with open_stdio(spec(stdout=f"binary://{program}"), LinuxKernel()):
        pass
    assert (tmp_path / "said").read_text() == "bye\n"


async def test_what_a_logger_has_not_read_is_worth_waiting_for(
    tmp_path: Path, fifos: Fifos
) -> None:
    """`drain` sees unread bytes as a client that does not read, and their end as the end."""
    go = trio.lowlevel.FdStream(os.open(fifos.stdin, os.O_RDWR | os.O_NONBLOCK))
    program = script(
        tmp_path / "log", f"exec 6<{fifos.stdin}\n{READY}cat <&6\nexec cat <&3 >/dev/null\n"
    )
    given = spec(stdout=f"binary://{program}")
    async with open_logger(parse_route(given), given, LinuxKernel()) as process:
        unread = [process.blocked]
        process.stderr.close()
        with process.stdout as container:
            await container.write_some(memoryview(b"unread"))
        unread.append(process.blocked)
        await go.aclose()
        await process.wait_ended()
        unread.append(process.blocked)
    assert unread == [False, True, False]


async def test_a_logger_that_stays_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """End of input, SIGTERM, SIGKILL; also when the block is cancelled."""
    monkeypatch.setattr(_logger, "LEAVE_TIMEOUT", 0.02)
    monkeypatch.setattr(_logger, "TERM_TIMEOUT", 0.02)
    program = script(tmp_path / "log", "trap '' TERM\n" + READY + "exec sleep 1000\n")
    with trio.CancelScope() as scope:
        async with open_stdio(spec(stdout=f"binary://{program}"), LinuxKernel()):
            scope.cancel()
            await trio.sleep_forever()
    assert warnings_in(caplog) == [f"c1: logger {program}: it does not end, so it is killed"]


async def test_a_logger_is_asked_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGTERM comes before SIGKILL."""
    monkeypatch.setattr(_logger, "LEAVE_TIMEOUT", 0.02)
    monkeypatch.setattr(_logger, "TERM_TIMEOUT", 60)
    program = script(tmp_path / "log", READY + "exec sleep 1000\n")
    async with open_stdio(spec(stdout=f"binary://{program}"), LinuxKernel()):
        pass
    assert warnings_in(caplog) == []


async def test_a_crashed_logger_is_started_again_and_misses_nothing(tmp_path: Path) -> None:
    """The second one reads on where the first one stopped."""
    program = script(
        tmp_path / "log",
        f'cd "{tmp_path}"\n{READY}'
        "if [ ! -e once ]; then : > once; read line <&3; echo $line > first; exit 3; fi\n"
        "cat <&3 > second\n",
    )
    async with open_stdio(spec(stdout=f"binary://{program}"), LinuxKernel()) as streams:
        out = container_end(streams, 1)
        await streams.attach()
        streams.take_input()
        await out.send_all(b"one\ntwo\n")
        await out.aclose()
        await streams.drain()
    assert (tmp_path / "first").read_bytes() == b"one\n"
    assert (tmp_path / "second").read_bytes() == b"two\n"


async def test_when_the_second_logger_crashes_too_the_container_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its output is dropped, and the log says so."""
    program = script(tmp_path / "log", READY + "exit 3\n")
    async with open_stdio(spec(stdout=f"binary://{program}"), LinuxKernel()) as streams:
        out, err = container_end(streams, 1), container_end(streams, 2)
        await streams.attach()
        streams.take_input()
        await out.send_all(bytes(BIG))
        await err.send_all(bytes(BIG))
        await out.aclose()
        await err.aclose()
        await streams.drain()
    name = f"c1: logger {program}"
    assert warnings_in(caplog) == [
        f"{name}: it ended with status 3 before its input did",
        f"{name}: it is started once more",
        f"{name}: it ended with status 3 before its input did",
        f"{name}: the output is dropped from here on",
    ]


async def test_a_logger_that_cannot_start_again_is_replaced_by_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its file is gone."""
    program = script(tmp_path / "log", 'rm "$0"\n' + READY + "exit 3\n")
    async with open_stdio(spec(stdout=f"binary://{program}"), LinuxKernel()) as streams:
        out = container_end(streams, 1)
        await streams.attach()
        streams.take_input()
        await out.send_all(bytes(BIG))
        await out.aclose()
        await streams.drain()
    assert "it cannot be started again" in warnings_in(caplog)[2]


async def test_a_logger_gives_way_to_a_descendant(tmp_path: Path) -> None:
    """The pipe is held open, all is read: drain ends by idleness, long before its cap."""
    program = script(tmp_path / "log", READY + "exec cat <&3 >/dev/null\n")
    async with open_stdio(spec(stdout=f"binary://{program}"), LinuxKernel()) as streams:
        assert isinstance(streams, _Streams)
        descendant = container_end(streams, 1)
        await streams.attach()
        streams.take_input()
        with trio.fail_after(60):
            await streams.drain(idle=0.05, cap=math.inf)
        await descendant.aclose()
