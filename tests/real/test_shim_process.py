"""The shim as a process: signals, log, fds, who may connect, how it ends and what comes after."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from trioshim.proto import task_v2_pb2 as api
from trioshim.proto.task_types_pb2 import Status

from .requirements import TRIO, missing_shim
from .shim_parts import open_raw, until, write_to
from .shim_world import BOX, OBEDIENT, SLEEP, Shim, ShimWorld, open_shim_world

# One line of the daemon's own format, with the words that all of ours have.
LOGRUS = re.compile(
    r'time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z" level=(debug|info|warning|error|fatal) '
    r'msg="([^"\\]|\\.)*" logger=trioshim[.\w]* id=box namespace=tsw-[0-9a-f]{8}'
    r"( lost_lines=\d+)?"
)
# As another user: only when all its modules are loaded, for not everybody may read them.
STRANGER = """
import os, socket, sys
os.setgroups([])
os.setgid(int(sys.argv[3]))
os.setuid(int(sys.argv[3]))
with socket.socket(socket.AF_UNIX) as client:
    client.connect(sys.argv[1])
    try:
        client.sendall(bytes.fromhex(sys.argv[2]))
        print(client.recv(100))
    except (BrokenPipeError, ConnectionResetError):
        print(b"")
"""


@pytest.fixture
async def shim(world: ShimWorld) -> Shim:
    """A shim with a running container, `BOX`."""
    shim = await world.start(BOX)
    await shim.run(BOX)
    return shim


async def make_noise(shim: Shim, lines: int) -> None:
    """Each connection that speaks no protocol is worth a line in the log."""
    for _ in range(lines):
        async with open_raw(shim.address) as stream:
            await stream.send_all(b"noise" * 20)
            with trio.fail_after(10), suppress(trio.BrokenResourceError):
                assert await stream.receive_some() == b""


def is_asleep(pid: int) -> bool:
    """It lives and runs `SLEEP`, not the runtime's own code any more."""
    return Path(f"/proc/{pid}/comm").read_text() == "sleep\n"


def fds_of(pid: int) -> dict[str, str]:
    return {fd.name: os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}


# ---------------------------------------------------------------- how it is placed


async def test_it_holds_nothing_of_its_starter(shim: Shim) -> None:
    """0, 1 and 2 are /dev/null, its group is its own, its directory is the bundle."""
    for fd in range(3):
        assert os.readlink(f"/proc/{shim.pid}/fd/{fd}") == "/dev/null"
    assert os.getpgid(shim.pid) == shim.pid
    assert os.readlink(f"/proc/{shim.pid}/cwd") == str(shim.bundle)


async def test_its_fds_do_not_reach_a_container(shim: Shim) -> None:
    """Only /dev/null for 0, 1 and 2, in init and in an exec."""
    await shim.exec(BOX, "e1", *SLEEP)
    for pid in ((await shim.state(BOX)).pid, await shim.start(BOX, "e1")):
        await until(partial(is_asleep, pid), "its program")
        assert fds_of(pid) == dict.fromkeys("012", "/dev/null")
    await shim.kill(BOX, 9, "e1")
    await shim.wait(BOX, "e1")


async def test_another_user_is_hung_up_on(shim: Shim) -> None:
    """Even one who gets past the socket's mode reads no byte; the log says who it was."""
    path = shim.address.removeprefix("unix://")
    assert os.stat(path).st_mode & 0o777 == 0o600
    for opened in (shim.world.base, shim.world.sockets):
        opened.chmod(0o755)
    request = "000000000000000101" + "00"  # an empty request frame: we would answer it
    argv = [sys.executable, "-Ic", STRANGER, path, request]
    answers = []
    for mode, uid in ((0o600, 65534), (0o666, 65534), (0o666, 0)):
        os.chmod(path, mode)
        done = await trio.run_process(
            [*argv, str(uid)], capture_stdout=True, capture_stderr=True, check=False
        )
        answers.append(done.stdout.decode() or done.stderr.decode().splitlines()[-1])
    assert "Permission denied" in answers[0]
    assert answers[1] == "b''\n"
    assert "service" in answers[2]
    assert "refused a connection of uid 65534, gid 65534" in shim.said()


# ---------------------------------------------------------------- signals


