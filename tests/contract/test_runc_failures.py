"""A runtime that misbehaves: what that is told as, and that nothing of it is left.

The runtime is a shell script, the kernel is the real one.  Neither root nor runc is needed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from trioshim.abc import Child
from trioshim.errors import (
    DeadlineExceededError,
    RuntimeFailedError,
)

from . import runc_world
from .runc_world import Bench, Pipe, PlainStdio


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A bench; afterwards no fd and no child with an owner may be left."""
    with runc_world.open_bench(tmp_path) as bench:
        yield bench


@pytest.fixture
def pipe(bench: Bench) -> Iterator[Pipe]:
    with runc_world.open_pipe() as pipe:
        yield pipe


async def test_a_missing_program_is_told_with_advice(bench: Bench) -> None:
    """The text that docker looks for, and what to do."""
    bench.use("no-such-runc")
    with pytest.raises(RuntimeFailedError) as caught:
        await bench.create()
    assert str(caught.value).startswith(
        'OCI runtime create failed: exec: "no-such-runc": executable file not found in $PATH'
    )
    assert bench.files == set()


async def test_a_program_that_is_not_executable_is_told(bench: Bench) -> None:
    """Not every failure to start is a missing file."""
    bench.script("exit 0")
    (bench.path / "fake-runc").chmod(0o644)
    with pytest.raises(RuntimeFailedError, match="Permission denied"):
        await bench.runtime.start(bench.spec)


async def test_a_hanging_create_is_killed_with_its_group(
    bench: Bench, pipe: Pipe, mock_clock: MockClock
) -> None:
    """After two minutes the runtime and its helpers are gone, and the error says so."""
    bench.script("echo last words >&2; sleep 1000 & wait")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_when_heard, pipe, lambda: mock_clock.jump(120))
        with pytest.raises(DeadlineExceededError, match="create did not end within 120 s"):
            await bench.create(pipe.stdio)
    await pipe.read_all()
    assert bench.files == set()


async def test_a_hanging_kill_has_ten_seconds(
    bench: Bench, pipe: Pipe, mock_clock: MockClock
) -> None:
    """Kill is what a user tries when all else hangs, so its own limit is short."""
    child = bench.kernel.spawn(["true"])
    await child.wait()
    bench.script(f"echo here >{pipe.path}; echo last words; exec sleep 1000")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_when_heard, pipe, lambda: mock_clock.jump(10))
        with pytest.raises(DeadlineExceededError, match="kill did not end within 10 s"):
            await bench.runtime.kill(bench.spec, child, 9, all=False)


async def test_a_cancelled_create_is_killed_with_its_group(bench: Bench, pipe: Pipe) -> None:
    """The caller gives up: the runtime and its helpers end before the call does."""
    bench.script("echo here; sleep 1000 & wait")
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(_when_heard, pipe, scope.cancel)
            await bench.create(pipe.stdio)
    assert scope.cancelled_caught
    assert not bench.kernel._owned
    with trio.fail_after(30):
        await pipe.read_all()
    assert bench.files == set()


