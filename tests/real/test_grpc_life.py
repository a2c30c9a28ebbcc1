"""One life, whoever calls: grpcio, purerpc and our own clients hear the same of a real shim.

Each life is told to a new shim, with runc behind it, through every client; its promises are in its
own lines.  Over gRPC the record of all answers (values, status codes and their texts) and of all
events is then that of ttrpc, line for line.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from google.protobuf.any_pb2 import Any

from trioshim.errors import DeadlineExceededError, NotFoundError, StatusError, UnimplementedError
from trioshim.proto import cgroups_v1_pb2
from trioshim.proto import task_v2_pb2 as api
from trioshim.proto.runc_options_pb2 import ProcessDetails
from trioshim.proto.task_types_pb2 import Status

from . import test_bad_input as bad
from .requirements import TRIO, missing_shim
from .shim_parts import open_fifo, until, write_to
from .shim_world import BOX, OBEDIENT, SLEEP, Shim

pytest.importorskip("grpc", reason="the gRPC client `grpcio` is missing")

from .grpc_life import (
    METRICS,
    TASK_V2,
    TASK_V3,
    Life,
    Opener,
    open_grpcio,
    open_purerpc,
    open_trioshim,
    open_ttrpc,
    record,
)

MEMORY = 64 << 20
SOME = 20


async def read_until(fd: int, wanted: bytes) -> bytes:
    """What comes out of a fifo, up to these bytes."""
    data = b""
    with trio.fail_after(15):
        while wanted not in data:
            await trio.lowlevel.wait_readable(fd)
            data += os.read(fd, 4096)
    return data


# ---------------------------------------------------------------- lives


async def plain(shim: Shim) -> None:
    """Created, started, ended by itself with 42, deleted; each state is told."""
    stdin = shim.world.fifo("in")
    connected = await shim.client.connect(api.ConnectRequest(id=BOX))
    assert connected.shim_pid == shim.pid
    pid = await shim.create(BOX, *OBEDIENT, stdin=stdin)
    created = await shim.state(BOX)
    assert (created.pid, created.status, created.stdin) == (pid, Status.CREATED, stdin)
    assert await shim.start(BOX) == pid
    assert (await shim.state(BOX)).status == Status.RUNNING
    write_to(stdin)
    assert await shim.wait(BOX) == 42
    stopped = await shim.state(BOX)
    assert (stopped.status, stopped.exit_status) == (Status.STOPPED, 42)
    assert stopped.exited_at.ToSeconds() > 0
    assert await shim.delete(BOX) == 42
    with pytest.raises(NotFoundError):
        await shim.state(BOX)


async def execs_with_streams(shim: Shim) -> None:
    """What goes in comes out, to the end of the input; and a request of a megabyte arrives."""
    await shim.run(BOX)
    stdin, stdout, stderr = (shim.world.fifo(name) for name in ("in", "out", "err"))
    streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
    with open_fifo(stdout) as output, open_fifo(stderr) as errors:
        await shim.exec(BOX, "e1", "sh", "-c", "cat; echo end >&2; exit 3", **streams)
        await shim.start(BOX, "e1")
        write_to(stdin, b"hello")
        await shim.client.close_io(api.CloseIORequest(id=BOX, exec_id="e1", stdin=True))
        assert await shim.wait(BOX, "e1") == 3
        assert await shim.delete(BOX, "e1") == 3
        assert await read_until(output, b"hello") == b"hello"
        assert await read_until(errors, b"\n") == b"end\n"
    large = shim.world.process("true") | {"padding": "x" * (1 << 20)}
    spec = Any(value=json.dumps(large).encode())
    await shim.client.exec(api.ExecProcessRequest(id=BOX, exec_id="e2", spec=spec))
    await shim.start(BOX, "e2")
    assert await shim.wait(BOX, "e2") == 0


async def terminals(shim: Shim) -> None:
    """Init and an exec each in one of its own, of the size that was told."""
    of_init, of_exec = (
        {"stdin": shim.world.fifo(f"in{name}"), "stdout": shim.world.fifo(f"out{name}")}
        for name in ("", "1")
    )
    with open_fifo(of_init["stdout"]) as screen, open_fifo(of_exec["stdout"]) as other:
        await shim.run(BOX, "sh", terminal=True, **of_init)
        await shim.exec(BOX, "e1", "sh", terminal=True, **of_exec)
        await shim.start(BOX, "e1")
        await use_terminal(shim, "e1", of_exec["stdin"], other, rows=33, columns=101)
        await use_terminal(shim, "", of_init["stdin"], screen, rows=7, columns=50)


async def use_terminal(
    shim: Shim, exec_id: str, stdin: str, screen: int, *, rows: int, columns: int
) -> None:
    await shim.client.resize_pty(
        api.ResizePtyRequest(id=BOX, exec_id=exec_id, height=rows, width=columns)
    )
    write_to(stdin, b"stty size; exit 7\n")
    await read_until(screen, b"%d %d" % (rows, columns))
    assert await shim.wait(BOX, exec_id) == 7


async def numbers(shim: Shim) -> None:
    """Pids name the execs, Stats are the cgroup's, and Update changes what they say."""
    init = await shim.run(BOX)
    await shim.exec(BOX, "e1", *SLEEP)
    exec_pid = await shim.start(BOX, "e1")
    listed = (await shim.client.pids(api.PidsRequest(id=BOX))).processes
    assert {process.pid for process in listed} == {init, exec_pid}
    details = [ProcessDetails.FromString(p.info.value) for p in listed if p.pid == exec_pid]
    assert [detail.exec_id for detail in details] == ["e1"]
    limit = Any(value=json.dumps({"memory": {"limit": MEMORY}}).encode())
    await shim.client.update(api.UpdateTaskRequest(id=BOX, resources=limit))
    stats = (await shim.client.stats(api.StatsRequest(id=BOX))).stats
    metrics = METRICS[stats.type_url].FromString(stats.value)
    assert metrics.pids.current == 2
    if isinstance(metrics, cgroups_v1_pb2.Metrics):
        assert metrics.memory.usage.limit == MEMORY
    else:
        assert metrics.memory.usage_limit == MEMORY
    await shim.kill(BOX, 9, "e1")
    assert await shim.wait(BOX, "e1") == 137


