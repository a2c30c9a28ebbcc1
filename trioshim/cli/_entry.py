"""The first lines of `trioshim`, which say what to do if its libraries are not there."""

from __future__ import annotations

import os
import sys

from . import _ready

__all__ = ["main"]


def main() -> int:
    """Do what the command line says.

    Returns:
        The exit status.
    """
    words = sys.argv[1:]
    status = _ready.hand_over(words, os.environ)
    if status is not None:
        os._exit(status)  # nothing is buffered, and the interpreter takes milliseconds to end
    from importlib.util import find_spec

    if find_spec("click") is None:
        sys.stderr.write("trioshim: click is not installed: pip install 'trioshim[cli]'\n")
        return 1
    from ._main import obey

    try:
        return obey(words)
    finally:
        _ready.leave_one(words, os.environ)
