"""Whether the code that was loaded is still the code on disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["fingerprint", "loaded_files", "mark", "marks", "own_files"]

_Mark = tuple[int, int, int, int] | None


def fingerprint(paths: Iterable[str]) -> tuple[_Mark, ...]:
    """Something that is another when one of these files is."""
    return tuple(mark(path) for path in paths)


def marks(paths: Iterable[str]) -> dict[str, _Mark]:
    """The same, file by file."""
    return {path: mark(path) for path in paths}


def mark(path: str) -> _Mark:
    """What is another when this file is."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def own_files() -> list[str]:
    """Every module of this package."""
    root = Path(__file__).parents[1]
    return sorted(str(path) for path in root.rglob("*.py"))


def loaded_files() -> list[str]:
    """What a shim would load: our own modules, where the others are found, the interpreter.

    An installer that changes another package changes the directory that packages are in: one
    look instead of hundreds.
    """
    prefix = __name__.partition(".")[0] + "."
    modules = [module for name, module in sys.modules.items() if name.startswith(prefix)]
    files = [file for module in modules if (file := getattr(module, "__file__", None))]
    return sorted({*files, *filter(os.path.isdir, sys.path), sys.executable})
