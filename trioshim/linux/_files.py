"""Directories of the bundle; its files are written by `trioshim._atomic`."""

from __future__ import annotations

import os


def make_directory(path: str, mode: int) -> None:
    """Make a directory (the umask applies); nothing to do if it is there.

    Raises:
        OSError: it cannot be made, or something else has the name (FileExistsError).
    """
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
