"""Conformance: Kill, Pause and Resume.

The first line of a docstring is the promise, the rest says who relies on it.
"""

from __future__ import annotations

import trio

from ...errors import NotFoundError
from ...proto import task_v2_pb2 as api
from ...proto.task_types_pb2 import Status
from .._program import Program
from ._bench import CONTAINER, QUICK, Bench, equal

__all__ = ["CASES"]

# A program needs a moment until it handles a signal, and nothing in the protocol tells when.
SETTLE = 0.3


async def a_killed_container_ends_with_137(bench: Bench) -> None:
    """Kill with SIGKILL ends init; Wait answers 137, which is 128 and the signal.

    Everybody who looks at an exit status knows this number.
    """
    await bench.run()
    await bench.kill(9)
    await bench.ends_with(137)


async def a_signal_arrives_as_it_was_sent(bench: Bench) -> None:
    """Kill with SIGTERM reaches init's own handler, whose exit status Wait answers.

    `docker stop` and Kubernetes give a program its time to end well in this way.
    """
    await bench.run(Program(after=None, handles={15: 3}))
    await trio.sleep(SETTLE)
    await bench.kill(15)
    await bench.ends_with(3)


async def signal_0_asks_whether_init_is_there(bench: Bench) -> None:
    """Kill with signal 0 is answered for a running container and does nothing to it.

    As kill(2) has it; clients probe with it.
    """
    await bench.run()
    await bench.kill(0)
    await bench.is_in(Status.RUNNING)


async def a_created_container_can_be_killed(bench: Bench) -> None:
    """Kill between Create and Start: Wait answers 137, and State says STOPPED.

    A shim that begins to look for the exit with Start waits for ever (containerd#9103).
    """
    await bench.create()
    await bench.kill(9)
    await bench.ends_with(137)
    await bench.is_in(Status.STOPPED)
    await bench.refused(bench.task.start, api.StartRequest(id=CONTAINER))


async def kill_after_the_exit_is_not_found(bench: Bench) -> None:
    """Kill of a container that has ended answers NOT_FOUND.

    The daemon and the CRI plugin take that status, and no other, for "it is done".
    """
    await bench.run(QUICK)
    await bench.wait()
    request = api.KillRequest(id=CONTAINER, signal=9)
    await bench.refused(bench.task.kill, request, NotFoundError)


async def kill_all_ends_execs_too(bench: Bench) -> None:
    """Kill with `all` and SIGKILL ends init and the execs; each Wait answers 137.

    containerd's client kills a task with `all` before it deletes it by force.
    """
    await bench.run()
    await bench.run_exec("e1")
    await bench.kill(9, all_=True)
    await bench.ends_with(137, "e1")
    await bench.ends_with(137)


async def pause_and_resume(bench: Bench) -> None:
    """After Pause State says PAUSED and the program stands still; after Resume it runs on.

    `docker pause`, and every checkpoint or commit that needs a container to hold still.
    """
    await bench.run(Program(status=7, after=SETTLE))
    await bench.ask(bench.task.pause, api.PauseRequest(id=CONTAINER))
    await bench.is_in(Status.PAUSED)
    await trio.sleep(2 * SETTLE)
    await bench.is_in(Status.PAUSED)
    await bench.ask(bench.task.resume, api.ResumeRequest(id=CONTAINER))
    await bench.ends_with(7)


async def pause_and_resume_are_for_their_state_only(bench: Bench) -> None:
    """Pause of what does not run and Resume of what is not paused are refused.

    A client that missed the state learns it from the refusal.
    """
    pause, resume = api.PauseRequest(id=CONTAINER), api.ResumeRequest(id=CONTAINER)
    await bench.create()
    await bench.refused(bench.task.pause, pause)
    await bench.refused(bench.task.resume, resume)
    await bench.start()
    await bench.refused(bench.task.resume, resume)
    await bench.ask(bench.task.pause, pause)
    await bench.refused(bench.task.pause, pause)
    await bench.is_in(Status.PAUSED)


async def a_paused_container_is_not_deleted(bench: Bench) -> None:
    """Delete and Start of a paused container are refused, and it stays paused.

    Its processes still hold its files.
    """
    await bench.run()
    await bench.ask(bench.task.pause, api.PauseRequest(id=CONTAINER))
    await bench.refused(bench.task.delete, api.DeleteRequest(id=CONTAINER))
    await bench.refused(bench.task.start, api.StartRequest(id=CONTAINER))
    await bench.is_in(Status.PAUSED)


async def a_paused_container_can_be_killed(bench: Bench) -> None:
    """Kill with SIGKILL ends a paused container; Wait answers 137 and State says STOPPED.

    `docker rm -f` of a paused container would hang.
    """
    await bench.run()
    await bench.ask(bench.task.pause, api.PauseRequest(id=CONTAINER))
    await bench.kill(9)
    await bench.ends_with(137)
    await bench.is_in(Status.STOPPED)
    equal("exit status in Delete", (await bench.delete()).exit_status, 137)


CASES = (
    a_killed_container_ends_with_137,
    a_signal_arrives_as_it_was_sent,
    signal_0_asks_whether_init_is_there,
    a_created_container_can_be_killed,
    kill_after_the_exit_is_not_found,
    kill_all_ends_execs_too,
    pause_and_resume,
    pause_and_resume_are_for_their_state_only,
    a_paused_container_is_not_deleted,
    a_paused_container_can_be_killed,
)
