"""Conformance: what is asked about a container, what is changed of it, and how a shim ends.

The first line of a docstring is the promise, the rest says who relies on it.
"""

from __future__ import annotations

from google.protobuf.any_pb2 import Any

from ...errors import NotFoundError as NotFound
from ...errors import ShimError, UnimplementedError
from ...proto import cgroups_v1_pb2, cgroups_v2_pb2
from ...proto import task_v2_pb2 as api
from ...proto.runc_options_pb2 import ProcessDetails
from ...proto.task_types_pb2 import Status
from ._bench import CONTAINER, FOREVER, QUICK, Bench, PromiseBrokenError, equal, holds

__all__ = ["CASES"]

SERVICE = "containerd.task.v2.Task"
LIMITS = Any(
    type_url="types.containerd.io/opencontainers/runtime-spec/1/LinuxResources",
    value=b'{"pids": {"limit": 50}}',
)
METRICS: dict[str, type[cgroups_v1_pb2.Metrics | cgroups_v2_pb2.Metrics]] = {
    "io.containerd.cgroups.v1.Metrics": cgroups_v1_pb2.Metrics,
    "io.containerd.cgroups.v2.Metrics": cgroups_v2_pb2.Metrics,
}


async def pids_of_a_created_container(bench: Bench) -> None:
    """Pids answers init, from Create on.

    A daemon that restarts takes a shim without pids for leaked, and ends it (containerd#13784).
    """
    pid = await bench.create()
    listed = await bench.ask(bench.task.pids, api.PidsRequest(id=CONTAINER))
    equal("pids in Pids", [process.pid for process in listed.processes], [pid])


async def pids_names_init_and_execs(bench: Bench) -> None:
    """Pids answers init and each exec; an exec has ProcessDetails with its id.

    `docker top` and `ctr task ps` show these, and which process belongs to which exec.
    """
    init = await bench.run()
    pids = {init: "", await bench.run_exec("e1"): "e1", await bench.run_exec("e2"): "e2"}
    listed = await bench.ask(bench.task.pids, api.PidsRequest(id=CONTAINER))
    named = {p.pid: ProcessDetails.FromString(p.info.value).exec_id for p in listed.processes}
    for pid, exec_id in pids.items():
        equal(f"exec id of {pid} in Pids", named.get(pid), exec_id)


async def stats_answers_metrics(bench: Bench) -> None:
    """Stats answers the Metrics of containerd's cgroups, of the version that the host has.

    containerd reads no other type: `docker stats` and the kubelet show nothing then.
    """
    await bench.run()
    stats = (await bench.ask(bench.task.stats, api.StatsRequest(id=CONTAINER))).stats
    name = stats.type_url.rpartition("/")[2]
    holds(f"the type in Stats must be one of {sorted(METRICS)}", name in METRICS, name)
    metrics = METRICS[name].FromString(stats.value)
    holds("Stats must count the processes", metrics.pids.current > 0, metrics.pids.current)


async def connect_answers_two_pids(bench: Bench) -> None:
    """Connect answers the pid of the shim always, and that of init once there is one.

    The daemon asks it after each Create, and first of all after a restart.
    """
    before = await bench.ask(bench.task.connect, api.ConnectRequest(id=CONTAINER))
    equal("task_pid in Connect before Create", before.task_pid, 0)
    holds("shim_pid in Connect must be that of a process", before.shim_pid > 0, before.shim_pid)
    pid = await bench.create()
    after = await bench.ask(bench.task.connect, api.ConnectRequest(id=CONTAINER))
    equal("task_pid in Connect", after.task_pid, pid)
    equal("shim_pid in Connect", after.shim_pid, before.shim_pid)


async def streams_that_are_not_there_can_be_closed(bench: Bench) -> None:
    """CloseIO without a stdin and ResizePty without a terminal are answered and do nothing.

    Clients send both without knowing how the container was made.
    """
    await bench.run()
    await bench.run_exec("e1")
    for exec_id in ("", "e1"):
        close = api.CloseIORequest(id=CONTAINER, exec_id=exec_id, stdin=True)
        resize = api.ResizePtyRequest(id=CONTAINER, exec_id=exec_id, width=80, height=24)
        for _ in range(2):
            await bench.ask(bench.task.close_io, close)
        await bench.ask(bench.task.resize_pty, resize)
        await bench.is_in(Status.RUNNING, exec_id)


async def update_changes_limits(bench: Bench) -> None:
    """Update with an OCI `linux.resources` in JSON is answered, and the container runs on.

    `docker update`, and pods that are resized in place.
    """
    await bench.run()
    await bench.ask(bench.task.update, api.UpdateTaskRequest(id=CONTAINER, resources=LIMITS))
    await bench.is_in(Status.RUNNING)


async def update_of_a_stopped_container_is_refused(bench: Bench) -> None:
    """Update after the exit is refused.

    Its cgroup may be gone, or somebody else's.
    """
    await bench.run(QUICK)
    await bench.wait()
    request = api.UpdateTaskRequest(id=CONTAINER, resources=LIMITS)
    await bench.refused(bench.task.update, request)


async def update_without_resources_harms_nobody(bench: Bench) -> None:
    """Update without resources is refused, or nothing is done; the container runs on.

    Every field of a request can be absent, and one bad request must not end a shim.
    """
    await bench.run()
    await bench.outcome(bench.task.update, api.UpdateTaskRequest(id=CONTAINER))
    await bench.is_in(Status.RUNNING)


