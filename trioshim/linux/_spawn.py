"""Starting a program: which fds, signals and environment it gets.

What holds here:

* The child has the fds it was given, /dev/null for the rest of 0, 1 and 2, and nothing else:
  every other fd of ours is close-on-exec, as Python makes them and `keep_fds` what we inherited.
* It starts with all signals at their default and none blocked.  What it ignores, the container
  ignores: CPython ignores SIGPIPE and SIGXFSZ, and glibc's posix_spawn ignores signals 32 and 33
  for the child unless told otherwise.  `os.posix_spawn` cannot tell it otherwise (sigaddset
  refuses the two), so libc is called here without it.
* Nothing of ours runs between fork and exec.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress

from ._libc import libc, text

_STANDARD = (0, 1, 2)
_SETPGROUP = 0x02
_SETSIGDEF = 0x04
_SETSIGMASK = 0x08
# Room for posix_spawnattr_t, posix_spawn_file_actions_t and sigset_t of any libc (336, 80, 128).
_OPAQUE = 1024


def keep_fds() -> None:
    """Make every fd above 2 close-on-exec, so that none that we inherited reaches a container.

    For the composition root, once, before anything is spawned.
    """
    for fd in map(int, os.listdir("/proc/self/fd")):
        # The one that listed the directory is in the list and gone.
        with suppress(OSError):
            if fd not in _STANDARD:
                os.set_inheritable(fd, False)


def spawn_process(
    argv: Sequence[str], fds: Mapping[int, int], env: Mapping[str, str] | None
) -> int:
    """Start a program as the leader of a process group of its own and return its pid.

    posix_spawn returns when the program runs, so the group exists by then, and a missing program
    is an error here.

    Args:
        argv: the program (looked up in our PATH) and its arguments.
        fds: the child's fd number to ours.
        env: its whole environment; None: ours without NOTIFY_SOCKET.

    Raises:
        OSError: it could not be started.
    """
    environment = _our_environment() if env is None else [f"{k}={v}" for k, v in env.items()]
    pid = ctypes.c_int()
    with _clear_of_targets(fds) as sources, _file_actions(sources) as actions, _attributes() as how:
        error = libc().posix_spawnp(
            ctypes.byref(pid),
            text(argv[0]),
            actions,
            how,
            _strings(argv),
            _strings(environment),
        )
    _check(error, argv[0])
    return pid.value


def _our_environment() -> list[bytes]:
    # A service manager's socket is for this process; runc would report readiness on it.
    variables = os.environb.items()
    return [b"%b=%b" % (name, value) for name, value in variables if name != b"NOTIFY_SOCKET"]


@contextmanager
def _clear_of_targets(fds: Mapping[int, int]) -> Iterator[dict[int, int]]:
    """`fds` with numbers of ours that no dup2 can overwrite before it is their turn."""
    targets = {*_STANDARD, *fds}
    with ExitStack() as duplicates:
        sources = dict(fds)
        for target, ours in fds.items():
            if ours in targets and ours != target:
                copy = fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, max(targets) + 1)
                duplicates.callback(os.close, copy)
                sources[target] = copy
        yield sources


@contextmanager
def _file_actions(sources: Mapping[int, int]) -> Iterator[ctypes.Array[ctypes.c_char]]:
    actions = ctypes.create_string_buffer(_OPAQUE)
    _check(libc().posix_spawn_file_actions_init(actions))
    try:
        for target, ours in sources.items():
            # To itself it clears close-on-exec, so that needs no case of its own.
            _check(libc().posix_spawn_file_actions_adddup2(actions, ours, target))
        for fd in _STANDARD:
            if fd not in sources:
                null = text(os.devnull)
                _check(
                    libc().posix_spawn_file_actions_addopen(actions, fd, null, os.O_RDWR, 0),
                )
        yield actions
    finally:
        libc().posix_spawn_file_actions_destroy(actions)


@contextmanager
def _attributes() -> Iterator[ctypes.Array[ctypes.c_char]]:
    attributes = ctypes.create_string_buffer(_OPAQUE)
    _check(libc().posix_spawnattr_init(attributes))
    try:
        # A sigset is an array of bits: all ones is every signal, also those libc keeps to itself.
        every, none = b"\xff" * _OPAQUE, b"\0" * _OPAQUE
        _check(libc().posix_spawnattr_setsigdefault(attributes, every))
        _check(libc().posix_spawnattr_setsigmask(attributes, none))
        _check(libc().posix_spawnattr_setpgroup(attributes, 0))
        flags = ctypes.c_short(_SETPGROUP | _SETSIGDEF | _SETSIGMASK)
        _check(libc().posix_spawnattr_setflags(attributes, flags))
        yield attributes
    finally:
        libc().posix_spawnattr_destroy(attributes)


def _strings(values: Iterable[str | bytes]) -> ctypes.Array[ctypes.c_char_p]:
    encoded = [text(value) for value in values]
    return (ctypes.c_char_p * (len(encoded) + 1))(*encoded, None)


def _check(error: int, filename: str | None = None) -> None:
    # These return their error instead of setting errno.
    if error:
        raise OSError(error, os.strerror(error), filename)
