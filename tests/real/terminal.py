"""A program in a terminal that the test holds the other end of."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Terminal:
    """The master's side: what a person at the screen does and sees."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._process: subprocess.Popen[bytes] | None = None
        self.screen = ""

    def run(self, argv: list[str], slave: int) -> None:
        self._process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )

    def size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def resize(self, rows: int, columns: int) -> None:
        """What a window does: the size changes, then the program is told."""
        self.size(rows, columns)
        assert self._process is not None
        self._process.send_signal(signal.SIGWINCH)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def read_until(self, pattern: str, *, within: float = 15.0) -> re.Match[str]:
        """Read the screen until the pattern is on it; what was read before it is forgotten."""
        deadline = time.monotonic() + within
        while (match := re.search(pattern, self.screen)) is None:
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self._master], [], [], left)[0]
            assert ready, f"no {pattern!r} on the screen: {self.screen!r}"
            self.screen += self._read()
        self.screen = self.screen[match.end() :]
        return match

    def wait(self, *, within: float = 20.0) -> int:
        """The program's exit status; its last words are on the screen."""
        assert self._process is not None
        status = self._process.wait(within)
        while select.select([self._master], [], [], 0)[0]:
            self.screen += self._read()
        return status

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        os.close(self._master)

    def _read(self) -> str:
        return os.read(self._master, 4096).decode("utf-8", "replace")


@contextmanager
def open_terminal(argv: list[str], *, rows: int, columns: int) -> Iterator[Terminal]:
    """Run a program in a new terminal of this size; it is killed at the end if it still runs."""
    master, slave = os.openpty()
    terminal = Terminal(master)
    try:
        terminal.size(rows, columns)
        terminal.run(argv, slave)
        yield terminal
    finally:
        terminal.close()
        os.close(slave)  # open until now: with no slave left a read of the master is an error
