"""Conformance: more processes in a running container.

The first line of a docstring is the promise, the rest says who relies on it.
"""

from __future__ import annotations

from functools import partial

import trio

from ...errors import AlreadyExistsError, FailedPreconditionError, NotFoundError
from ...proto import task_v2_pb2 as api
from ...proto.task_types_pb2 import Status
from .._program import Program
from ._bench import CONTAINER, QUICK, Bench, equal, holds, together

__all__ = ["CASES"]

STATUSES = (0, 1, 7, 126, 255)
SETTLE = 0.3  # see `_signals`


async def an_exec_lives_from_exec_to_delete(bench: Bench) -> None:
    """Exec, Start, Wait and Delete of an exec, as State tells it; init runs on.

    `docker exec` and each probe of Kubernetes do exactly this.
    """
    init = await bench.run()
    await bench.exec("e1", QUICK)
    await bench.is_in(Status.CREATED, "e1")
    pid = await bench.start("e1")
    holds("the pid of an exec must be that of a process of its own", pid not in {0, init}, pid)
    ended = await bench.wait("e1")
    equal("exit status in Wait", ended.exit_status, 7)
    await bench.is_in(Status.STOPPED, "e1")
    deleted = await bench.delete("e1")
    equal("pid in Delete", deleted.pid, pid)
    equal("exit status in Delete", deleted.exit_status, 7)
    equal("exited_at in Delete", deleted.exited_at, ended.exited_at)
    await bench.is_in(Status.RUNNING)


async def state_of_an_exec_is_its_own(bench: Bench) -> None:
    """State with an exec's id answers RUNNING, the exec's id and the exec's pid.

    The daemon asks it on each look-up of an exec, and gives the pid to its clients.
    """
    await bench.run()
    pid = await bench.run_exec("e1")
    state = await bench.state("e1")
    equal("status in State", Status.Name(state.status), "RUNNING")
    equal("id in State", state.id, "e1")
    equal("pid in State", state.pid, pid)


async def execs_end_with_their_own_status(bench: Bench) -> None:
    """Each exec's Wait answers what its program ended with, also when many run at once.

    Probes of Kubernetes see nothing but this number, and there are many (containerd#8617).
    """
    await bench.run()

    async def check(number: int) -> None:
        status = STATUSES[number % len(STATUSES)]
        await bench.run_exec(f"e{number}", Program(status=status, after=0.1))
        await bench.ends_with(status, f"e{number}")

    await together([partial(check, number) for number in range(10)])


async def an_exec_id_is_used_once_at_a_time(bench: Bench) -> None:
    """Exec with an id that is taken answers ALREADY_EXISTS; after Delete the id is free.

    Two requests with one id must not become two processes, or one that nobody can name.
    """
    await bench.run()
    await bench.run_exec("e1", QUICK)
    again = bench.shim.exec_request(CONTAINER, "e1", QUICK)
    await bench.refused(bench.task.exec, again, AlreadyExistsError)
    await bench.wait("e1")
    await bench.delete("e1")
    await bench.run_exec("e1", Program(status=8, after=0.1))
    await bench.ends_with(8, "e1")


async def an_exec_is_started_once(bench: Bench) -> None:
    """Start of an exec that runs or has ended is refused.

    Nobody would wait for the second process.
    """
    await bench.run()
    await bench.run_exec("e1")
    await bench.refused(bench.task.start, api.StartRequest(id=CONTAINER, exec_id="e1"))
    await bench.kill(9, "e1")
    await bench.wait("e1")
    await bench.refused(bench.task.start, api.StartRequest(id=CONTAINER, exec_id="e1"))


async def kill_of_an_exec_reaches_it_alone(bench: Bench) -> None:
    """Kill with an exec's id ends that exec with 128 and the signal; init and others run on.

    An exec that has timed out is ended so, and nothing else must be.
    """
    await bench.run()
    for exec_id in ("e1", "e2", "e3"):
        await bench.run_exec(exec_id)
    await trio.sleep(SETTLE)
    await bench.kill(9, "e1")
    await bench.kill(15, "e2")
    await bench.ends_with(137, "e1")
    await bench.ends_with(143, "e2")
    await bench.is_in(Status.RUNNING, "e3")
    await bench.is_in(Status.RUNNING)


async def kill_of_an_exec_before_start_is_refused(bench: Bench) -> None:
    """Kill of an exec that was not started answers FAILED_PRECONDITION.

    Its pid is 0, and kill(2) takes that for the group of processes of the shim itself.
    """
    await bench.run()
    await bench.exec("e1")
    request = api.KillRequest(id=CONTAINER, exec_id="e1", signal=9)
    await bench.refused(bench.task.kill, request, FailedPreconditionError)


async def kill_of_an_exec_after_its_exit_is_not_found(bench: Bench) -> None:
    """Kill of an exec that has ended answers NOT_FOUND.

    Its pid may belong to another process by now.
    """
    await bench.run()
    await bench.run_exec("e1", QUICK)
    await bench.wait("e1")
    request = api.KillRequest(id=CONTAINER, exec_id="e1", signal=9)
    await bench.refused(bench.task.kill, request, NotFoundError)


