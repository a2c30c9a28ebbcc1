"""The plugin's short options `--schedules` and `--seed`, which hurt nobody who has them too.

They are never registered: a conftest that is loaded late would die of it.  Where nobody else has
taken them, they are written out in the arguments before pytest reads them.  Loaded by every run
of pytest: it imports nothing but pytest.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection

import pytest

__all__ = ["SHORT", "free", "lengthened", "values"]

SHORT = {"--schedules": "--explore-schedules", "--seed": "--explore-seed"}


def free(parser: pytest.Parser) -> frozenset[str]:
    """The short options that no plugin and no conftest has; none, if pytest does not tell."""
    try:
        groups = (*parser._groups, parser._anonymous)  # noqa: SLF001 (no public name for it)
        taken = {name for group in groups for option in group.options for name in option.names()}
    except AttributeError:
        return frozenset()
    return frozenset(SHORT.keys() - taken)


def lengthened(args: list[str], ours: Collection[str]) -> list[str]:
    """The arguments with our short options written out."""
    end = args.index("--") if "--" in args else len(args)
    return [_lengthened(arg, ours) for arg in args[:end]] + args[end:]


def _lengthened(arg: str, ours: Collection[str]) -> str:
    name, equals, value = arg.partition("=")
    return SHORT[name] + equals + value if name in ours else arg


def values(args: list[str]) -> set[str]:
    """Numbers after a short option, which pytest takes for files as long as it is unknown."""
    return {
        value
        for option, value in itertools.pairwise(args)
        if option in SHORT and value.isdecimal() and not os.path.lexists(value)
    }
