"""What the verb `start` of a shim says, in every dialect that containerd knows.

Pure.  Up to containerd 1.6 it is an address, since 1.7 it may be JSON, since 2.3 a BootstrapResult.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from ..proto.bootstrap_pb2 import BootstrapResult

if TYPE_CHECKING:
    from ._task import Wire

__all__ = ["Answer", "read_answer"]

_V2, _V3 = "containerd.task.v2.Task", "containerd.task.v3.Task"
_WIRES: dict[str, Wire] = {"ttrpc": "ttrpc", "grpc": "grpc"}
_VERSIONS = (2, 3)
_EXCERPT = 200  # characters


@dataclass(frozen=True, slots=True)
class Answer:
    """Where a shim listens, and what it speaks.

    Attributes:
        address: as the shim said it.
        protocol: "ttrpc" or "grpc".
        version: of the shim's protocol: 2 or 3; 2 if the answer was only an address.
    """

    address: str
    protocol: Wire = "ttrpc"
    version: int = 2

    @property
    def paths(self) -> tuple[str, ...]:
        """What to dial, in this order.

        containerd takes a bare path for the name of an abstract socket if it is to speak ttrpc,
        and for that of a file if it is to speak gRPC.
        """
        path = self.address.removeprefix("unix://")
        bare = path == self.address and self.protocol == "ttrpc"
        return (f"\0{path}", path) if bare else (path,)

    @property
    def services(self) -> tuple[str, ...]:
        """The names that the Task service may have, the likeliest first.

        gRPC is version 3 whatever is announced; a shim that announces 3 may know only 2
        (containerd 2.0.6 and later forgive that).
        """
        if self.protocol == "grpc":
            return (_V3,)
        return (_V3, _V2) if self.version == 3 else (_V2,)


def read_answer(output: bytes) -> Answer:
    """Understand the standard output of `start`.

    Raises:
        ValueError: it is none of the three, or names a version, a protocol or a kind of address
            that is not known here.
    """
    told = _read_result(output)
    if told is not None:
        return _answer(told.version, told.protocol, told.address)
    text = output.decode("utf-8", "replace").strip()
    if not text.startswith("{"):
        return _answer(2, "ttrpc", text)
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise ValueError(f"no JSON: {error}: {_excerpt(text)}") from None
    return _answer(fields.get("version"), fields.get("protocol"), fields.get("address"))


def _read_result(output: bytes) -> BootstrapResult | None:
    """The answer of a shim for containerd 2.3; an address or JSON cannot be read as one."""
    try:
        result = BootstrapResult.FromString(output)
    except DecodeError:
        return None
    return result if result.address else None


def _answer(version: object, protocol: object, address: object) -> Answer:
    if type(version) is not int or version not in _VERSIONS:
        raise ValueError(f"version {version!r}: it should be one of {_VERSIONS}")
    wire = _WIRES.get(protocol.lower()) if isinstance(protocol, str) else None
    if wire is None:
        raise ValueError(f"protocol {protocol!r}: it should be one of {', '.join(_WIRES)}")
    if not isinstance(address, str) or not address:
        raise ValueError("no address")
    path = address.removeprefix("unix://")
    if not path.startswith("/") or not path.isprintable():
        raise ValueError(f"no address of a unix socket: {_excerpt(address)}")
    return Answer(address, wire, version)


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= _EXCERPT else text[:_EXCERPT] + "...")
