"""What a spawned process has of its parent: what must be the same, and what can be made so.

A fork has the template's traits, a spawned server those of `start`.  Rules:

* what no process can change of itself, or only in one direction (namespaces, root, credentials,
  capabilities, seccomp, security label, scheduling), is compared; a difference means that `start`
  spawns;
* cgroups, resource limits, the umask and the OOM score are taken over.

Not seen by anyone but their owner, and so not compared: the session keyring, securebits and NUMA
policy.  They come with the daemon, and so does the template.
"""

from __future__ import annotations

import os
import resource
import signal
from contextlib import suppress

from ._cgroups import moves

__all__ = [
    "Traits",
    "adopt",
    "begun",
    "ignores",
    "parent_of",
    "stat_fields",
    "traits_of",
    "umask_of",
]

Traits = dict[str, object]

_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "user", "uts")
_STATUS = {
    *("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"),
    *("Seccomp", "Seccomp_filters", "Speculation_Store_Bypass", "SpeculationIndirectBranch"),
    *("Cpus_allowed", "Mems_allowed", "THP_enabled"),
}
_FILES = (
    *("attr/current", "loginuid", "sessionid", "personality", "timerslack_ns", "coredump_filter"),
)
_RLIMITS = range(16)
# 32 and 33 are glibc's: whom its posix_spawn has made ignores them, whom Go has made does not.
# SIGPIPE and SIGXFSZ are Python's, which ignores them whatever it was told.
_INTERNAL_SIGNALS = 1 << 31 | 1 << 32 | 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1


def traits_of(pid: int) -> Traits:
    """All that must be the same in two processes for one to stand in for the other's child.

    Raises:
        OSError: it may not be seen, or the process is gone.
    """
    traits: Traits = {f"ns/{name}": _place(pid, f"ns/{name}") for name in _NAMESPACES}
    traits["root"] = _place(pid, "root")
    for line in _read(pid, "status").splitlines():
        key, _, value = line.partition(b":")
        if key == b"SigIgn":
            traits["SigIgn"] = int(value, 16) & ~_INTERNAL_SIGNALS
        elif key.decode() in _STATUS:
            traits[key.decode()] = value
    for name in _FILES:
        traits[name] = b""
        with suppress(FileNotFoundError, OSError):
            traits[name] = _read(pid, name)
    traits["scheduler"] = os.sched_getscheduler(pid), os.sched_getparam(pid).sched_priority
    traits["nice"] = os.getpriority(os.PRIO_PROCESS, pid)
    return traits


def ignores(traits: Traits, signum: int) -> bool:
    """Whether a process with these traits ignores a signal."""
    mask = traits["SigIgn"]
    return isinstance(mask, int) and bool(mask >> (signum - 1) & 1)


def adopt(pid: int) -> None:
    """Take over what a child of this process would have.

    Raises:
        OSError, ValueError: something cannot be taken over.
    """
    for limit in _RLIMITS:
        theirs = resource.prlimit(pid, limit)
        if theirs != resource.getrlimit(limit):
            resource.setrlimit(limit, theirs)
    os.umask(umask_of(pid))
    _join_cgroups(pid)
    score = _read(pid, "oom_score_adj")
    if score != _read(os.getpid(), "oom_score_adj"):
        _write("/proc/self/oom_score_adj", score)


def stat_fields(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the third on."""
    return _read(pid, "stat").rpartition(b") ")[2].split()


def parent_of(pid: int) -> int:
    """The number of its parent; 0: out of sight."""
    return int(stat_fields(pid)[1])


def begun(pid: int) -> int:
    """When a process started; with its number, this names it for ever.  0: out of sight."""
    return int(stat_fields(pid)[19]) if pid else 0


def umask_of(pid: int) -> int:
    """The umask of a process."""
    return int(_read(pid, "status").partition(b"\nUmask:")[2].split(None, 1)[0], 8)


def _join_cgroups(pid: int) -> None:
    mine, theirs = _read(os.getpid(), "cgroup"), _read(pid, "cgroup")
    if mine != theirs:
        with open("/proc/self/mountinfo", "rb") as file:
            mountinfo = file.read()
        for path in moves(mine, theirs, mountinfo):
            _write(path, b"0")


def _place(pid: int, name: str) -> tuple[int, int]:
    found = os.stat(f"/proc/{pid}/{name}")
    return found.st_dev, found.st_ino


def _read(pid: int, name: str) -> bytes:
    fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
