"""What daemons say to the shim: flags, environment and standard input."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any as AnyMessage

from trioshim.bootstrap._wire import block_field
from trioshim.proto.bootstrap_pb2 import BootstrapParams

NS, ID = "k8s.io", "c0ffee"
A = "/run/containerd/containerd.sock"
SELF = "/usr/bin/containerd"
COMMON = ["-namespace", NS, "-address", A, "-publish-binary", SELF, "-id", ID]
TTRPC = {"TTRPC_ADDRESS": A + ".ttrpc", "GOMAXPROCS": "2"}
SINCE_1_7 = TTRPC | {"GRPC_ADDRESS": A, "NAMESPACE": NS, "MAX_SHIM_VERSION": "2"}


def any_of(name: str, value: bytes) -> bytes:
    """A serialized Any, by hand."""
    return block_field(1, name.encode()) + block_field(2, value)


# `shim_cgroup: "/shims"` in the two messages that have it, byte for byte.
RUNC_ANY = b"\x0a\x1acontainerd.runc.v1.Options\x12\x08\x1a\x06/shims"
OLD_ANY = b"\x0a\x23containerd.linux.runc.CreateOptions\x12\x08\x4a\x06/shims"
CRI_ANY = b"\x0a\x1dcri.runtimeoptions.v1.Options\x12\x03\x0a\x01x"


def params(**changes: object) -> bytes:
    """What a 2.3 daemon sends."""
    values: dict[str, object] = {
        "instance_id": ID,
        "namespace": NS,
        "containerd_version": "2.3.4",
        "containerd_ttrpc_address": A + ".ttrpc",
        "containerd_grpc_address": A,
        "containerd_binary": SELF,
        "socket_dir": "/run/containerd/s",
    }
    return BootstrapParams(**(values | changes)).SerializeToString()  # type: ignore[arg-type]


def with_extension(*options: AnyMessage, **changes: object) -> bytes:
    """The same, with these options among its extensions."""
    return params(**changes) + b"".join(
        block_field(8, block_field(1, option.SerializeToString())) for option in options
    )