async def delete_of_a_running_exec_is_refused(bench: Bench) -> None:
    """Delete of an exec that runs is refused, and it runs on.

    Its exit could be told to nobody.
    """
    await bench.run()
    await bench.run_exec("e1")
    await bench.refused(bench.task.delete, api.DeleteRequest(id=CONTAINER, exec_id="e1"))
    await bench.is_in(Status.RUNNING, "e1")


async def an_exec_that_was_never_started_can_be_deleted(bench: Bench) -> None:
    """Delete of an exec before its Start is answered; afterwards it is NOT_FOUND.

    So a client cleans up when it could not open the streams.
    """
    await bench.run()
    await bench.exec("e1")
    await bench.delete("e1")
    request = api.StateRequest(id=CONTAINER, exec_id="e1")
    await bench.refused(bench.task.state, request, NotFoundError)


async def an_unknown_exec_is_not_found(bench: Bench) -> None:
    """State, Start, Wait, Kill, Delete and ResizePty of an unknown exec: NOT_FOUND.

    And never the answer for init: a Kill would end the container.
    """
    await bench.run()
    id_, nobody, task = CONTAINER, "nobody", bench.task
    await bench.refused(task.state, api.StateRequest(id=id_, exec_id=nobody), NotFoundError)
    await bench.refused(task.start, api.StartRequest(id=id_, exec_id=nobody), NotFoundError)
    await bench.refused(task.wait, api.WaitRequest(id=id_, exec_id=nobody), NotFoundError)
    await bench.refused(task.kill, api.KillRequest(id=id_, exec_id=nobody, signal=9), NotFoundError)
    await bench.refused(task.delete, api.DeleteRequest(id=id_, exec_id=nobody), NotFoundError)
    await bench.refused(
        task.resize_pty, api.ResizePtyRequest(id=id_, exec_id=nobody, width=80), NotFoundError
    )
    # With UNKNOWN from the shim of containerd 1.6, which gives no class to errors of CloseIO.
    await bench.refused(task.close_io, api.CloseIORequest(id=id_, exec_id=nobody, stdin=True))
    await bench.is_in(Status.RUNNING)


async def an_exec_that_cannot_run_is_refused(bench: Bench) -> None:
    """Start of an exec whose program does not exist is refused; Delete removes it.

    A typing error in `docker exec` is no reason to lose a container.
    """
    await bench.run()
    await bench.exec("e1", Program(missing=True))
    await bench.refused(bench.task.start, api.StartRequest(id=CONTAINER, exec_id="e1"))
    await bench.delete("e1")
    await bench.is_in(Status.RUNNING)
    await bench.run_exec("e1", QUICK)
    await bench.ends_with(7, "e1")


async def no_exec_after_the_end_of_init(bench: Bench) -> None:
    """After init's exit Exec is refused, and so is Start of an exec that was registered.

    It would run in a container that is told to have ended (containerd#10589).
    """
    await bench.run()
    await bench.exec("e1")
    await bench.kill(9)
    await bench.wait()
    await bench.refused(bench.task.start, api.StartRequest(id=CONTAINER, exec_id="e1"))
    late = bench.shim.exec_request(CONTAINER, "e2", QUICK)
    await bench.refused(bench.task.exec, late)


async def execs_end_with_init(bench: Bench) -> None:
    """When init is killed, the execs of its pid namespace end: Wait of each answers 137.

    The kernel kills them; a shim that does not look loses their clients.
    """
    await bench.run()
    for exec_id in ("e1", "e2"):
        await bench.run_exec(exec_id)
    await bench.kill(9)
    for exec_id in ("e1", "e2", ""):
        await bench.ends_with(137, exec_id)
    equal("exit status in Delete", (await bench.delete("e1")).exit_status, 137)


async def an_exec_in_a_paused_container_is_paused(bench: Bench) -> None:
    """State of an exec says PAUSED while its container is, and a new Exec is refused.

    The runtime would wait for the thaw, and its caller with it.
    """
    await bench.run()
    await bench.run_exec("e1")
    await bench.ask(bench.task.pause, api.PauseRequest(id=CONTAINER))
    await bench.is_in(Status.PAUSED, "e1")
    late = bench.shim.exec_request(CONTAINER, "e2", QUICK)
    await bench.refused(bench.task.exec, late)
    await bench.ask(bench.task.resume, api.ResumeRequest(id=CONTAINER))
    await bench.is_in(Status.RUNNING, "e1")


CASES = (
    an_exec_lives_from_exec_to_delete,
    state_of_an_exec_is_its_own,
    execs_end_with_their_own_status,
    an_exec_id_is_used_once_at_a_time,
    an_exec_is_started_once,
    kill_of_an_exec_reaches_it_alone,
    kill_of_an_exec_before_start_is_refused,
    kill_of_an_exec_after_its_exit_is_not_found,
    delete_of_a_running_exec_is_refused,
    an_exec_that_was_never_started_can_be_deleted,
    an_unknown_exec_is_not_found,
    an_exec_that_cannot_run_is_refused,
    no_exec_after_the_end_of_init,
    execs_end_with_init,
    an_exec_in_a_paused_container_is_paused,
)