async def freezing(shim: Shim) -> None:
    """Paused and resumed; what cannot be done meanwhile is refused."""
    await shim.run(BOX)
    await shim.exec(BOX, "e1", "true")
    await shim.client.pause(api.PauseRequest(id=BOX))
    assert (await shim.state(BOX)).status == Status.PAUSED
    with pytest.raises(StatusError):
        await shim.start(BOX, "e1")
    await shim.client.resume(api.ResumeRequest(id=BOX))
    assert (await shim.state(BOX)).status == Status.RUNNING
    with pytest.raises(StatusError):
        await shim.client.resume(api.ResumeRequest(id=BOX))


async def kills(shim: Shim) -> None:
    """One exec, another one, everybody; each with the status of its signal."""
    await shim.run(BOX)
    for exec_id, signum in (("e1", signal.SIGTERM), ("e2", signal.SIGKILL)):
        await shim.exec(BOX, exec_id, *SLEEP)
        await shim.start(BOX, exec_id)
        await shim.kill(BOX, signum, exec_id)
        assert await shim.wait(BOX, exec_id) == 128 + signum
        with pytest.raises(NotFoundError, match="process already finished"):
            await shim.kill(BOX, signum, exec_id)
        assert await shim.delete(BOX, exec_id) == 128 + signum
    await shim.client.kill(api.KillRequest(id=BOX, signal=signal.SIGKILL, all=True))
    assert await shim.wait(BOX) == 137
    assert await shim.delete(BOX) == 137


