"""Defects in the table of methods, the listener and gRPC (`trioshim.rpc`)."""

from __future__ import annotations

from .defect import Defect, Kind

__all__ = ["IN_RPC"]

SERVICE, LISTENER = "rpc/_service.py", "rpc/_listener.py"
GRPC, WIRE, WRITER = "rpc/_grpc.py", "rpc/_grpc_wire.py", "rpc/_grpc_writer.py"

IN_RPC = [
    Defect(
        name="the end of the shim leaves a caller waiting",
        kind=Kind.WAKE_UP,
        file=SERVICE,
        old="            finally:  # cancelled: the shim ends, and there is no result\n"
        "                done.set()\n",
        new="            done.set()\n",
        caught_by=("tests/unit/test_service.py::test_a_caller_is_told_when_the_shim_ends",),
        hangs=True,
    ),
    Defect(
        name="a request is begun that nobody waits for any more",
        kind=Kind.CHECK,
        file=SERVICE,
        old="        if deadline <= trio.current_time():  # nobody waits: do not even begin\n"
        "            raise DeadlineExceededError\n",
        new="",
        caught_by=("tests/unit/test_found.py::test_what_nobody_waits_for_any_more_is_not_begun",),
    ),
    Defect(
        name="an error out of a nursery loses its class",
        kind=Kind.STATUS,
        file=SERVICE,
        old="    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:\n"
        "        error = error.exceptions[0]\n",
        new="",
        caught_by=("tests/unit/test_service.py::test_what_a_handler_raises_is_a_status",),
    ),
    Defect(
        name="a time limit that is over does not count where nobody waits",
        kind=Kind.CHECK,
        file=LISTENER,
        old="        if request.timeout_nano < 0:  # over",
        new="        if False:  # over",
        caught_by=("tests/unit/test_instant_calls.py::test_a_time_limit_that_is_over_is_kept",),
    ),
    Defect(
        name="an instant answer does not look at the peer's window",
        kind=Kind.CHECK,
        file=GRPC,
        old="            if self._grpc.flow_control_window(call.stream_id) < len(payload):\n"
        "                return False\n",
        new="",
        caught_by=(
            "tests/unit/test_grpc_instant.py::test_a_reply_larger_than_the_window_waits_for_it",
        ),
        hangs=True,
    ),
    Defect(
        name="a refused change ends the whole server",
        kind=Kind.CHECK,
        file=SERVICE,
        old="            except ShimError as error:\n                result.append(error)\n",
        new="            except DeadlineExceededError as error:\n"
        "                result.append(error)\n",
        caught_by=("tests/unit/test_service.py::test_two_services_do_not_mix",),
    ),
    Defect(
        name="who connects in the moment of the stop is waited for",
        kind=Kind.CHECK,
        file=LISTENER,
        old="        if self._stopped:  # accepted in the very moment of the stop\n"
        "            scope.cancel()\n",
        new="",
        caught_by=(
            "tests/unit/test_found.py::test_who_connects_in_the_moment_of_the_stop_is_not_waited_for",
        ),
    ),
    Defect(
        name="the last client's leaving is not noticed",
        kind=Kind.WAKE_UP,
        file=LISTENER,
        old="        self._changed.set()\n",
        new="",
        caught_by=("tests/sim/test_linger.py::test_not_while_a_client_is_connected",),
    ),
    Defect(
        name="a change that hangs keeps a stopped server for ever",
        kind=Kind.LEAK,
        file=LISTENER,
        old="        self._lasting.cancel_scope.deadline = deadline\n",
        new="",
        caught_by=("tests/unit/test_found.py::test_a_stopped_server_gives_up_what_hangs",),
    ),
    Defect(
        name="scopes of connections that are gone are kept",
        kind=Kind.CLOSE,
        file=LISTENER,
        old="            self._reading.discard(scope)\n",
        new="            pass\n",
        caught_by=("tests/unit/test_found.py::test_nothing_is_kept_of_a_client_that_left",),
    ),
    Defect(
        name="what is neither wire is taken for ttrpc",
        kind=Kind.CHECK,
        file=LISTENER,
        old="        if first[:1] == _TTRPC:\n",
        new="        if first[:1] != _HTTP2:\n",
        caught_by=("tests/unit/test_found.py::test_who_speaks_neither_wire_is_closed",),
    ),
    Defect(
        name="a call that gRPC has reset goes on",
        kind=Kind.LEAK,
        file=GRPC,
        old="                    self._running[event.stream_id].scope.cancel()\n",
        new="                    pass\n",
        caught_by=("tests/unit/test_grpc.py::test_a_reset_ends_a_read_and_not_a_change",),
    ),
    Defect(
        name="the reset of one call tears the frames of others",
        kind=Kind.WAIT,
        file=GRPC,
        old="                self.writer.flush_soon()\n"
        "                await self._window_moved.park()\n",
        new="                await self.writer.flush()\n"
        "                await self._window_moved.park()\n",
        caught_by=("tests/unit/test_found.py::test_a_reset_tears_no_frame",),
    ),
    Defect(
        name="new settings do not wake a reply that waits for its window",
        kind=Kind.WAKE_UP,
        file=GRPC,
        old="events.WindowUpdated() | events.RemoteSettingsChanged():",
        new="events.WindowUpdated():",
        caught_by=("tests/unit/test_grpc_ends.py::test_new_settings_open_the_window_too",),
        hangs=True,
    ),
    Defect(
        name="who waits for room waits though there is some",
        kind=Kind.WAKE_UP,
        file=WRITER,
        old="            if self.much:\n                await self._written.park()\n",
        new="            await self._written.park()\n",
        caught_by=(
            "tests/unit/test_grpc_instant.py::test_there_is_room_when_the_socket_has_taken_much",
        ),
        hangs=True,
    ),
    Defect(
        name="what the socket has not taken is forgotten",
        kind=Kind.DROPPED,
        file=WRITER,
        old="            del self._outgoing[:sent]\n",
        new="            self._outgoing.clear()\n",
        caught_by=(
            "tests/unit/test_grpc_instant.py::test_what_the_socket_takes_a_part_of_is_finished",
        ),
        hangs=True,
    ),
    Defect(
        name="a peer that reads nothing is listened to for ever",
        kind=Kind.CHECK,
        file=GRPC,
        old="            await self.writer.room()\n            try:\n",
        new="            try:\n",
        caught_by=(
            "tests/unit/test_grpc_ends.py::test_a_peer_that_only_asks_is_not_listened_to_for_ever",
        ),
        hangs=True,
    ),
    Defect(
        name="who was sending a request is not told of the stop",
        kind=Kind.DROPPED,
        file=GRPC,
        old="        for stream_id in self._arriving:\n"
        "            self._reset(stream_id, ErrorCodes.REFUSED_STREAM)\n",
        new="",
        caught_by=(
            "tests/unit/test_grpc_ends.py::test_stopping_says_goaway_and_finishes_what_runs",
        ),
        hangs=True,
    ),
    Defect(
        name="a stopped gRPC server does not wait for the calls that run",
        kind=Kind.WAIT,
        file=GRPC,
        old="                listening.start_soon(served.read_to_the_end)\n",
        new="                calls.cancel_scope.cancel()\n",
        caught_by=(
            "tests/unit/test_grpc_ends.py::test_stopping_says_goaway_and_finishes_what_runs",
        ),
    ),
    Defect(
        name="a compressed message is read as it is",
        kind=Kind.CHECK,
        file=WIRE,
        old="        if compressed:\n"
        '            raise UnimplementedError("compressed message: send it uncompressed'
        ' (identity)")\n',
        new="",
        caught_by=("tests/unit/test_grpc.py::test_a_bad_request_hurts_nobody_but_itself",),
    ),
]
