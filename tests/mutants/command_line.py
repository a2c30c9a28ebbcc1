"""What is asked for on the command line of `run` and of `compare`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .copies import ROOT
from .defect import Defect

__all__ = ["Wanted", "parse"]


@dataclass(frozen=True)
class Wanted:
    """What to do.

    Attributes:
        defects: those to be made, in the order of the list; one or more.
        jobs: so many at a time.
        write: the page of the docs, when all is done.
    """

    defects: list[Defect]
    jobs: int
    write: bool


def parse(program: str, about: str | None, page: Path, defects: Iterable[Defect]) -> Wanted:
    """Read the arguments; what makes no sense ends the program with the reason.

    Args:
        program: its module.
        about: its docstring.
        page: what it writes.
        defects: what it can make.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=about)
    parser.add_argument("-k", default="", metavar="TEXT", help="only names or files with TEXT")
    parser.add_argument("-j", type=int, default=1, metavar="N", help="so many at a time")
    parser.add_argument("--write", action="store_true", help=f"write {page.relative_to(ROOT)}")
    given = parser.parse_args()
    if given.write and given.k:
        parser.error("--write wants the whole list: leave out -k")
    chosen = [one for one in defects if given.k in one.name or given.k in one.file]
    if not chosen:
        parser.error(f"no defect has {given.k!r} in its name or file")
    return Wanted(chosen, max(given.j, 1), given.write)
