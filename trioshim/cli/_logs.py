"""`trioshim logs`: what a container in the background has written."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import click

from ._failures import CliError
from ._options import namespace_option, state_dirs_option

__all__ = ["command"]

_LOOK_AGAIN = 0.1  # seconds


@click.command("logs")
@click.option("-f", "--follow", is_flag=True, help="Go on until the container is gone.")
@namespace_option
@state_dirs_option
@click.argument("id_", metavar="ID")
def command(id_: str, follow: bool, namespace: str, state_dirs: Sequence[str]) -> None:
    """Show the output of a container of `trioshim run -d`, stdout and stderr together.

    It is gone with the container, unless a file was named with --log.  Other containers write
    to whoever started them: ask `docker logs`, `crictl logs`.
    """
    from ._container_run import LOG_FILE
    from ._found import find_place

    place = find_place(id_, state_dirs, namespace=namespace)
    try:
        file = (place.bundle / LOG_FILE).open("rb")
    except FileNotFoundError:
        raise CliError(
            f"{id_} keeps no output: only containers of `trioshim run -d` do;"
            " the others' is where they were started"
        ) from None
    with file:
        _show(file, place.bundle if follow else None)


def _show(file: BinaryIO, followed: Path | None) -> None:
    """Copy what is there; with a bundle all that comes until that is gone."""
    output = sys.stdout.buffer
    while True:
        gone = followed is None or not followed.exists()
        shutil.copyfileobj(file, output)
        output.flush()
        if gone:
            return
        time.sleep(_LOOK_AGAIN)
