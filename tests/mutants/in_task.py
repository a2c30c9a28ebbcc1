"""Defects in the life of containers and execs, and in the queue of events (`trioshim.task`)."""

from __future__ import annotations

from .defect import Defect, Kind

__all__ = ["IN_CONTAINERS", "IN_EVENTS_AND_ANSWERS", "IN_EXECS"]

CONTAINER, CONTAINERS = "task/_container.py", "task/_containers.py"
EXECS, EVENTS, SERVICE = "task/_execs.py", "task/_events.py", "task/_service.py"

IN_CONTAINERS = [
    Defect(
        name="execs are not told that init has ended",
        kind=Kind.CHECK,
        file=CONTAINER,
        old="            self.execs.close()\n",
        new="",
        caught_by=("tests/sim/test_life.py::test_refusals_have_the_right_class",),
    ),
    Defect(
        name="what stops the shim stops the undoing of a Create",
        kind=Kind.SHIELD,
        file=CONTAINER,
        old="shield=True):\n                    await self._undo_create()",
        new="shield=False):\n                    await self._undo_create()",
        caught_by=("tests/sim/test_found.py::test_a_create_is_undone_when_the_shim_is_stopped",),
    ),
    Defect(
        name="what stops the shim stops the undoing of a restore",
        kind=Kind.SHIELD,
        file=CONTAINER,
        old="shield=True):\n                await self._remove_begun()",
        new="shield=False):\n                await self._remove_begun()",
        caught_by=("tests/sim/test_found.py::test_a_restore_is_undone_when_the_shim_is_stopped",),
    ),
    Defect(
        name="a container that was never restored lives on after its Delete",
        kind=Kind.LEAK,
        file=CONTAINER,
        old="            self._born.set()\n            self.init.deleted.set()\n",
        new="            self.init.deleted.set()\n",
        caught_by=(
            "tests/sim/test_found.py::test_nothing_is_left_of_a_container_that_was_never_restored",
        ),
    ),
    Defect(
        name="the OOM watch goes on after init's end",
        kind=Kind.LEAK,
        file=CONTAINER,
        old="            watch.cancel()\n",
        new="",
        caught_by=("tests/sim/test_found.py::test_the_oom_watch_ends_with_init",),
    ),
    Defect(
        name="who waits for init is not woken by its exit",
        kind=Kind.WAKE_UP,
        file=CONTAINER,
        old="task_exit(self.spec.id, self.init))\n        self.init.exited.set()\n",
        new="task_exit(self.spec.id, self.init))\n",
        caught_by=("tests/sim/test_found.py::test_a_whole_life_takes_no_time_of_its_own",),
    ),
    Defect(
        name="init stays open when its streams cannot be attached",
        kind=Kind.CLOSE,
        file=CONTAINER,
        old="            kill_quietly(child)\n            child.close()\n",
        new="            kill_quietly(child)\n",
        caught_by=("tests/sim/test_faults.py::test_a_call_that_fails_once_harms_nobody",),
    ),
    Defect(
        name="init runs on when its streams cannot be attached",
        kind=Kind.LEAK,
        file=CONTAINER,
        old="            kill_quietly(child)\n            child.close()\n",
        new="            child.close()\n",
        caught_by=(
            "tests/sim/test_found.py::test_init_is_killed_when_its_streams_cannot_be_attached",
        ),
    ),
    Defect(
        name="the cgroup of a deleted container stays open",
        kind=Kind.CLOSE,
        file=CONTAINER,
        old="        if self.cgroup is not None:\n            self.cgroup.close()\n",
        new="",
        caught_by=("tests/sim/test_life.py::test_a_container_lives_from_create_to_shutdown",),
    ),
    Defect(
        name="init's streams are not told that it has ended",
        kind=Kind.WAKE_UP,
        file=CONTAINER,
        old="        if self.init.stdio is not None:\n"
        "            self.init.stdio.process_ended()\n",
        new="",
        caught_by=("tests/sim/test_found.py::test_streams_are_told_of_the_end_and_drained",),
    ),
    Defect(
        name="a failed Pause leaves the container pausing",
        kind=Kind.STATUS,
        file=CONTAINER,
        old="                raise\n            finally:\n                self.pausing = False\n",
        new="                raise\n            self.pausing = False\n",
        caught_by=("tests/sim/test_found.py::test_a_failed_pause_is_over",),
    ),
    Defect(
        name="what is left in a paused container is killed but not thawed",
        kind=Kind.CHECK,
        file=CONTAINER,
        old="        if self.init.state is State.PAUSED:\n"
        '            await logged(self.spec.id, "resume", self._thaw)\n',
        new="",
        caught_by=(
            "tests/sim/test_found.py::test_a_paused_container_is_thawed_when_its_init_has_ended",
        ),
    ),
    Defect(
        name="a container counts as deleted before it is unmounted",
        kind=Kind.ORDER,
        file=CONTAINER,
        old="            await self._kernel.unmount(self.rootfs)\n"
        "            self.init.did(Verb.DELETE)\n",
        new="            self.init.did(Verb.DELETE)\n"
        "            await self._kernel.unmount(self.rootfs)\n",
        caught_by=("tests/sim/test_callers.py::test_a_delete_that_fails_can_be_asked_again",),
    ),
    Defect(
        name="output is dropped by a Delete that does not wait for it",
        kind=Kind.WAIT,
        file=CONTAINER,
        old="                await self.init.stdio.drain()\n",
        new="                await trio.lowlevel.checkpoint()\n",
        caught_by=("tests/sim/test_found.py::test_streams_are_told_of_the_end_and_drained",),
    ),
    Defect(
        name="one OOM kill is told again and again",
        kind=Kind.CHECK,
        file=CONTAINER,
        old="            self._oom_kills = kills\n",
        new="",
        caught_by=("tests/sim/test_life.py::test_oom_is_told_before_the_exit",),
    ),
    Defect(
        name="Resume is not told",
        kind=Kind.DROPPED,
        file=CONTAINER,
        old="            self._emit(messages.task_resumed(self.spec.id))\n",
        new="",
        caught_by=("tests/sim/test_found.py::test_pause_and_resume_are_told",),
    ),
    Defect(
        name="an exit is not recorded for `delete`",
        kind=Kind.DROPPED,
        file=CONTAINER,
        old='        self._note("exit", FILE_NAME, encode(self.init.pid, end.status, end.at))\n',
        new="",
        caught_by=("tests/sim/test_life.py::test_a_container_lives_from_create_to_shutdown",),
    ),
    Defect(
        name="a Create of a taken id removes the other's container",
        kind=Kind.CHECK,
        file=CONTAINER,
        old="            self._begun = False  # the runtime knows",
        new="            # the runtime knows",
        caught_by=("tests/sim/test_found.py::test_the_container_of_another_is_not_removed",),
    ),
    Defect(
        name="a running container may have no pids",
        kind=Kind.CHECK,
        file=CONTAINER,
        old="        if not found and self.init.child is not None:\n"
        "            found = [self.init.pid]\n",
        new="",
        caught_by=("tests/sim/test_found.py::test_pids_names_an_ended_init",),
    ),
    Defect(
        name="Start looks at the state before it is its turn",
        kind=Kind.ORDER,
        file=CONTAINER,
        old="        async with self.init.changing, self._starting:\n"
        "            self.init.check(Verb.START)\n",
        new="        self.init.check(Verb.START)\n"
        "        async with self.init.changing, self._starting:\n",
        caught_by=("tests/sim/test_found.py::test_of_two_starts_one_is_refused",),
    ),
    Defect(
        name="a new container is deleted with the answer of an old one",
        kind=Kind.STATUS,
        file=CONTAINERS,
        old="        self._deleted.pop(spec.id, None)\n",
        new="",
        caught_by=("tests/sim/test_found.py::test_a_name_that_comes_again_is_deleted_again",),
    ),
    Defect(
        name="the end of an old container forgets a new one of its name",
        kind=Kind.CHECK,
        file=CONTAINERS,
        old="        if self._all.get(container.spec.id) is container:",
        new="        if container.spec.id in self._all:",
        caught_by=("tests/sim/test_found.py::test_a_new_container_outlives_the_end_of_an_old_one",),
    ),
    Defect(
        name="who waits for the last container is not woken",
        kind=Kind.WAKE_UP,
        file=CONTAINERS,
        old="            self._emptied.set()\n",
        new="",
        caught_by=("tests/sim/test_linger.py::test_not_while_a_container_is_there",),
    ),
    Defect(
        name="empty for a moment counts as empty",
        kind=Kind.WAIT,
        file=CONTAINERS,
        old="        while self._all:\n",
        new="        if self._all:\n",
        caught_by=("tests/sim/test_found.py::test_empty_for_a_moment_is_not_empty",),
    ),
]