async def test_sigusr1_tells_what_everybody_waits_for(shim: Shim) -> None:
    """Into the bundle, private, and into the log; the shim goes on."""
    os.kill(shim.pid, signal.SIGUSR1)
    file = shim.bundle / "tasks.txt"
    await until(file.exists, "tasks.txt")
    tree = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert "_container.py" in tree
    assert "init.child.wait()" in tree
    await until(lambda: 'msg="tasks:\\n' in shim.said(), "the log")
    assert "init.child.wait()" in shim.said()
    assert (await shim.state(BOX)).status == Status.RUNNING


async def test_sigusr1_follows_no_symlink(shim: Shim) -> None:
    """A bundle may be writable for a container's root."""
    victim = shim.world.base / "victim"
    victim.write_text("precious")
    (shim.bundle / "tasks.txt").symlink_to(victim)
    os.kill(shim.pid, signal.SIGUSR1)
    await until(lambda: not (shim.bundle / "tasks.txt").is_symlink(), "tasks.txt")
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_shim_alone(shim: Shim, signum: signal.Signals) -> None:
    """Its socket is gone, its container runs on; the delete verb ends that and says 137."""
    init = (await shim.state(BOX)).pid
    os.kill(shim.pid, signum)
    await shim.wait_ended()
    assert list(shim.world.sockets.iterdir()) == []
    assert is_asleep(init)
    assert f"signal {int(signum)}: the shim ends" in shim.said()
    assert await delete(shim) == (init, 137)


async def test_shutdown_with_a_container_is_not_meant(shim: Shim) -> None:
    """The daemon asks for it after each container; the last one counts."""
    await shim.client.shutdown(api.ShutdownRequest(id=BOX))
    assert (await shim.state(BOX)).status == Status.RUNNING
    await shim.remove(BOX)
    await shim.client.shutdown(api.ShutdownRequest(id=BOX))
    await shim.wait_ended()
    assert list(shim.world.sockets.iterdir()) == []


# ---------------------------------------------------------------- killed


async def delete(shim: Shim) -> tuple[int, int]:
    """What the delete verb says about pid and status."""
    done = await shim.world.verb("delete", shim.id)
    response = api.DeleteResponse.FromString(done.stdout)
    return response.pid, response.exit_status


async def test_an_exit_outlives_the_shim(world: ShimWorld) -> None:
    """Killed after its container has ended with 42, and not a made-up 137 (containerd#8381)."""
    shim = await world.start(BOX)
    stdin = world.fifo("in")
    pid = await shim.run(BOX, *OBEDIENT, stdin=stdin)
    write_to(stdin)
    assert await shim.wait(BOX) == 42
    os.kill(shim.pid, signal.SIGKILL)
    await shim.wait_ended()
    assert await delete(shim) == (pid, 42)
    assert world.traces() == []


async def test_a_container_does_not_outlive_its_deletion(shim: Shim) -> None:
    """The shim was killed while it ran: `delete` kills it, its execs too, and says 137."""
    await shim.exec(BOX, "e1", *SLEEP)
    await shim.start(BOX, "e1")
    init = (await shim.state(BOX)).pid
    os.kill(shim.pid, signal.SIGKILL)
    await shim.wait_ended()
    assert await delete(shim) == (init, 137)
    await until(lambda: shim.world.traces() == [], "everything to vanish")
    assert await delete(shim) == (init, 137)


async def test_a_new_shim_takes_the_place_of_a_killed_one(shim: Shim) -> None:
    """After `delete` the same id can be started, created and run."""
    os.kill(shim.pid, signal.SIGKILL)
    await shim.wait_ended()
    await delete(shim)
    for name in ("log", "exit", "init.pid", "options.json", "runtime"):
        (shim.bundle / name).unlink(missing_ok=True)
    again = await shim.world.start(BOX)
    assert again.address == shim.address
    assert await again.run(BOX)


# ---------------------------------------------------------------- the log


async def test_the_log_is_the_daemons_format(shim: Shim) -> None:
    """Level, message, and whose line it is, so that it can be found among all shims'."""
    await make_noise(shim, 3)
    lines = shim.said().splitlines()
    assert len(lines) >= 4
    for line in lines:
        assert LOGRUS.fullmatch(line), line
    assert 'level=info msg="shim ' in lines[0]
    assert f"serves, pid {shim.pid}" in lines[0]


