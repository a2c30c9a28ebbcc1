"""Defects in what cancellation and faults have shown: start-up, undoing, gRPC's gate and client."""

from __future__ import annotations

from .defect import Defect, Kind

__all__ = ["IN_NEW_PARTS"]

SHIM, UNDO, SHELTER = "shim.py", "task/_undo.py", "ttrpc/_shelter.py"
DEFECTS = "tests/unit/test_grpc_defects.py"
FRAMES, CLIENT = "rpc/_grpc_frames.py", "rpc/_grpc_client.py"

IN_NEW_PARTS = [
    Defect(
        name="a shim that is stopped while it starts keeps its socket",
        kind=Kind.CLOSE,
        file=SHIM,
        old="    async with (\n        listener,\n",
        new="    async with (\n",
        caught_by=("tests/sim/test_cancel_start.py::test_every_step_of_a_start_can_be_the_last",),
    ),
    Defect(
        name="who is cancelled while a connection opens waits for ever",
        kind=Kind.SHIELD,
        file=SHELTER,
        old="        shelter.scope.cancel()\n",
        new="        if error is None:\n            shelter.scope.cancel()\n",
        caught_by=(
            "tests/unit/test_shelter.py::test_a_shelter_that_is_cancelled_while_it_opens_ends",
        ),
    ),
    Defect(
        name="a step of undoing is not tried again",
        kind=Kind.CHECK,
        file=UNDO,
        old="        await logged(id_, what, step, tries=2)\n",
        new="        await logged(id_, what, step)\n",
        caught_by=("tests/sim/test_found_faults.py::test_a_remove_that_fails_is_tried_once_more",),
    ),
    Defect(
        name="undoing that took too long is not told",
        kind=Kind.DROPPED,
        file=UNDO,
        old="    if patience.cancelled_caught:\n",
        new="    if patience.cancelled_caught and not id_:\n",
        caught_by=(
            "tests/sim/test_found_faults.py::test_a_remove_that_hangs_does_not_cost_the_unmount",
        ),
    ),
    Defect(
        name="a frame of any length is taken",
        kind=Kind.CHECK,
        file=FRAMES,
        old="        if length > MAX_FRAME:\n",
        new="        if length > 1 << 24:\n",
        caught_by=(f"{DEFECTS}::test_d9_a_frame_that_is_too_long_is_refused_by_its_header",),
        hangs=True,
    ),
    Defect(
        name="resets cost nothing",
        kind=Kind.CHECK,
        file=FRAMES,
        old="    return 2 if kind == _RST_STREAM else 1\n",
        new="    return 0 if kind == _RST_STREAM else 1\n",
        caught_by=("tests/unit/test_grpc_floods.py::test_rapid_resets_are_cut_off",),
    ),
    Defect(
        name="calls earn nothing back",
        kind=Kind.CHECK,
        file=FRAMES,
        old=" + _EACH_CALL + reply // _EACH_BYTES)\n",
        new=")\n",
        caught_by=("tests/unit/test_grpc_floods.py::test_a_client_that_calls_may_ping_with_it",),
    ),
    Defect(
        name="a gRPC call that was cancelled goes on in the server",
        kind=Kind.LEAK,
        file=CLIENT,
        old="            self._connection.abandon(ticket)\n",
        new="",
        caught_by=(
            "tests/unit/test_grpc_client.py::test_a_cancelled_call_ends_in_the_server",
            "tests/unit/test_grpc_client_ends.py::test_nothing_is_left_of_calls_that_were_cancelled",
        ),
    ),
    Defect(
        name="the end of a gRPC connection wakes no caller",
        kind=Kind.WAKE_UP,
        file=CLIENT,
        old="            for call in self._calls.values():\n"
        "                call.answered.set()\n"
        "            self._ended.set()\n",
        new="            self._ended.set()\n",
        caught_by=(
            "tests/unit/test_grpc_client_ends.py::test_when_the_connection_ends_every_call_learns_it",
        ),
        hangs=True,
    ),
    Defect(
        name="a gRPC server that does not read is waited for",
        kind=Kind.CHECK,
        file=CLIENT,
        old="                scope.deadline = trio.current_time() + self._send_timeout\n",
        new="",
        caught_by=(
            "tests/unit/test_grpc_client_ends.py::test_a_server_that_does_not_read_is_given_up",
        ),
    ),
]
