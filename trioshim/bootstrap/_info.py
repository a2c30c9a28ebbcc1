"""`-info`: what this runtime is and what it can do (asked by containerd 2.0 and later)."""

from __future__ import annotations

import json

from .._version import __version__
from . import _dialects
from ._command import run
from ._files import read_stdin, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

RUNTIME_NAME = "io.containerd.trio.v1"
_FEATURES = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"
_RUNC_SECONDS = 5.0


def info(environ: Mapping[str, str]) -> None:
    """Answer a serialized RuntimeInfo on standard output.

    Standard input may be a serialized Any of runtime options; its `binary_name` is the runtime
    that is asked for its features.

    Raises:
        ValueError: standard input is too long, or no Any.
        OSError: the runtime's binary is not there.
    """
    # protobuf takes longer to import than `start` has in all, but nobody waits for `-info`.
    from google.protobuf.any_pb2 import Any
    from google.protobuf.message import DecodeError

    from ..proto.types_pb2 import RuntimeInfo

    data = read_stdin(_dialects.STDIN_LIMIT)
    answer = RuntimeInfo(name=RUNTIME_NAME)
    answer.version.version = __version__
    if data:
        try:
            answer.options.CopyFrom(Any.FromString(data))
        except DecodeError as error:
            raise ValueError("standard input is no serialized google.protobuf.Any") from error
    features = runtime_features(_dialects.runtime_binary(data), environ)
    if features:
        answer.features.type_url = _FEATURES
        answer.features.value = features
    write_all(1, answer.SerializeToString())


def runtime_features(binary: str, environ: Mapping[str, str]) -> bytes:
    """The JSON text of `<binary> features`; b"" if it does not know that command.

    Raises:
        OSError: there is no such binary, or it cannot be run.
    """
    try:
        outcome = run([binary, "features"], environ, limit=_RUNC_SECONDS)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"runtime {binary!r} is not in PATH") from error
    try:
        json.loads(outcome.stdout)
    except ValueError:
        return b""
    return outcome.stdout if outcome.status == 0 else b""