# ---------------------------------------------------------------- what is not there


async def _refuse_all(bench: Bench, id_: str) -> None:
    task = bench.task
    await bench.refused(task.state, api.StateRequest(id=id_), NotFound)
    await bench.refused(task.start, api.StartRequest(id=id_), NotFound)
    await bench.refused(task.wait, api.WaitRequest(id=id_), NotFound)
    await bench.refused(task.pids, api.PidsRequest(id=id_), NotFound)
    await bench.refused(task.stats, api.StatsRequest(id=id_), NotFound)
    await bench.refused(task.kill, api.KillRequest(id=id_, signal=9), NotFound)
    await bench.refused(task.delete, api.DeleteRequest(id=id_), NotFound)
    await bench.refused(task.exec, bench.shim.exec_request(id_, "e1", FOREVER), NotFound)
    await bench.refused(task.pause, api.PauseRequest(id=id_), NotFound)
    await bench.refused(task.resume, api.ResumeRequest(id=id_), NotFound)
    await bench.refused(task.close_io, api.CloseIORequest(id=id_, stdin=True), NotFound)
    await bench.refused(task.resize_pty, api.ResizePtyRequest(id=id_, width=80), NotFound)
    await bench.refused(task.update, api.UpdateTaskRequest(id=id_, resources=LIMITS), NotFound)
    await bench.refused(task.checkpoint, api.CheckpointTaskRequest(id=id_), NotFound)


async def before_create_nothing_is_found(bench: Bench) -> None:
    """Before Create every request about the container answers NOT_FOUND, and does no harm.

    The daemon asks Delete after a Create that failed, whatever became of it.
    """
    await _refuse_all(bench, CONTAINER)
    await bench.run(QUICK)
    await bench.ends_with(7)


async def another_container_is_not_found(bench: Bench) -> None:
    """A request with an id that is not here answers NOT_FOUND, also beside one that is.

    Otherwise a Kill that went astray ends the wrong container.
    """
    await bench.run()
    await _refuse_all(bench, "nobody")
    await bench.is_in(Status.RUNNING)


async def an_unknown_method_is_unimplemented(bench: Bench) -> None:
    """A method and a service that do not exist answer UNIMPLEMENTED.

    Daemons try a newer version first, and the older one only after this status.
    """
    for service, method in ((SERVICE, "Fly"), ("containerd.task.v9.Task", "State")):
        name = f"{service}/{method}"
        try:
            await bench.caller.call(service, method, b"", timeout=20)
        except UnimplementedError:
            continue
        except ShimError as error:
            text = f"expected UNIMPLEMENTED, came {error.code.name} {str(error)!r}"
            raise PromiseBrokenError(f"{name}: {text}") from error
        raise PromiseBrokenError(f"{name}: expected UNIMPLEMENTED, and it was answered")


async def garbage_is_refused(bench: Bench) -> None:
    """A request that is no protobuf is refused; the connection and the containers live on.

    A daemon and a shim of different age may disagree about a message.
    """
    await bench.run()
    try:
        await bench.caller.call(SERVICE, "State", b"\xff\xff\xff", timeout=20)
    except ShimError:
        await bench.is_in(Status.RUNNING)
    else:
        raise PromiseBrokenError(
            "bytes that are no StateRequest must be refused, and were answered"
        )


# ---------------------------------------------------------------- the end


async def shutdown_with_a_container_does_nothing(bench: Bench) -> None:
    """Shutdown is answered while there is a container, running or stopped, and ends nothing.

    The daemon asks after each container that it deletes; a shim of a pod has others.
    """
    await bench.run()
    await bench.ask(bench.task.shutdown, api.ShutdownRequest(id=CONTAINER))
    await bench.is_in(Status.RUNNING)
    await bench.kill(9)
    await bench.wait()
    await bench.ask(bench.task.shutdown, api.ShutdownRequest(id=CONTAINER))
    await bench.is_in(Status.STOPPED)
    equal("exit status in Delete", (await bench.delete()).exit_status, 137)


async def shutdown_after_the_last_container_ends_the_shim(bench: Bench) -> None:
    """Shutdown after the last Delete is answered, and then nobody listens any more.

    Shims that stay are what hosts run out of memory of (containerd#12344).
    """
    await bench.run(QUICK)
    await bench.wait()
    await bench.delete()
    await bench.ask(bench.task.shutdown, api.ShutdownRequest(id=CONTAINER))
    await bench.goes()


async def shutdown_of_an_unused_shim_ends_it(bench: Bench) -> None:
    """Shutdown before any Create ends the shim.

    The daemon does so after a Create that has failed.
    """
    await bench.ask(bench.task.shutdown, api.ShutdownRequest(id=CONTAINER))
    await bench.goes()


CASES = (
    pids_of_a_created_container,
    pids_names_init_and_execs,
    stats_answers_metrics,
    connect_answers_two_pids,
    streams_that_are_not_there_can_be_closed,
    update_changes_limits,
    update_of_a_stopped_container_is_refused,
    update_without_resources_harms_nobody,
    before_create_nothing_is_found,
    another_container_is_not_found,
    an_unknown_method_is_unimplemented,
    garbage_is_refused,
    shutdown_with_a_container_does_nothing,
    shutdown_after_the_last_container_ends_the_shim,
    shutdown_of_an_unused_shim_ends_it,
)
