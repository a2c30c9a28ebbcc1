"""Defects in ttrpc: the client, the server and the protocol (`trioshim.ttrpc`)."""

from __future__ import annotations

from .defect import Defect, Kind

__all__ = ["IN_TTRPC"]

CLIENT, SERVER, OUTBOX = "ttrpc/_client.py", "ttrpc/_server.py", "ttrpc/_outbox.py"
CONNECTION, FRAMES = "ttrpc/_connection.py", "ttrpc/_frames.py"

IN_TTRPC = [
    Defect(
        name="a call that was cancelled leaves its stream open",
        kind=Kind.CLOSE,
        file=CLIENT,
        old="            self._connection.abandon(stream_id)\n",
        new="",
        caught_by=(
            "tests/unit/test_ttrpc_floods.py::test_nothing_is_left_of_calls_that_have_ended",
        ),
    ),
    Defect(
        name="a request whose caller has left is still sent",
        kind=Kind.CLOSE,
        file=CLIENT,
        old="            self._outbox.withdraw(ticket)\n",
        new="",
        caught_by=(
            "tests/unit/test_ttrpc_trio.py::test_a_call_cancelled_before_its_frame_is_never_sent",
        ),
    ),
    Defect(
        name="the end of the connection wakes no caller",
        kind=Kind.WAKE_UP,
        file=CLIENT,
        old="            for call in self._calls.values():\n                call.answered.set()\n",
        new="",
        caught_by=(
            "tests/unit/test_ttrpc_ends.py::test_when_the_connection_ends_every_call_learns_it",
        ),
        hangs=True,
    ),
    Defect(
        name="a failed write leaves the callers waiting",
        kind=Kind.WAKE_UP,
        file=CLIENT,
        old="            self._reading.deadline = trio.current_time() + _LAST_WORDS\n",
        new="",
        caught_by=(
            "tests/unit/test_ttrpc_ends.py::test_a_server_that_takes_nothing_and_says_nothing_is_gone",
        ),
        hangs=True,
    ),
    Defect(
        name="two calls at a time get one id",
        kind=Kind.ORDER,
        file=CLIENT,
        old="        ticket = self._outbox.put(",
        new="        await trio.lowlevel.checkpoint()\n        ticket = self._outbox.put(",
        caught_by=(
            "tests/unit/test_ttrpc_client.py::test_many_calls_at_a_time_each_get_their_own_answer",
        ),
    ),
    Defect(
        name="the end of the block cuts off calls inside of a shield",
        kind=Kind.SHIELD,
        file="ttrpc/_shelter.py",
        old="scope = trio.CancelScope(shield=True)",
        new="scope = trio.CancelScope()",
        caught_by=(
            "tests/unit/test_ttrpc_client.py::test_a_call_inside_of_a_shield_survives_the_cancellation_around",
        ),
    ),
    Defect(
        name="calls go on when their peer is gone",
        kind=Kind.LEAK,
        file=SERVER,
        old="        if not scope.cancelled_caught:\n            tasks.cancel_scope.cancel()\n",
        new="",
        caught_by=(
            "tests/unit/test_ttrpc_server.py::test_an_error_beside_a_cancellation_stays_inside",
        ),
        hangs=True,
    ),
    Defect(
        name="a stopped server does not wait for the calls that run",
        kind=Kind.WAIT,
        file=SERVER,
        old="        if not scope.cancelled_caught:\n            tasks.cancel_scope.cancel()\n",
        new="        tasks.cancel_scope.cancel()\n",
        caught_by=("tests/unit/test_ttrpc_server.py::test_shutdown_finishes_what_runs",),
    ),
    Defect(
        name="replies that nobody reads are not counted",
        kind=Kind.CHECK,
        file=SERVER,
        old="        if self._running + len(self._outbox) <= self._max_in_flight:\n",
        new="        if self._running <= self._max_in_flight:\n",
        caught_by=(
            "tests/unit/test_ttrpc_floods.py::test_answers_to_bad_frames_count_as_open_calls",
        ),
    ),
    Defect(
        name="a frame that is put while another is written stays behind",
        kind=Kind.WAKE_UP,
        file=OUTBOX,
        old="            while self._begun or self._frames:\n",
        new="            if self._begun or self._frames:\n",
        caught_by=(
            "tests/unit/test_ttrpc_client.py::test_many_calls_at_a_time_each_get_their_own_answer",
        ),
        hangs=True,
    ),
    Defect(
        name="a frame that the socket has taken a part of counts as written",
        kind=Kind.DROPPED,
        file=OUTBOX,
        old="            self._begun = data[send_at_once(self._stream, data) :]\n",
        new='            self._begun = b"" if send_at_once(self._stream, data) else data\n',
        caught_by=(
            "tests/unit/test_ttrpc_sockets.py::test_a_frame_that_the_socket_takes_a_part_of_is_finished",
        ),
        hangs=True,
    ),
    Defect(
        name="what is put beside a frame that was begun goes out before its rest",
        kind=Kind.ORDER,
        file=OUTBOX,
        old="        while self._frames and not self._begun:\n",
        new="        while self._frames:\n",
        caught_by=(
            "tests/unit/test_ttrpc_sockets.py::test_nothing_goes_out_between_a_frame_and_its_rest",
        ),
    ),
    Defect(
        name="a client that asks without end keeps the others waiting",
        kind=Kind.WAIT,
        file=SERVER,
        old="_TURN = 64 ",
        new="_TURN = 1_000_000 ",
        caught_by=(
            "tests/unit/test_instant_calls.py::test_a_flood_of_instant_calls_leaves_others_their_turn",
        ),
    ),
    Defect(
        name="a socket that is not readable after all is broken",
        kind=Kind.CHECK,
        file="ttrpc/_socket.py",
        old="        except BlockingIOError:  # it was readable, and is no more\n"
        "            continue\n",
        new="",
        caught_by=(
            "tests/unit/test_ttrpc_sockets.py::test_a_socket_that_was_readable_and_is_no_more_is_waited_for",
        ),
    ),
    Defect(
        name="a write that took too long counts as written",
        kind=Kind.CHECK,
        file=OUTBOX,
        old="        if scope.cancelled_caught:\n            raise trio.TooSlowError\n",
        new="",
        caught_by=(
            "tests/unit/test_ttrpc_trio.py::test_after_a_write_that_was_cut_short_nothing_is_written",
        ),
    ),
    Defect(
        name="a stream id may be used twice",
        kind=Kind.CHECK,
        file=CONNECTION,
        old="        if frame.stream_id <= self._last_id:\n",
        new="        if frame.stream_id < self._last_id:\n",
        caught_by=(
            "tests/unit/test_ttrpc_bad_peers.py::test_an_id_that_does_not_increase_is_refused",
        ),
    ),
    Defect(
        name="an answered stream stays open",
        kind=Kind.CLOSE,
        file=CONNECTION,
        old="        frame = encode_response(event)\n        del self._streams[event.stream_id]\n",
        new="        frame = encode_response(event)\n",
        caught_by=("tests/unit/test_ttrpc_connection.py::test_a_response_arrives_as_it_was_sent",),
    ),
    Defect(
        name="a short frame behind a long one waits for more bytes",
        kind=Kind.WAKE_UP,
        file=FRAMES,
        old="        del self._buffer[:end]\n        self._needed = _HEADER.size\n",
        new="        del self._buffer[:end]\n",
        caught_by=("tests/unit/test_ttrpc_frames.py::test_frames_survive_any_cutting",),
    ),
    Defect(
        name="the largest message that is allowed is refused",
        kind=Kind.STATUS,
        file=FRAMES,
        old="        end = _HEADER.size + length\n        if length > MAX_LENGTH:\n",
        new="        end = _HEADER.size + length\n        if length >= MAX_LENGTH:\n",
        caught_by=("tests/unit/test_ttrpc_frames.py::test_a_body_of_the_maximum_length_passes",),
    ),
    Defect(
        name="an end inside of a frame that is too long looks clean",
        kind=Kind.CHECK,
        file=FRAMES,
        old="        return bool(self._buffer) or self._oversize is not None\n",
        new="        return bool(self._buffer)\n",
        caught_by=(
            "tests/unit/test_ttrpc_frames.py::test_oversize_is_dropped_even_if_nobody_asks_for_frames",
        ),
    ),
]
