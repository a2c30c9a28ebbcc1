"""What /proc says of a process.  Everything may be gone while it is looked at: then it is "-"."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["is_our_shim", "shim_name", "started_at"]

_START_TIME = 19  # of the fields behind the name in /proc/PID/stat
_OURS = (b"trioshim", b"containerd-shim-trio-v1")


def arguments(pid: int) -> list[bytes]:
    """The words of its command line; none if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return []


def is_our_shim(pid: int) -> bool:
    """Whether this process is a server of trioshim: only it takes SIGUSR1 for a question."""
    words = [os.path.basename(word) for word in arguments(pid)[:6]]
    module = words[words.index(b"-m") + 1 :][:1] if b"-m" in words else words[:2]
    return any(word in _OURS for word in module)


def shim_name(pid: int) -> str:
    """What the program of a shim is called."""
    if is_our_shim(pid):
        return "trioshim"
    words = arguments(pid)
    return os.path.basename(words[0]).decode("utf-8", "replace") if words else "-"


def started_at(pid: int) -> str | None:
    """When it was started, as ISO 8601 in UTC; None: it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        lines = Path("/proc/stat").read_text("ascii").splitlines()
    except OSError:
        return None
    boot = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
    ticks = int(fields[_START_TIME]) / os.sysconf("SC_CLK_TCK")
    return datetime.fromtimestamp(boot + ticks, UTC).isoformat(timespec="seconds")
