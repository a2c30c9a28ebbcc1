"""What programs that were killed have left: found by their locks, ended and removed, each once.

The shim is not asked: it may have been stopped, have died, or be about to come up.  It is killed,
with a `start` that is under way; a runtime's command is left to its end, so that its container is
one that can be deleted; then the shim's own `delete` removes container, mounts and cgroup.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import trio

from ..bootstrap import socket_address
from ..client import LaunchError
from ..client._shim_answer import Answer, read_answer
from ..client._shim_binary import ShimBinary, find_program
from ._store import Bundle, find_leftovers

__all__ = ["note_shim", "remove_leftovers"]

log = logging.getLogger("trioshim.containers")

_FILE = "shim.json"  # in a bundle: which shim it has
_PATIENCE = 60.0  # seconds for each
_RUNTIME = 5.0  # seconds for a runtime's command to end by itself
_LOOK_AGAIN = 0.02


def note_shim(directory: Path, shim: str | os.PathLike[str], address: str) -> None:
    """Write into a bundle, before its shim is started, what is needed to remove it.

    Args:
        directory: the bundle.
        shim: its program; another program may have another working directory.
        address: where its events go, which decides where it listens.
    """
    noted = {"program": find_program(shim), "address": address}
    (directory / _FILE).write_text(json.dumps(noted), "utf-8")


async def remove_leftovers(namespace: str, state_dir: str | os.PathLike[str]) -> None:
    """End and remove the containers whose programs have been killed.  Not to be cancelled.

    What cannot be removed is logged, and left to the next who tries.
    """
    leftovers = find_leftovers(namespace=namespace, state_dir=state_dir)
    if not leftovers:
        return
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as nursery:
            for bundle in leftovers:
                nursery.start_soon(_remove_one, bundle)


async def _remove_one(bundle: Bundle) -> None:
    log.warning("container %s was left over by a program that was killed", bundle.id)
    try:
        with trio.fail_after(_PATIENCE):
            await _end(bundle)
            await bundle.remove()
    except (LaunchError, OSError, trio.TooSlowError) as error:
        log.error("container %s cannot be removed: %s", bundle.id, error)
        bundle.release()


async def _end(bundle: Bundle) -> None:
    binary = _read_binary(bundle)
    if binary is None:
        return  # it had not come so far
    await _kill_all(bundle, _is_shim, 0)
    await _kill_all(bundle, _names_it, _RUNTIME)
    # containerd-shim-runc-v1 fails to remove a socket that is gone, and then does no more.
    _remove_sockets(binary)
    (bundle.path / "address").unlink(missing_ok=True)
    await binary.delete()


def _read_binary(bundle: Bundle) -> ShimBinary | None:
    try:
        noted = json.loads((bundle.path / _FILE).read_bytes())
    except (FileNotFoundError, ValueError):  # it was killed before, or while it wrote that
        return None
    environ = dict(os.environ) | {"TTRPC_ADDRESS": noted["address"]}
    path = os.path.realpath(bundle.path)
    return ShimBinary(
        noted["program"], path, bundle.id, bundle.namespace, noted["address"], False, environ
    )


def _sockets(binary: ShimBinary) -> list[str]:
    """Where its shim listened: by what that has noted, and by its own and containerd's rule."""
    names = (binary.address, binary.namespace, binary.id)
    own = os.environ.get("TRIOSHIM_SOCKET_DIR", "")
    answers = [Answer(socket_address(*names)), Answer(socket_address(*names, own))]
    with suppress(OSError, ValueError):
        answers.append(read_answer(Path(binary.bundle, "address").read_bytes()))
    return [path for answer in answers for path in answer.paths if path.startswith("/")]


def _remove_sockets(binary: ShimBinary) -> None:
    """Its own, with the lock of a `start`, and that of its events: all who listened are dead."""
    for path in _sockets(binary):
        _remove(path)
        _remove(f"{path}.lock")
    _remove(binary.address)
    directory = os.path.dirname(binary.address)
    if directory.startswith(os.path.join(tempfile.gettempdir(), "trioshim-")):  # `open_event_sink`
        with suppress(OSError):
            os.rmdir(directory)


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


# ---------------------------------------------------------------- processes

Test = Callable[[list[str], str], bool]


async def _kill_all(bundle: Bundle, wanted: Test, patience: float) -> None:
    """Wait until none is left of these, then kill them; one may have begun another meanwhile.

    Blocks for a moment: it reads all of /proc.
    """
    deadline = trio.current_time() + patience
    while pids := [pid for pid in _pids() if _works_for(pid, bundle, wanted)]:
        if trio.current_time() >= deadline:
            for pid in pids:
                _kill(pid, bundle, wanted)
        await trio.sleep(_LOOK_AGAIN)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _kill(pid: int, bundle: Bundle, wanted: Test) -> None:
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            # Looked at again, now that the pid cannot become another's.
            if _works_for(pid, bundle, wanted):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)


def _works_for(pid: int, bundle: Bundle, wanted: Test) -> bool:
    """It works in the bundle, as all of a shim do, and its arguments fit; no zombie does."""
    try:
        if os.readlink(f"/proc/{pid}/cwd") != os.path.realpath(bundle.path):
            return False
        argv = Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").split("\0")
    except (ProcessLookupError, FileNotFoundError, PermissionError):
        return False
    return wanted(argv, bundle.id)


def _is_shim(argv: list[str], id_: str) -> bool:
    return ("-id", id_) in pairwise(argv)


def _names_it(argv: list[str], id_: str) -> bool:
    return id_ in argv
