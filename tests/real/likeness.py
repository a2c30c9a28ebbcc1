"""All that /proc tells of a shim, to compare one that was forked with one that was spawned."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from .poll import eventually

# What tells of a process and not of what it is allowed or set to.
_OWN = re.compile(
    r"^(Pid|Tgid|NSpid|NStgid|NSpgid|NSsid|Vm\w+|Rss\w+|\w*ctxt_switches|SigQ|HugetlbPages|Ngid"
    r"|State|x86_\w+)$"
)
_FILES = (
    *("limits", "cgroup", "oom_score_adj", "environ", "cmdline", "comm", "loginuid", "sessionid"),
    *("timerslack_ns", "coredump_filter", "personality", "attr/current", "setgroups", "autogroup"),
)
_LINKS = ("cwd", "exe", "root", *(f"ns/{name}" for name in os.listdir("/proc/self/ns")))


def read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b"(cannot be read)"


def account(pid: int, id_: str) -> dict[str, object]:
    """All that /proc says about a process, but for what no two processes share."""
    told: dict[str, object] = {
        name: read(pid, name).replace(id_.encode(), b"ID") for name in _FILES
    }
    environ = read(pid, "environ").replace(id_.encode(), b"ID")
    # A shell turns it upside down.
    told["environ"] = sorted(environ.replace(b"TEMPLATE=off", b"TEMPLATE=on").split(b"\0"))
    told["autogroup"] = read(pid, "autogroup").rpartition(b" nice")[2]
    for line in read(pid, "status").decode().splitlines():
        name, _, value = line.partition(":")
        if not _OWN.match(name):
            told[name] = value
    for name in _LINKS:
        told[name] = os.readlink(f"/proc/{pid}/{name}").replace(id_, "ID")
    for fd in os.listdir(f"/proc/{pid}/fd"):
        told[f"fd {fd}"] = re.sub(r"\d{3,}", "N", os.readlink(f"/proc/{pid}/fd/{fd}"))
        flags = read(pid, f"fdinfo/{fd}").decode()
        told[f"flags {fd}"] = re.findall(r"flags:\s*(\d+)", flags)
    stat = read(pid, "stat").decode().rpartition(") ")[2].split()
    state_of = {"ppid": 4, "pgrp": 5, "session": 6, "tty": 7, "priority": 18, "nice": 19}
    state_of |= {"threads": 20, "exit signal": 38, "rt priority": 40, "policy": 41}
    numbers = {name: int(stat[field - 3]) for name, field in state_of.items()}
    leads = {name: numbers.pop(name) == pid for name in ("pgrp", "session")}
    return told | numbers | leads


def assert_alike(forked: int, spawned: int) -> None:
    """Their accounts are the same, as soon as both serve."""

    def alike() -> bool:
        with suppress(FileNotFoundError):  # a file was closed while we looked
            return account(forked, "two") == account(spawned, "six")
        return False

    with suppress(TimeoutError):
        eventually(alike, "it", within=5)
    one, other = account(forked, "two"), account(spawned, "six")
    pairs = {key: (one.get(key), other.get(key)) for key in {*one, *other}}
    different = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
    assert not different, different


def fds(pid: int) -> list[bytes]:
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # it was closed while we looked
            found.append(os.fsencode(os.readlink(f"/proc/{pid}/fd/{fd}")))
    return found