IN_EXECS = [
    Defect(
        name="who waits for an exec that failed to start waits for ever",
        kind=Kind.WAKE_UP,
        file=EXECS,
        old="            except BaseException:\n"
        "                process.release_waiters()  # as containerd's shims do: nobody waits for"
        " ever\n                raise\n",
        new="            except trio.Cancelled:\n"
        "                process.release_waiters()\n                raise\n",
        caught_by=(
            "tests/sim/test_found_execs.py::test_who_waits_for_an_exec_that_cannot_start_is_answered",
        ),
    ),
    Defect(
        name="an exec stays open when its streams cannot be attached",
        kind=Kind.CLOSE,
        file=EXECS,
        old="            kill_quietly(child)\n            child.close()\n",
        new="            kill_quietly(child)\n",
        caught_by=("tests/sim/test_faults.py::test_a_call_that_fails_once_harms_nobody",),
    ),
    Defect(
        name="an exec that is given up stays open",
        kind=Kind.CLOSE,
        file=EXECS,
        old="            finally:\n                process.child.close()\n",
        new="            finally:\n                pass\n",
        caught_by=(
            "tests/sim/test_found_execs.py::test_an_exec_that_cannot_be_killed_is_given_up",
        ),
    ),
    Defect(
        name="an exec that cannot be killed keeps back init's exit for ever",
        kind=Kind.LEAK,
        file=EXECS,
        old="        for process in self._all.values():\n"
        "            process.patience.deadline = trio.current_time() + GRACE\n",
        new="",
        caught_by=(
            "tests/sim/test_found_execs.py::test_an_exec_that_cannot_be_killed_is_given_up",
        ),
    ),
    Defect(
        name="an ended exec still has its pid",
        kind=Kind.CHECK,
        file=EXECS,
        old=" if p.pid and p.exit is None}",
        new=" if p.pid}",
        caught_by=(
            "tests/sim/test_found_execs.py::test_a_pid_that_comes_again_is_the_living_execs",
        ),
    ),
    Defect(
        name="an exec's streams are not told that it has ended",
        kind=Kind.WAKE_UP,
        file=EXECS,
        old="        stdio.process_ended()\n",
        new="",
        caught_by=("tests/sim/test_found.py::test_streams_are_told_of_the_end_and_drained",),
    ),
    Defect(
        name="an exec whose streams open late does not look whether init is there",
        kind=Kind.STATUS,
        file=EXECS,
        old="                self._check_open()  # init may have ended while",
        new="                # init may have ended while",
        caught_by=("tests/sim/test_found_execs.py::test_init_may_end_while_an_execs_streams_open",),
    ),
    Defect(
        name="two Deletes of one exec get different answers",
        kind=Kind.CHECK,
        file=EXECS,
        old="            if exec_id in self._deleted:  # another Delete was quicker\n"
        "                return self._deleted[exec_id]\n",
        new="",
        caught_by=("tests/sim/test_found_execs.py::test_two_deletes_of_an_exec_get_one_answer",),
    ),
    Defect(
        name="an exec is forgotten before its output is copied",
        kind=Kind.ORDER,
        file=EXECS,
        old="            if process.stdio is not None:\n"
        "                await process.stdio.drain()\n"
        "            process.did(Verb.DELETE)\n            del self._all[exec_id]\n",
        new="            del self._all[exec_id]\n"
        "            if process.stdio is not None:\n"
        "                await process.stdio.drain()\n"
        "            process.did(Verb.DELETE)\n",
        caught_by=(
            "tests/sim/test_found_execs.py::test_a_delete_of_an_exec_that_fails_can_be_asked_again",
        ),
    ),
    Defect(
        name="a CloseIO before the Start of an exec is lost",
        kind=Kind.WAKE_UP,
        file="task/_process.py",
        old="        if self.stdin_closed:\n            stdio.close_stdin()\n",
        new="",
        caught_by=("tests/sim/test_found_execs.py::test_close_io_may_come_before_start",),
    ),
    Defect(
        name="a Kill that comes too late says that it was done",
        kind=Kind.STATUS,
        file=CONTAINER,
        old='            raise NotFoundError("process already finished") from None\n',
        new="            return\n",
        caught_by=("tests/sim/test_found_execs.py::test_a_kill_that_comes_too_late_says_so",),
    ),
]

