"""Our own terminal while a container has it: raw, and as it was before in the end."""

from __future__ import annotations

import os
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..containers import Terminal

__all__ = [
    "CTRL_C",
    "is_deaf_foreground",
    "like_ours",
    "raw_terminal",
    "terminal_size",
    "would_drop",
]

CTRL_C = b"\x03"


@contextmanager
def raw_terminal(fd: int) -> Iterator[None]:
    """Every key goes through, Ctrl-C too, while the block lasts."""
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        # Not TCSADRAIN: a terminal that was stopped with Ctrl-S would hold us here.
        termios.tcsetattr(fd, termios.TCSANOW, before)


def terminal_size(fd: int) -> tuple[int, int] | None:
    """Columns and rows; None: it is no terminal, or has no size."""
    try:
        size = os.get_terminal_size(fd)
    except OSError:
        return None
    return (size.columns, size.lines) if size.columns and size.lines else None


def like_ours(wanted: bool) -> Terminal:
    """A container's terminal: of the size of ours, if we have one and it has a size."""
    return wanted and (terminal_size(0) or terminal_size(1) or True)


def would_drop(pid: int, signum: int) -> bool:
    """Whether Linux drops this signal for an init, which has no handler for it.

    To any other process the signal would be the end.

    Args:
        pid: of the first process of a container.
        signum: one that ends a process by default.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        heard = int(fields["SigCgt"], 16) | int(fields["SigIgn"], 16)
    except (OSError, KeyError, ValueError):
        return False
    return not heard >> (signum - 1) & 1


def is_deaf_foreground(pid: int, signum: int) -> bool:
    """Whether Ctrl-C in a container's terminal reaches only an init that does not hear it.

    So it is if init is alone in the foreground, its terminal makes signals of keys, and it has
    no handler: `sleep 100` as the first process, but no shell, no editor and no child of theirs.

    Args:
        pid: of the first process of a container.
        signum: SIGINT.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        group, foreground = fields[2], fields[5]
        if group != foreground or not would_drop(pid, signum):
            return False
        fd = os.open(f"/proc/{pid}/fd/0", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except (OSError, IndexError):
        return False
    try:
        return bool(termios.tcgetattr(fd)[3] & termios.ISIG)
    except termios.error:
        return False
    finally:
        os.close(fd)