async def bad_requests(shim: Shim) -> None:
    """Those of test_bad_input.py: each with its status code, and the shim goes on."""
    await shim.run(BOX)
    for promise in (
        bad.test_update_without_resources,
        bad.test_exec_without_a_spec,
        bad.test_a_config_that_the_runtime_refuses,
        bad.test_a_program_that_is_not_there,
        bad.test_options_that_are_no_message,
        bad.test_an_id_is_taken_once,
        bad.test_verbs_out_of_order,
        bad.test_what_is_not_there,
        bad.test_calls_that_have_nothing_to_do,
    ):
        await promise(shim)
        for container in [name for name in shim.containers if name != BOX]:
            await shim.remove(container)
    await bad.test_an_exec_id_is_no_path(shim, "../box")
    await bad.test_a_container_id_is_no_path(shim, "")
    await bad.test_a_bundle_is_absolute(shim, "bundle")
    await bad.test_signals_that_are_none(shim, "e1")
    with pytest.raises(UnimplementedError):
        await shim.client._caller.call(TASK_V3, "Dance", b"")
    with pytest.raises(UnimplementedError):
        await shim.client._caller.call("ballet", "Dance", b"")


async def many_waits(shim: Shim) -> None:
    """All are answered, who comes late too; who leaves before is missed by nobody."""
    await shim.run(BOX)
    with pytest.raises(DeadlineExceededError):
        await shim.client.wait(api.WaitRequest(id=BOX), timeout=0.1)
    for exec_id in ("e1", "e2"):
        await shim.exec(BOX, exec_id, *SLEEP)
        await shim.start(BOX, exec_id)
    statuses: list[int] = []

    async def wait(exec_id: str) -> None:
        statuses.append(await shim.wait(BOX, exec_id))

    async with trio.open_nursery() as leaving:
        for _ in range(SOME):
            leaving.start_soon(wait, "e2")
        await trio.testing.wait_all_tasks_blocked(0.01)
        leaving.cancel_scope.cancel()
    assert statuses == []
    async with trio.open_nursery() as waiting:
        for exec_id in ["e1"] * SOME:
            waiting.start_soon(wait, exec_id)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert statuses == []
        await shim.kill(BOX, 15, "e1")
    assert statuses == [143] * SOME
    assert await shim.wait(BOX, "e1") == 143
    await shim.kill(BOX, 9, "e2")
    assert await shim.wait(BOX, "e2") == 137


async def events(shim: Shim) -> None:
    """Each answer comes after its event is queued, so the daemon hears them in that order."""
    await shim.run(BOX)
    for exec_id in ("e1", "e2", "e3"):
        await shim.exec(BOX, exec_id, "sh", "-c", f"exit {exec_id[1]}")
        await shim.start(BOX, exec_id)
        await shim.wait(BOX, exec_id)
        await shim.delete(BOX, exec_id)
    await shim.remove(BOX)
    daemon = shim.world.daemon
    await until(lambda: "delete" in daemon.topics(), "the events")
    of_execs = ["exec-added", "exec-started", "exit"] * 3
    assert daemon.topics() == ["create", "start", *of_execs, "exit", "delete"]
    assert daemon.exits(BOX) == [("e1", 1), ("e2", 2), ("e3", 3), (BOX, 137)]
    shim.containers.clear()


LIVES = [
    plain,
    execs_with_streams,
    terminals,
    numbers,
    freezing,
    kills,
    bad_requests,
    many_waits,
    events,
]
CLIENTS: dict[str, Opener] = {
    "grpcio": open_grpcio,
    "purerpc": open_purerpc,
    "trioshim": open_trioshim,
}


# ---------------------------------------------------------------- the promise


@pytest.fixture(scope="module")
def by_ttrpc() -> dict[Life, list[str]]:
    """The records of our own client, made when the first one asks."""
    return {}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.__name__)
async def test_a_life_over_grpc_is_that_over_ttrpc(
    machine: None,
    give_up: Callable[[str], None],
    rootfs: Path,
    by_ttrpc: dict[Life, list[str]],
    life: Life,
    client: str,
) -> None:
    """The same promises, the same answers, the same events; and nothing is left behind."""
    give_up(missing_shim(TRIO))
    if life not in by_ttrpc:
        by_ttrpc[life] = await record(life, open_ttrpc, TASK_V2, rootfs)
    assert await record(life, CLIENTS[client], TASK_V3, rootfs) == by_ttrpc[life]