async def test_a_long_line_is_a_line_of_that_format_too(shim: Shim) -> None:
    """It may be cut, but not at the words that tell what it is."""
    for number in range(20):
        await shim.exec(BOX, f"e{number}", *SLEEP)
        await shim.start(BOX, f"e{number}")
    os.kill(shim.pid, signal.SIGUSR1)
    await until((shim.bundle / "tasks.txt").exists, "tasks.txt")
    assert (shim.bundle / "tasks.txt").stat().st_size > 8192
    for line in shim.said().splitlines():
        assert LOGRUS.fullmatch(line), line


async def test_nobody_has_to_read_the_log(shim: Shim) -> None:
    """What does not fit is counted and left out; a new reader gets the new lines."""
    shim.read_log(on=False)
    await make_noise(shim, 800)
    assert (await shim.state(BOX)).status == Status.RUNNING
    shim.read_log()
    old = shim.said()
    assert old.count("neither ttrpc nor gRPC") < 800
    os.kill(shim.pid, signal.SIGUSR1)
    await until(lambda: "tasks:" in shim.said(), "a new line")
    new = shim.said().removeprefix(old)
    assert re.search(r"lost_lines=\d+", new)


async def test_without_a_log_nothing_is_lost_but_words(world: ShimWorld) -> None:
    """The daemon has removed the fifo."""
    shim = await world.start(BOX)
    (shim.bundle / "log").unlink()
    await shim.run(BOX)
    await make_noise(shim, 3)
    assert (await shim.state(BOX)).status == Status.RUNNING


# ---------------------------------------------------------------- events


async def test_events_wait_for_the_daemon(
    machine: None, rootfs: Path, give_up: Callable[[str], None]
) -> None:
    """It comes seconds late: all of them arrive, in order, each with the time it happened."""
    give_up(missing_shim(TRIO))
    async with open_shim_world(rootfs, listening=False) as world:
        shim = await world.start(BOX)
        stdin = world.fifo("in")
        await shim.run(BOX, *OBEDIENT, stdin=stdin)
        await shim.exec(BOX, "e1", "true")
        await shim.start(BOX, "e1")
        assert await shim.wait(BOX, "e1") == 0
        await shim.delete(BOX, "e1")
        write_to(stdin)
        assert await shim.wait(BOX) == 42
        await until(lambda: shim.said().count("event /tasks/create waits") >= 4, "four tries")
        await world.nursery.start(world.daemon.serve)
        await shim.remove(BOX)
        await until(lambda: "delete" in world.daemon.topics(), "the events")
        life = ["create", "start", "exec-added", "exec-started", "exit", "exit", "delete"]
        assert world.daemon.topics() == life
        assert world.daemon.exits(BOX) == [("e1", 0), (BOX, 42)]
        stamps = [envelope.timestamp.ToNanoseconds() for envelope in world.daemon.envelopes]
        assert stamps == sorted(stamps)
        assert {envelope.namespace for envelope in world.daemon.envelopes} == {world.namespace}


async def test_events_survive_a_restart_of_the_daemon(shim: Shim) -> None:
    """Away for a while in the middle of a life: nothing is missing and nothing overtakes."""
    daemon, nursery = shim.world.daemon, shim.world.nursery
    await until(lambda: len(daemon.envelopes) == 2, "create and start")
    daemon.stop()
    await until(lambda: not daemon.path.exists(), "the daemon to end")
    for number in range(5):
        await shim.exec(BOX, f"e{number}", "true")
        await shim.start(BOX, f"e{number}")
        await shim.wait(BOX, f"e{number}")
    await nursery.start(daemon.serve)
    await until(lambda: len(daemon.envelopes) >= 17, "the events")
    expected = ["create", "start", *(["exec-added", "exec-started", "exit"] * 5)]
    assert daemon.topics() == expected
    assert daemon.exits(BOX) == [(f"e{number}", 0) for number in range(5)]


async def test_a_daemon_that_never_comes_back_does_not_hold_the_shim(shim: Shim) -> None:
    """Shutdown waits a few seconds for it and no longer."""
    shim.world.daemon.stop()
    await until(lambda: not shim.world.daemon.path.exists(), "the daemon to end")
    await shim.remove(BOX)
    await shim.client.shutdown(api.ShutdownRequest(id=BOX))
    await shim.wait_ended(within=12)
    assert "events were not delivered" in shim.said()
