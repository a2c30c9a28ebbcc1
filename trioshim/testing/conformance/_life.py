"""Conformance: the life of a container, from Create to Delete, and who waits for its end.

The first line of a docstring is the promise, the rest says who relies on it.
"""

from __future__ import annotations

import trio

from ...client import TaskClient
from ...errors import NotFoundError
from ...proto import task_v2_pb2 as api
from ...proto.task_types_pb2 import Status
from .._program import Program
from ._bench import CONTAINER, FOREVER, QUICK, Bench, equal, holds, together

__all__ = ["CASES"]


async def create_answers_the_pid_of_init(bench: Bench) -> None:
    """Create answers the pid of init, and State says CREATED with the same.

    containerd keeps that pid as the task's, and what happens between Create and Start needs it.
    """
    pid = await bench.create()
    state = await bench.state()
    holds("the pid in Create must be that of a process", pid > 0, pid)
    equal("pid in State", state.pid, pid)
    equal("status in State", Status.Name(state.status), "CREATED")


async def start_answers_the_pid_of_init(bench: Bench) -> None:
    """Start answers the pid that Create has answered, and State says RUNNING with it.

    The daemon asks State after each Start; an error there makes the client's Start fail.
    """
    created = await bench.create()
    equal("pid in Start", await bench.start(), created)
    state = await bench.state()
    equal("pid in State", state.pid, created)
    equal("status in State", Status.Name(state.status), "RUNNING")


async def state_names_the_container(bench: Bench) -> None:
    """State answers the id, the bundle and the streams of the Create request.

    The daemon hands them to its clients, which attach to the streams of old containers by them.
    """
    request = bench.shim.create_request(CONTAINER, FOREVER)
    await bench.create()
    state = await bench.state()
    for name in ("id", "bundle", "stdin", "stdout", "stderr", "terminal"):
        equal(f"{name} in State", getattr(state, name), getattr(request, name))


async def an_exit_has_a_time_and_before_it_has_none(bench: Bench) -> None:
    """exited_at is set when init has ended and not before, where zero is year 1, 1970 or unset.

    Any other time is taken for that of an exit; year 1 is the zero of Go (containerd#13692).
    """
    await bench.create()
    for _ in range(2):
        state = await bench.state()
        name = Status.Name(state.status)
        equal(f"exit status in State while {name}", state.exit_status, 0)
        holds(f"exited_at must be zero while {name}", state.exited_at.seconds <= 0, state.exited_at)
        if state.status == Status.CREATED:
            await bench.start()
    await bench.kill()
    ended = await bench.wait()
    holds("exited_at in Wait must be after 1970", ended.exited_at.seconds > 0, ended.exited_at)


async def exit_status_zero(bench: Bench) -> None:
    """Wait answers 0 for a program that ends with 0.

    `docker run true` answered 137 when shims made statuses up (containerd#4769).
    """
    await bench.run(Program(status=0, after=0.1))
    await bench.ends_with(0)


async def exit_status_of_the_program(bench: Bench) -> None:
    """Wait answers the status with which the program has ended.

    With two waiters for one child, the second one sees 0 instead: restart policies depend on it.
    """
    await bench.run(QUICK)
    await bench.ends_with(7)


async def stopped_state_tells_the_exit(bench: Bench) -> None:
    """After the exit State says STOPPED, with the pid, and with status and time as in Wait.

    A daemon that was away at the exit learns of it in this way.
    """
    pid = await bench.run(QUICK)
    ended = await bench.wait()
    state = await bench.state()
    equal("status in State", Status.Name(state.status), "STOPPED")
    equal("pid in State", state.pid, pid)
    equal("exit status in State", state.exit_status, ended.exit_status)
    equal("exited_at in State", state.exited_at, ended.exited_at)


async def delete_answers_the_exit(bench: Bench) -> None:
    """Delete answers the pid, and status and time as in Wait.

    containerd's clients take the exit status of a task from Delete.
    """
    pid = await bench.run(QUICK)
    ended = await bench.wait()
    deleted = await bench.delete()
    equal("pid in Delete", deleted.pid, pid)
    equal("exit status in Delete", deleted.exit_status, ended.exit_status)
    equal("exited_at in Delete", deleted.exited_at, ended.exited_at)


async def a_deleted_container_is_not_found(bench: Bench) -> None:
    """After Delete, State, Pids and Kill answer NOT_FOUND.

    A daemon that restarts takes a shim that answers for a container to be in use, and keeps it.
    """
    await bench.run(QUICK)
    await bench.wait()
    await bench.delete()
    await bench.refused(bench.task.state, api.StateRequest(id=CONTAINER), NotFoundError)
    await bench.refused(bench.task.pids, api.PidsRequest(id=CONTAINER), NotFoundError)
    await bench.refused(bench.task.kill, api.KillRequest(id=CONTAINER, signal=9), NotFoundError)


async def delete_can_be_asked_again(bench: Bench) -> None:
    """A second Delete answers as the first, or NOT_FOUND.

    The daemon asks again when an answer was late; any other error leaks the shim (containerd#7496).
    """
    await bench.run(QUICK)
    await bench.wait()
    first = await bench.delete()
    again = await bench.outcome(bench.task.delete, api.DeleteRequest(id=CONTAINER))
    if not isinstance(again, NotFoundError):
        equal("second Delete", again, first)


