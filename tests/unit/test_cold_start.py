"""What a server that was spawned does before it serves: little, and nothing that can wait."""

from __future__ import annotations

from .fresh_python import printed_by

# What only some need, or nobody before the first container comes.  What comes first with its end
# is not here: by then an update may have replaced or removed the file.
_LATER = [
    "tomllib",
    "trioshim.linux._console",
    "trioshim.linux._logger",
    "trioshim.linux._stdio",
    "trioshim.proto.cgroups_v1_pb2",
    "trioshim.proto.cgroups_v2_pb2",
    "trioshim.proto.cri_runtime_options_pb2",
    "trioshim.proto.linux_runc_pb2",
    "trioshim.proto.runtime_options_pb2",
    "trioshim.rpc._grpc",
    "h2",
    "purerpc",
]
_LOADED = """
import sys, trioshim._compose
print(*sys.modules)
"""
_COLLECTED = """
import gc, sys, types
import trioshim.__main__ as main

def serve_forever(arguments):
    print(gc.isenabled(), gc.get_freeze_count() > 1000)

sys.modules["trioshim._compose"] = types.SimpleNamespace(serve_forever=serve_forever)
main._serve(None)
"""


def test_a_server_loads_what_it_needs_at_once() -> None:
    """Each module costs the first answer a tenth of a millisecond, some much more."""
    loaded = printed_by("-c", _LOADED, hash_seed="0").split()
    assert "trioshim.shim" in loaded
    assert not {*_LATER} & {*loaded}


def test_garbage_is_looked_for_while_it_serves() -> None:
    """Not while it loads, and never in what was loaded."""
    assert printed_by("-c", _COLLECTED, hash_seed="0").split() == ["True", "True"]
