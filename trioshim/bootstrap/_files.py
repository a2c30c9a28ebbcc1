"""Small reads and writes for `start` and `delete`; no symlink is followed."""

from __future__ import annotations

import os

_CHUNK = 1 << 16


def read_file(path: str, limit: int = 1 << 20) -> bytes:
    """The content of a regular file, at most `limit` bytes of it; b"" if there is none.

    Raises:
        OSError: it cannot be read, or it is a symlink.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return b""
    try:
        return read_all(fd, limit)
    finally:
        os.close(fd)


def remove(path: str) -> None:
    """Unlink; nothing to do if it is not there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def read_all(fd: int, limit: int) -> bytes:
    """Read to the end, or to `limit` bytes."""
    data = bytearray()
    while len(data) < limit and (chunk := os.read(fd, min(_CHUNK, limit - len(data)))):
        data += chunk
    return bytes(data)


def read_stdin(limit: int, fd: int = 0) -> bytes:
    """All of a standard input; b"" for a terminal, where nobody will send an end of file.

    Raises:
        ValueError: it is longer than `limit` bytes.
    """
    data = b"" if os.isatty(fd) else read_all(fd, limit + 1)
    if len(data) > limit:
        raise ValueError(f"standard input is longer than {limit} bytes")
    return data


def write_all(fd: int, data: bytes) -> None:
    """Write all of it."""
    while data:
        data = data[os.write(fd, data) :]
