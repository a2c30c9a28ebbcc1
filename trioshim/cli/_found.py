"""Containers on this machine, found by their bundles: ours, containerd's and docker's.

A bundle is STATE_DIR/NAMESPACE/ID; its file `address` (`bootstrap.json` with containerd 2) says
where the shim listens.  So the shims are asked themselves, ours or Go's, and no daemon is needed.
Nothing is opened in a bundle but these files, and nothing is changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from ..bootstrap import announced_path
from ..client import TaskClient, Wire, open_caller
from ..errors import ShimError
from ..proto import task_v2_pb2 as api
from ..proto.task_types_pb2 import Status
from ._failures import CliError, check_root
from ._proc import shim_name, started_at

__all__ = [
    "STATE_DIRS",
    "Place",
    "Seen",
    "find_place",
    "find_places",
    "look",
    "look_at",
    "open_task",
]

STATE_DIRS = (
    "/run/trioshim",
    "/run/containerd/io.containerd.runtime.v2.task",
    "/run/docker/containerd/daemon/io.containerd.runtime.v2.task",
    "/run/k3s/containerd/io.containerd.runtime.v2.task",
)
_PATIENCE = 2.0  # seconds for a State, as containerd has it


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container is.

    Attributes:
        namespace, id: its names.
        bundle: its directory.
    """

    namespace: str
    id: str
    bundle: Path


@dataclass(frozen=True, slots=True)
class Seen:
    """A container as its shim has just told of it.

    Attributes:
        namespace, id: its names.
        status: "created", "running", "paused", "stopped"; "unreachable": its shim does not answer.
        pid: of its first process; 0 if nobody knows.
        exit_status: if it is stopped.
        shim: "trioshim", or the name of the program.
        shim_pid: 0 if nobody knows.
        since: when its first process was started, as ISO 8601; None: it has ended.
        command: what its bundle says.
        bundle: its directory.
    """

    namespace: str
    id: str
    status: str
    pid: int
    exit_status: int | None
    shim: str
    shim_pid: int
    since: str | None
    command: list[str]
    bundle: str


def find_places(
    state_dirs: Iterable[str] = (), *, namespace: str = "", id_: str = ""
) -> list[Place]:
    """Every bundle that is there now, in the order of its names.

    Args:
        state_dirs: where to look; none: `STATE_DIRS`.
        namespace, id_: only those; "": all.
    """
    check_root()
    return [
        Place(space, name, Path(top, space, name))
        for top in tuple(state_dirs) or STATE_DIRS
        for space in _names(top)
        if namespace in ("", space)
        for name in _names(f"{top}/{space}")
        if id_ in ("", name)
    ]


def _names(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            )
    except (FileNotFoundError, NotADirectoryError):
        return []


def find_place(id_: str, state_dirs: Sequence[str] = (), *, namespace: str = "") -> Place:
    """The one container of that name.

    Raises:
        CliError: there is none, or there are several.
    """
    found = find_places(state_dirs, namespace=namespace, id_=id_)
    if not found:
        where = f" in namespace {namespace}" if namespace else ""
        raise CliError(f"there is no container {id_}{where}: `trioshim ps` lists those that run")
    if len(found) > 1:
        spaces = ", ".join(place.namespace for place in found)
        raise CliError(f"{id_} is in several namespaces ({spaces}): say which one with -n")
    return found[0]


@asynccontextmanager
async def open_task(place: Place) -> AsyncIterator[TaskClient]:
    """A connection to the shim of a container.

    Raises:
        CliError: nobody listens there.
        ValueError: the bundle's file is no announcement.
    """
    path, wire, service = _announced(place)
    try:
        stream = await trio.open_unix_socket(path)
    except OSError as error:
        raise CliError(
            f"the shim of {place.id} does not listen any more ({error.strerror or error}):"
            f" its daemon, or the next `trioshim run`, cleans up {place.bundle}"
        ) from None
    async with open_caller(stream, wire) as caller:
        yield TaskClient(caller, service)


def _announced(place: Place) -> tuple[str, Wire, str]:
    """Path, protocol and service of its shim."""
    for name in ("bootstrap.json", "address"):
        try:
            text = (place.bundle / name).read_text("utf-8").strip()
        except (FileNotFoundError, NotADirectoryError):
            continue
        told = json.loads(text) if text.startswith("{") else {}
        grpc = told.get("protocol") == "grpc"
        version = 3 if grpc or told.get("version") == 3 else 2
        wire: Wire = "grpc" if grpc else "ttrpc"
        return announced_path(text), wire, f"containerd.task.v{version}.Task"
    raise CliError(f"{place.id} has no shim yet, or none any more: {place.bundle}")


async def look_at(places: Iterable[Place]) -> list[Seen]:
    """Ask all shims at the same time; a container that is gone meanwhile is left out."""
    found: dict[Place, Seen | None] = dict.fromkeys(places)

    async def ask(place: Place) -> None:
        found[place] = await look(place)

    async with trio.open_nursery() as nursery:
        for place in found:
            nursery.start_soon(ask, place)
    return [seen for seen in found.values() if seen is not None]


async def look(place: Place) -> Seen | None:
    """Ask one shim; None: there is no such container (any more)."""
    try:
        with trio.fail_after(_PATIENCE):
            async with open_task(place) as task:
                state = await task.state(api.StateRequest(id=place.id))
                shim_pid = (await task.connect(api.ConnectRequest(id=place.id))).shim_pid
    except (CliError, ShimError, OSError, ValueError, trio.TooSlowError):
        return _unreachable(place) if place.bundle.exists() else None
    stopped = state.status == Status.STOPPED
    return Seen(
        namespace=place.namespace,
        id=place.id,
        status=Status.Name(state.status).lower(),
        pid=state.pid,
        exit_status=state.exit_status if stopped else None,
        shim=shim_name(shim_pid),
        shim_pid=shim_pid,
        since=None if stopped else started_at(state.pid),
        command=read_command(place.bundle),
        bundle=str(place.bundle),
    )


def _unreachable(place: Place) -> Seen:
    command, bundle = read_command(place.bundle), str(place.bundle)
    return Seen(place.namespace, place.id, "unreachable", 0, None, "-", 0, None, command, bundle)


def read_config(bundle: Path) -> dict[str, object]:
    """The bundle's config.json; {} if there is none."""
    try:
        config = json.loads((bundle / "config.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def read_command(bundle: Path) -> list[str]:
    """The command line of a bundle's first process."""
    process = read_config(bundle).get("process")
    args = process.get("args") if isinstance(process, dict) else None
    return [str(word) for word in args] if isinstance(args, list) else []
