"""`delete`: clean up after a shim that is gone, and say how its container ended.

The daemon runs it after every container (since 1.5), in the bundle, and kills it after 5 seconds.
So: it can be run again and again, whatever is missing is no failure, nothing waits for long, and
the answer tells the truth where it is known (`_exit_record`).
"""

from __future__ import annotations

import os
import time
from posixpath import join

from .._exit_record import FILE_NAME, ExitRecord, decode
from .._mountinfo import mounts_below
from . import _dialects, _sockets
from ._command import run
from ._files import read_file, write_all
from ._wire import block_field, integer_field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._arguments import Arguments

_RUNC_SECONDS = 3.0
_KILLED = 137  # 128 + SIGKILL
_DEFAULT_ROOT = "/run/containerd/runc"
_UNMOUNT_ROUNDS = 8
_SECOND = 1_000_000_000


def delete(arguments: Arguments, environ: Mapping[str, str]) -> None:
    """Remove the container, its mounts and its socket; answer a DeleteResponse on standard output.

    Args:
        arguments: the command line, checked; without `-bundle` the working directory is it.
        environ: the daemon's environment, for the runtime's command.

    Raises:
        FileNotFoundError: there is no such bundle.
        OSError: it cannot be read, or the answer cannot be written.
    """
    bundle = find_bundle(arguments.bundle)
    record = _ending(bundle)
    for step in (_delete_container, _unmount_rootfs, _remove_socket):
        try:
            step(bundle, arguments, environ)
        except (OSError, ValueError) as error:
            warn(f"{step.__name__.strip('_').replace('_', ' ')}: {error}")
    write_all(1, serialize(record))


def find_bundle(path: str) -> str:
    """The real path of the bundle, since only that is found among the mounts.

    Args:
        path: as given; "" for the working directory.

    Raises:
        FileNotFoundError: it is not there (any more).
    """
    try:
        bundle = os.path.realpath(path or os.getcwd(), strict=True)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no bundle at {path or 'the working directory'}") from error
    if not os.path.isdir(bundle):
        raise FileNotFoundError(f"no bundle at {bundle}: it is no directory")
    return bundle


def serialize(record: ExitRecord) -> bytes:
    """The bytes of a DeleteResponse, which is the same in the Task services v2 and v3."""
    seconds, nanoseconds = divmod(record.at_ns, _SECOND)
    stamp = integer_field(1, seconds) + integer_field(2, nanoseconds)
    return integer_field(1, record.pid) + integer_field(2, record.status) + block_field(3, stamp)


def warn(text: str) -> None:
    """The daemon logs what `delete` says on standard error, and goes on."""
    write_all(2, f"{_dialects.NAME}: warning: {text}\n".encode("utf-8", "backslashreplace"))


def _ending(bundle: str) -> ExitRecord:
    """How init ended: as recorded; else it is about to be killed."""
    record = decode(_read(bundle, FILE_NAME))
    if record is not None:
        return record
    text = _read(bundle, "init.pid").strip()
    pid = int(text) if text.isdigit() and len(text) <= 10 else 0
    if pid and not os.path.exists(f"/proc/{pid}"):
        warn(f"init has ended unseen: {_KILLED} stands for its unknown exit status")
    return ExitRecord(pid, _KILLED, time.time_ns())


def _read(bundle: str, name: str) -> bytes:
    try:
        return read_file(join(bundle, name))
    except OSError as error:
        warn(f"cannot read {name}: {error}")
        return b""


def _delete_container(bundle: str, arguments: Arguments, environ: Mapping[str, str]) -> None:
    options = _options(bundle)
    binary = os.fsdecode(_read(bundle, "runtime").strip()) or options.get("binary_name") or "runc"
    root = join(options.get("root") or _DEFAULT_ROOT, arguments.namespace)
    if _is_forgotten(bundle, root, arguments.id):
        return
    argv = [binary, "--root", root, "--log", join(bundle, "log.json"), "--log-format", "json"]
    outcome = run([*argv, "delete", "--force", arguments.id], environ, limit=_RUNC_SECONDS)
    if outcome.status is None:
        warn(f"{binary} delete did not end within {_RUNC_SECONDS:g} seconds and was killed")
    elif outcome.status != 0:
        said = (outcome.stdout + outcome.stderr).decode("utf-8", "replace").strip()
        warn(f"{binary} delete ended with status {outcome.status}: {said}")


def _is_forgotten(bundle: str, root: str, id: str) -> bool:  # noqa: A002 (the flag)
    """The usual case: init's end was recorded, and the runtime has removed what it knew.

    To ask it again takes longer than all the rest.  If we look in the wrong place, the directory
    above is not there either, and it is asked.
    """
    ended = decode(_read(bundle, FILE_NAME)) is not None
    return ended and os.path.isdir(root) and not os.path.lexists(join(root, id))


def _options(bundle: str) -> dict[str, str]:
    """The texts among the runtime options that the shim has noted."""
    data = _read(bundle, "options.json")
    if not any(key in data for key in (b'"root"', b'"binary_name"')):
        return {}  # the usual case, and json takes longer to import than all the rest
    import json

    try:
        options = json.loads(data)
    except ValueError as error:
        warn(f"cannot read options.json: {error}")
        return {}
    if not isinstance(options, dict):
        return {}
    return {key: value for key, value in options.items() if isinstance(value, str)}


def _unmount_rootfs(bundle: str, _arguments: Arguments, _environ: Mapping[str, str]) -> None:
    rootfs = join(bundle, "rootfs")
    # Again, because a layer may come to light (or go) with another one.
    for _ in range(_UNMOUNT_ROUNDS):
        with open("/proc/self/mountinfo", "rb") as file:
            targets = mounts_below(file.read(), rootfs)
        if not targets:
            return
        for target in targets:
            _unmount(target)
    warn(f"{rootfs} is still mounted")


def _unmount(target: str) -> None:
    import ctypes
    import errno

    detach, no_follow = 2, 8
    libc = ctypes.CDLL(None, use_errno=True)
    path = os.fsencode(target)
    if libc.umount2(path, no_follow) == 0:
        return
    if ctypes.get_errno() == errno.EBUSY and libc.umount2(path, no_follow | detach) == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOENT):  # gone meanwhile
        raise OSError(code, os.strerror(code), target)


def _remove_socket(bundle: str, _arguments: Arguments, _environ: Mapping[str, str]) -> None:
    """A shim that still listens is sending its last events, and removes its socket itself."""
    path = _dialects.announced_path(os.fsdecode(_read(bundle, "address").strip()))
    if path.startswith("/"):
        _sockets.remove_dead_socket(path)
