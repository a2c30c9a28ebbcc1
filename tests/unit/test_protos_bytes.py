"""A few messages, byte for byte: what a numbers table cannot show."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from trioshim.proto import (
    bootstrap_pb2,
    events_pb2,
    task_types_pb2,
    task_v2_pb2,
    ttrpc_pb2,
    types_pb2,
)

YEAR_ONE = -62135596800  # Go's zero time, in seconds since 1970

GOLDEN = {
    "exit of an exec": (
        events_pb2.TaskExit(
            container_id="c1",
            id="e",
            pid=300,
            exit_status=137,
            exited_at=Timestamp(seconds=1, nanos=2),
        ),
        "0a 02 63 31  12 01 65  18 ac 02  20 89 01  2a 04 08 01 10 02",
    ),
    "state before the end: year one": (
        task_v2_pb2.StateResponse(
            id="c", status=task_types_pb2.RUNNING, exited_at=Timestamp(seconds=YEAR_ONE)
        ),
        "0a 01 63  20 02  52 0b 08 80 92 b8 c3 98 fe ff ff ff 01",
    ),
    "ttrpc request": (
        ttrpc_pb2.Request(
            service="S",
            method="M",
            payload=b"\x0a\x00",
            timeout_nano=1,
            metadata=[ttrpc_pb2.KeyValue(key="k", value="v")],
        ),
        "0a 01 53  12 01 4d  1a 02 0a 00  20 01  2a 06 0a 01 6b 12 01 76",
    ),
    "ttrpc error": (
        ttrpc_pb2.Response(status=ttrpc_pb2.Status(code=5, message="gone")),
        "0a 08 08 05 12 04 67 6f 6e 65",
    ),
    "ttrpc success with an empty message": (ttrpc_pb2.Response(), ""),
    "negative log level: ten bytes": (
        bootstrap_pb2.BootstrapParams(instance_id="c", log_level=bootstrap_pb2.LOG_LEVEL_TRACE),
        "0a 01 63  18 f8 ff ff ff ff ff ff ff ff 01",
    ),
    "socket_dir that is there but empty": (
        bootstrap_pb2.BootstrapParams(socket_dir=""),
        "4a 00",
    ),
    "mount": (
        types_pb2.Mount(type="bind", source="/s", options=["ro", "rbind"]),
        "0a 04 62 69 6e 64  12 02 2f 73  22 02 72 6f  22 05 72 62 69 6e 64",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_message_is_these_bytes(name: str) -> None:
    """Both ways, against bytes that were written by hand from the encoding rules."""
    message, text = GOLDEN[name]
    assert bytes.fromhex(text) == message.SerializeToString(deterministic=True)
    assert message == type(message).FromString(bytes.fromhex(text))


def test_an_unknown_log_level_is_kept() -> None:
    """The enum is open: a daemon may send a level between the named ones."""
    params = bootstrap_pb2.BootstrapParams.FromString(bytes.fromhex("18 05"))
    assert params.log_level == 5
