"""What a container reads and writes, with a real shim and runc: all of it, and in time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator

import pytest
import trio

from trioshim.containers import (
    DEVNULL,
    PIPE,
    ContainerFailedError,
    open_container,
    run_container,
)
from trioshim.errors import ShimError

from . import container_world
from .container_world import (
    SHIMS,
    Place,
    need,
    said_until,
)
from .shim_parts import until

place = container_world.place

MANY = 10 << 20  # bytes

# ---------------------------------------------------------------- streams


async def test_stdin_comes_whole(place: Place) -> None:
    """10 MiB, and then its end."""
    data = os.urandom(1 << 20) * 10
    done = await run_container(["md5sum"], stdin=data, capture_stdout=True, **place.box)
    assert (done.stdout or b"").split()[0].decode() == hashlib.md5(data).hexdigest()


async def test_both_outputs_come_whole_and_apart(place: Place) -> None:
    """10 MiB in and out, and as much on stderr, at the same time."""
    data = os.urandom(1 << 20) * 10
    script = f"head -c {MANY} /dev/zero >&2 & cat; wait"
    done = await run_container(
        ["sh", "-c", script], stdin=data, capture_stdout=True, capture_stderr=True, **place.box
    )
    assert done.stdout == data
    assert done.stderr == bytes(MANY)


async def test_input_that_nobody_reads_is_dropped(place: Place) -> None:
    """As with trio.run_process: that is the program's business."""
    assert (await run_container(["true"], stdin=bytes(MANY), **place.box)).returncode == 0


async def test_without_input_there_is_none(place: Place) -> None:
    """Who reads finds the end at once."""
    for stdin in (b"", DEVNULL):
        done = await run_container(["cat"], stdin=stdin, capture_stdout=True, **place.box)
        assert done.stdout == b""


async def test_outputs_go_into_files(place: Place) -> None:
    """What is there stays: they are written where they stand."""
    path = place.base / "out"
    with path.open("wb") as file:
        file.write(b"before\n")
        file.flush()
        script = "echo out; echo err >&2"
        await run_container(["sh", "-c", script], stdout=file, stderr=DEVNULL, **place.box)
    assert path.read_bytes() == b"before\nout\n"


async def test_outputs_are_our_own_if_nothing_is_said(place: Place) -> None:
    """And nothing is lost if who reads them takes his time: here until the container is gone."""
    size = 1 << 20  # far more than a pipe holds
    script = place.script(f"""
        done = await run_container(["sh", "-c", "head -c {size} /dev/zero; echo err >&2"], **box)
        sys.exit(done.returncode)
    """)
    assert script.stdout is not None
    assert len(script.stdout.read(10)) == 10
    state = leaks_of_init(place)
    await until(lambda: not any(state()), "init to end", within=30)
    out, err = await trio.to_thread.run_sync(script.communicate)
    assert len(out) == size - 10
    assert err == b"err\n"
    assert script.returncode == 0


def leaks_of_init(place: Place) -> Callable[[], Iterator[str]]:
    """Whether a program of the container runs."""
    return lambda: (line for line in place.traces() if "head -c" in line and "python" not in line)


@pytest.mark.parametrize("blocking", [True, False])
async def test_nobody_reads_our_own_output(place: Place, blocking: bool) -> None:
    """A closed pipe ends the container, and is told as what it is; so with one that would block."""
    reading, writing = os.pipe()
    os.set_blocking(writing, blocking)
    script = place.script(
        """
        try:
            await run_container(["yes"], **box)
        except BrokenPipeError:
            sys.exit(3)
        """,
        stdout=writing,
    )
    os.close(writing)
    assert os.read(reading, 2) == b"y\n"
    os.close(reading)
    _, err = await trio.to_thread.run_sync(script.communicate)
    assert (script.returncode, err) == (3, b"")


async def test_a_full_disk_is_told(place: Place) -> None:
    """By the error, not in a group; and the container has ended."""
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="No space left"):
        await run_container(["yes"], stdout=full, **place.box)
    os.close(full)


async def test_what_nobody_reads_is_dropped_at_the_end(place: Place) -> None:
    """Soon, whether our end is open or closed; the shim's own patience is 10 seconds."""
    for close in (False, True):
        async with open_container(["yes"], stdout=PIPE, **place.box) as container:
            assert container.stdout is not None
            await container.stdout.receive_some(2)
            if close:
                await container.stdout.aclose()
            began = trio.current_time()
        assert trio.current_time() - began < 5


async def test_our_own_output_stands_still(place: Place) -> None:
    """Nobody reads: a cancellation comes through all the same."""
    reading, writing = os.pipe()
    with trio.move_on_after(2) as scope:
        await run_container(["yes"], stdout=writing, **place.box)
    assert scope.cancelled_caught
    assert trio.current_time() - scope.deadline < 5
    os.close(reading)  # which also ends the write that stands still
    os.close(writing)


async def test_a_failure_has_a_message_that_helps(place: Place) -> None:
    """What was run, where, how it ended, and what it said."""
    with pytest.raises(ContainerFailedError) as caught:
        await run_container(
            ["sh", "-c", "echo no such luck >&2; exit 3"],
            id="box",
            capture_stderr=True,
            **place.box,
        )
    assert caught.value.completed.returncode == 3
    assert caught.value.completed.stderr == b"no such luck\n"
    for part in ("exit 3", "container box", "ended with 3", "no such luck"):
        assert part in str(caught.value)
    with pytest.raises(ContainerFailedError, match=r"143 \(signal 15\)"):
        await run_container(["sh", "-c", "sh -c 'kill $$'; exit $?"], **place.box)


async def test_what_cannot_be_started_says_so(place: Place) -> None:
    """No such program: the runtime's own words."""
    with pytest.raises(ShimError, match="no such file"):
        await run_container(["/no/such/program"], **place.box)


# ---------------------------------------------------------------- terminals


async def test_a_terminal(place: Place) -> None:
    """It is one, has the size that was set, echoes, and Ctrl-C is a signal."""
    script = "trap 'echo caught; exit 5' INT; tty; while read line; do eval \"$line\"; done"
    async with open_container(
        ["sh", "-c", script], stdin=PIPE, stdout=PIPE, terminal=True, **place.box
    ) as container:
        assert container.stderr is None
        assert container.stdin is not None
        assert b"/dev/pts/0\r\n" in await said_until(container.stdout, b"\n")
        await container.resize(99, 55)
        await container.stdin.send_all(b"stty size\n")
        assert b"55 99" in await said_until(container.stdout, b"55 99\r\n")
        await container.stdin.send_all(b"\x03")
        await said_until(container.stdout, b"caught")
        assert await container.wait() == 5


async def test_a_terminals_output_is_captured(place: Place) -> None:
    """All of it, also of a program that ends at once."""
    done = await run_container(
        ["sh", "-c", "echo out; echo err >&2"], terminal=True, capture_stdout=True, **place.box
    )
    assert done.stdout == b"out\r\nerr\r\n"


@pytest.mark.parametrize("shim", SHIMS)
async def test_a_terminals_input_has_an_end(place: Place, shim: str) -> None:
    """Also where the last line has none; and what is written afterwards is not cut off."""
    need(shim)
    argv = ["sh", "-c", "cat; echo end"]
    for data in (b"", b"line\n", b"no line"):
        done = await run_container(
            argv, stdin=data, terminal=True, capture_stdout=True, shim=shim, **place.box
        )
        # The first one, if it came early enough, is the terminal's echo.
        typed = data.replace(b"\n", b"\r\n")
        assert done.stdout in {typed + b"end\r\n", 2 * typed + b"end\r\n"}