async def delete_of_a_running_container_is_refused(bench: Bench) -> None:
    """Delete of a running container is refused, and the container runs on.

    A client that wants it gone has to kill it first, and to see the exit.
    """
    await bench.run()
    await bench.refused(bench.task.delete, api.DeleteRequest(id=CONTAINER))
    await bench.is_in(Status.RUNNING)


async def a_container_that_was_never_started_can_be_deleted(bench: Bench) -> None:
    """Delete of a created container ends its init and answers its pid.

    So a client cleans up when what it does between Create and Start has failed.
    """
    pid = await bench.create()
    equal("pid in Delete", (await bench.delete()).pid, pid)


async def an_id_can_be_used_again(bench: Bench) -> None:
    """After Delete a container of the same id can be created, and lives its own life.

    Shims that hold a group of containers see a restarted one come back.
    """
    await bench.run(QUICK)
    await bench.ends_with(7)
    await bench.delete()
    await bench.run(Program(status=8, after=0.1))
    await bench.ends_with(8)


async def a_second_create_is_refused(bench: Bench) -> None:
    """Create with an id that is taken is refused, and the first container is unharmed.

    Its events and its exit would be taken for those of the first.
    """
    pid = await bench.create(QUICK)
    await bench.refused(bench.task.create, bench.shim.create_request(CONTAINER, QUICK))
    equal("pid in Start", await bench.start(), pid)
    await bench.ends_with(7)


async def a_failed_create_leaves_nothing(bench: Bench) -> None:
    """Create of a program that does not exist is refused, and then there is no such container.

    The daemon asks Delete and Shutdown next; a shim that keeps the container never ends.
    """
    missing = bench.shim.create_request(CONTAINER, Program(missing=True))
    await bench.refused(bench.task.create, missing)
    await bench.refused(bench.task.state, api.StateRequest(id=CONTAINER), NotFoundError)
    await bench.refused(bench.task.delete, api.DeleteRequest(id=CONTAINER), NotFoundError)
    await bench.ask(bench.task.shutdown, api.ShutdownRequest(id=CONTAINER))
    await bench.goes()


# ---------------------------------------------------------------- waiting


async def a_wait_before_start_is_answered(bench: Bench) -> None:
    """Wait that is asked before Start answers when init has ended, and not before.

    Clients ask Wait before Start, not to miss the end of a quick program.
    """
    await bench.create(QUICK)

    ended: list[int] = []

    async def wait() -> None:
        ended.append((await bench.wait()).exit_status)

    async def start() -> None:
        await trio.sleep(0.05)
        equal("answers to Wait before Start", ended, [])
        await bench.start()

    await together([wait, start])
    equal("answers to Wait", ended, [7])


async def a_wait_after_the_exit_is_answered(bench: Bench) -> None:
    """Wait after the exit answers at once, each time the same.

    Who comes late, such as a daemon that has restarted, asks then.
    """
    await bench.run(QUICK)
    first = await bench.wait()
    for _ in range(3):
        equal("Wait, asked again", await bench.wait(), first)


async def all_waiters_get_the_same_answer(bench: Bench) -> None:
    """Thirty waiters on two connections get one answer.

    The daemon and each attached client wait; one lost answer is a client that hangs.
    """
    await bench.run(Program(status=7, after=0.3))
    async with bench.shim.connection() as caller:
        other = Bench(bench.shim, caller)
        answers = await together([bench.wait] * 20 + [other.wait] * 10)
    for answer in answers:
        equal("Wait", answer, answers[0])
    equal("exit status in Wait", answers[0].exit_status, 7)


async def a_wait_holds_up_nobody(bench: Bench) -> None:
    """While a Wait is pending, other requests on its connection are answered.

    The daemon has one connection for all requests, and most of the time a Wait on it.
    """
    await bench.run()

    async def look_and_kill() -> None:
        await trio.sleep(0.05)
        await bench.is_in(Status.RUNNING)
        await bench.kill()

    async def wait() -> None:
        await bench.ends_with(137)

    await together([look_and_kill, wait])


async def a_container_outlives_its_client(bench: Bench) -> None:
    """A client leaves in the middle of a Wait; the container runs on, for the next client.

    containerd restarts, and its containers do not.
    """
    await bench.run()
    async with bench.shim.connection() as caller:
        with trio.move_on_after(0.1):
            await TaskClient(caller).wait(api.WaitRequest(id=CONTAINER))
    async with bench.shim.connection() as caller:
        after = Bench(bench.shim, caller)
        await after.is_in(Status.RUNNING)
        await after.kill()
        await after.ends_with(137)


CASES = (
    create_answers_the_pid_of_init,
    start_answers_the_pid_of_init,
    state_names_the_container,
    an_exit_has_a_time_and_before_it_has_none,
    exit_status_zero,
    exit_status_of_the_program,
    stopped_state_tells_the_exit,
    delete_answers_the_exit,
    a_deleted_container_is_not_found,
    delete_can_be_asked_again,
    delete_of_a_running_container_is_refused,
    a_container_that_was_never_started_can_be_deleted,
    an_id_can_be_used_again,
    a_second_create_is_refused,
    a_failed_create_leaves_nothing,
    a_wait_before_start_is_answered,
    a_wait_after_the_exit_is_answered,
    all_waiters_get_the_same_answer,
    a_wait_holds_up_nobody,
    a_container_outlives_its_client,
)
