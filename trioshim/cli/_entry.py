"""The first lines of `trioshim`, which say what to do if its libraries are not there."""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> int:
    """Do what the command line says.

    Returns:
        The exit status.
    """
    if find_spec("click") is None:
        sys.stderr.write("trioshim: click is not installed: pip install 'trioshim[cli]'\n")
        return 1
    from ._main import obey

    return obey(sys.argv[1:])
