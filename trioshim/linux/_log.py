"""The shim's log: lines into the bundle's `log` fifo, which the daemon copies to its own.

Never in the way: the fifo is opened for reading and writing, so a daemon that is away makes
neither EPIPE nor a blocked open; what does not fit is counted and left out, and the next line
that fits says how many were (containerd#4905, #4168).
"""

from __future__ import annotations

import json
import logging
import os
import select
import time

__all__ = ["FifoHandler"]


class FifoHandler(logging.Handler):
    """Writes records in the daemon's own format (logrus text).

    Args:
        path: the fifo; made by the daemon.  If it is not there, nothing is written.
        fields: added to each line, such as the container's id.
    """

    def __init__(self, path: str, **fields: str) -> None:
        super().__init__()
        self.lost = 0
        self._fields = fields
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._fd = -1

    def emit(self, record: logging.LogRecord) -> None:
        if self._fd < 0:
            return
        fields = self._fields | ({"lost_lines": str(self.lost)} if self.lost else {})
        try:
            # One write, at most PIPE_BUF bytes: lines of several writers do not mix.
            os.write(self._fd, format_line(record, fields))
        except OSError:
            self.lost += 1
        else:
            self.lost = 0

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()


def format_line(record: logging.LogRecord, fields: dict[str, str]) -> bytes:
    """One line of logrus text; a long message is cut so that the line stays in one piece."""
    text = record.getMessage()
    if record.exc_info:
        text += "\n" + logging.Formatter().formatException(record.exc_info)
    while len(line := _line(record, text, fields)) > select.PIPE_BUF and len(text) > 16:
        text = text[: len(text) * 3 // 4] + " ..."
    return line


def _line(record: logging.LogRecord, text: str, fields: dict[str, str]) -> bytes:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    level = record.levelname.lower()
    words = [
        f'time="{stamp}.{int(record.msecs):03d}000000Z"',
        f"level={'fatal' if level == 'critical' else level}",
        f"msg={json.dumps(text)}",
        f"logger={record.name}",
        *(f"{key}={value}" for key, value in fields.items()),
    ]
    return (" ".join(words) + "\n").encode(errors="backslashreplace")
