"""What a shim has to know of a bundle's config.json: very little.

Pure.  The file comes from whoever made the container, so it may be anything: it is read
shallowly, a part that looks wrong counts as absent, and only a text that is no JSON object at
all is an error.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from ..abc import ExecSpec
from ..errors import InvalidArgumentError

# containerd sends a spec in one message of at most 16 MiB; what is larger did not come from it.
MAX_CONFIG = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Config:
    """The part of config.json that a shim looks at.

    Attributes:
        own_pid_namespace: the container gets a new pid namespace, so when its init ends the
            kernel ends the rest.
        cgroups_path: `linux.cgroupsPath`; "" where the runtime chooses.
    """

    own_pid_namespace: bool = False
    cgroups_path: str = ""


def json_object(text: bytes) -> dict[str, object]:
    """A JSON text that must be an object.

    Raises:
        ValueError: it is not; the text says in what way.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object is wanted, not {type(value).__name__}")
    return value


def parse_config(text: bytes) -> Config:
    """What we need of config.json.

    Raises:
        ValueError: it is no JSON object.
    """
    linux = json_object(text).get("linux")
    if not isinstance(linux, dict):
        return Config()
    path = linux.get("cgroupsPath")
    namespaces = linux.get("namespaces")
    return Config(
        own_pid_namespace=any(
            isinstance(entry, dict) and entry.get("type") == "pid" and not entry.get("path")
            for entry in (namespaces if isinstance(namespaces, list) else ())
        ),
        cgroups_path=path if isinstance(path, str) else "",
    )


def process_json(process: ExecSpec) -> bytes:
    """The text for `runc exec --process`: as it came, but `terminal` is the request's.

    Raises:
        InvalidArgumentError: it is no JSON object.
    """
    try:
        spec = json_object(process.process)
    except ValueError as error:
        why = f"exec {process.id}: its process is {error}; send an OCI process object"
        raise InvalidArgumentError(why) from None
    return json.dumps({**spec, "terminal": process.io.terminal}).encode()