async def test_a_runtime_that_cannot_be_killed_does_not_hold_us(
    bench: Bench, pipe: Pipe, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In state D not even SIGKILL works: after five seconds the reaper inherits it."""

    def kill_in_vain(child: Child) -> None:
        mock_clock.autojump_threshold = 0

    monkeypatch.setattr(bench.kernel, "kill_group", kill_in_vain)
    bench.script("echo here; exec sleep 1000")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_when_heard, pipe, lambda: mock_clock.jump(120))
        with pytest.raises(DeadlineExceededError):
            await bench.create(pipe.stdio)
    assert not bench.kernel._owned


# Out of reach of a signal to the runtime's process group, like a container's init.
LEAVES_A_PROCESS = "setsid sleep 1000 & echo $! >$pid; "


async def test_a_process_that_a_failed_exec_leaves_is_killed(bench: Bench, pipe: Pipe) -> None:
    """What the runtime has started does not live on without a name."""
    bench.script(LEAVES_A_PROCESS + "exit 1")
    with trio.fail_after(30):
        with pytest.raises(RuntimeFailedError):
            await bench.exec(pipe.stdio)
        await pipe.read_all()
    assert bench.files == set()


async def test_a_process_that_a_cancelled_exec_leaves_is_killed(bench: Bench, pipe: Pipe) -> None:
    """The same when the caller gives up after the process was started."""
    bench.script(LEAVES_A_PROCESS + "echo here; exec sleep 1000")
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(_when_heard, pipe, scope.cancel)
                await bench.exec(pipe.stdio)
        assert scope.cancelled_caught
        await pipe.read_all()
    assert bench.files == set()


async def test_a_megabyte_of_errors_does_not_stop_it(bench: Bench) -> None:
    """It is read while the runtime writes (containerd#4434), and only its ends are kept."""
    bench.script("echo begin >&2; head -c 1048576 /dev/zero | tr '\\0' x >&2; echo end >&2; exit 1")
    with trio.fail_after(60), pytest.raises(RuntimeFailedError) as caught:
        await bench.runtime.start(bench.spec)
    text = caught.value.message
    assert "exit status 1: begin" in text
    assert text.endswith("end")
    assert 64 * 1024 < len(text) < 70 * 1024


async def test_an_init_that_holds_our_pipe_does_not_hold_us(bench: Bench) -> None:
    """The end of the process is the end of the command, not the end of its output."""
    bench.script(f"sleep 1000 & echo $! >{bench.bundle}/left.pid; echo oops >&2; exit 3")
    with trio.fail_after(60), pytest.raises(RuntimeFailedError, match="status 3: oops"):
        await bench.runtime.start(bench.spec)
    (left,) = bench.bundle.glob("*.pid")
    os.kill(int(left.read_text()), 9)


async def test_the_error_is_the_last_one_in_the_commands_own_log(bench: Bench) -> None:
    """An earlier command's log is never looked at, and none is left behind."""
    (bench.bundle / "log.json").write_text('{"level": "error", "msg": "stale"}\n')
    bench.script(
        """cat >>$log <<'END'
{"level":"error","msg":"one"}
{"level":"error","msg":"two\\n"}
END
echo noise; exit 1"""
    )
    with pytest.raises(RuntimeFailedError) as caught:
        await bench.runtime.pause(bench.spec)
    assert caught.value.message == "OCI runtime pause failed: two"
    assert (caught.value.status, caught.value.log) == (1, "two")
    assert bench.files == {"log.json"}


async def test_the_end_of_a_huge_log_is_read(bench: Bench) -> None:
    """The error is the last thing that a failing runtime writes."""
    bench.script(
        """head -c 5000000 /dev/zero | tr '\\0' '\\n' >>$log
echo '{"level":"error","msg":"at last"}' >>$log; exit 1"""
    )
    with pytest.raises(RuntimeFailedError, match=r"start failed: at last$"):
        await bench.runtime.start(bench.spec)


async def test_with_a_terminal_the_runtimes_own_output_is_heard(bench: Bench) -> None:
    """The container writes to its pty, so what comes here is the runtime's."""
    bench.script("echo oops >&2; exit 1")
    with pytest.raises(RuntimeFailedError, match="exit status 1: oops"):
        await bench.create(PlainStdio(console_socket="/no/such.sock"))


async def test_a_runtime_that_is_killed_is_told_by_the_signal(bench: Bench) -> None:
    """Usually the OOM killer's work, so the name helps."""
    bench.script("kill -9 $$")
    with pytest.raises(RuntimeFailedError, match=r"exit status 137 \(SIGKILL\)") as caught:
        await bench.create()
    assert caught.value.status == 137


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("exit 0", r"open .*/init\.pid: No such file"),
        ("printf garbage >$pid", "contains no pid but b'garbage'"),
        (": >$pid", "contains no pid but b''"),
        ("printf 1 >$pid", "contains no pid but b'1'"),
        ("printf -- -1 >$pid", "contains no pid"),
        ("head -c 1000 /dev/zero | tr '\\0' 7 >$pid", "more than 64 bytes"),
        ("printf 999999999 >$pid", "no child of this shim"),
        (f"printf {os.getpid()} >$pid", "no child of this shim"),
    ],
)
async def test_a_useless_pid_file_is_told(bench: Bench, body: str, why: str) -> None:
    """A runtime that says it is done but names no child of ours has failed."""
    bench.script(body)
    with pytest.raises(RuntimeFailedError, match=why) as caught:
        await bench.create()
    assert "failed to retrieve OCI runtime container pid: " in str(caught.value)


async def test_a_stale_pid_file_is_not_believed(bench: Bench) -> None:
    """The pid is the one that this command wrote."""
    (bench.bundle / "init.pid").write_text(str(os.getpid()))
    bench.script("exit 0")
    with pytest.raises(RuntimeFailedError, match="No such file"):
        await bench.create()


# Not a shell script: shells collect their children when they feel like it.
LEAVES_A_ZOMBIE = f"""#!{sys.executable}
import os, sys
pid = os.posix_spawnp("sh", ["sh", "-c", "exit 7"], os.environ)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
with open(sys.argv[sys.argv.index("--pid-file") + 1], "w") as file:
    file.write(str(pid))
"""


async def test_an_init_that_has_ended_already_is_not_lost(bench: Bench) -> None:
    """Its exit is still there to be waited for, and init.pid stays for the delete action."""
    bench.program(LEAVES_A_ZOMBIE)
    init = await bench.create()
    assert (await init.wait()).status == 7
    assert bench.files == {"init.pid"}


async def _when_heard(pipe: Pipe, then: Callable[[], object]) -> None:
    """The script has come as far as to write something: now do what the test is about."""
    await pipe.read()
    then()