IN_EVENTS_AND_ANSWERS = [
    Defect(
        name="what stops the shim stops its last events",
        kind=Kind.SHIELD,
        file=EVENTS,
        old="patience = trio.CancelScope(shield=True)",
        new="patience = trio.CancelScope()",
        caught_by=(
            "tests/unit/test_events.py::test_what_stops_the_shim_does_not_stop_its_last_events",
        ),
    ),
    Defect(
        name="a failure that may pass is taken for a refusal",
        kind=Kind.DROPPED,
        file=EVENTS,
        old="        except _REFUSALS as error:\n",
        new="        except ShimError as error:\n",
        caught_by=("tests/unit/test_events.py::test_a_failed_event_is_tried_again_in_its_place",),
    ),
    Defect(
        name="a pause is told as a resume",
        kind=Kind.STATUS,
        file=EVENTS,
        old='events.TaskPaused: "/tasks/paused"',
        new='events.TaskPaused: "/tasks/resumed"',
        caught_by=("tests/unit/test_events.py::test_the_envelope_of_each_event",),
    ),
    Defect(
        name="a process that runs has ended in 1970",
        kind=Kind.STATUS,
        file="task/_messages.py",
        old="    return ZERO_TIME if end is None else timestamp(end.at)\n",
        new="    return timestamp(0 if end is None else end.at)\n",
        caught_by=("tests/sim/test_life.py::test_a_container_lives_from_create_to_shutdown",),
    ),
    Defect(
        name="Shutdown is obeyed while containers live",
        kind=Kind.CHECK,
        file=SERVICE,
        old="        if not len(self._containers):\n            self.end()\n",
        new="        self.end()\n",
        caught_by=("tests/sim/test_life.py::test_shutdown_waits_for_the_last_container",),
    ),
    Defect(
        name="an exec in a paused container runs, as State tells it",
        kind=Kind.STATUS,
        file=SERVICE,
        old="    paused = container.init.state is State.PAUSED\n",
        new="    paused = process.state is State.PAUSED\n",
        caught_by=("tests/sim/test_callers.py::test_pausing_is_told_while_the_runtime_pauses",),
    ),
    Defect(
        name="a paused container may be deleted",
        kind=Kind.STATUS,
        file="task/_states.py",
        old='(_PAUSED, Verb.DELETE): _no("cannot delete a paused process"),',
        new="(_PAUSED, Verb.DELETE): _DELETED,",
        caught_by=("tests/unit/test_states.py::test_every_cell_is_what_containerd_does",),
    ),
]
