#!/usr/bin/env python3
"""Draw docs/img/*.svg: what `trioshim ps`, `stats` and `dump` say of two containers that run.

As root: `.venv/bin/python scripts/screenshots.py`.  The pictures are of a real run, so each time
they are a little different.
"""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import trio
from rich.console import Console
from rich.text import Text

from trioshim.containers import open_container

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "img"
NAMESPACE = "demo"
COLUMNS, LINES = 120, 32
BUSY = ["sh", "-c", "while :; do :; done"]
QUIET = ["sh", "-c", "sleep 600 & sleep 600 & wait"]
COMMANDS = {
    "ps": ["ps", "-n", NAMESPACE],
    "stats": ["stats", "--once", "-n", NAMESPACE],
    "dump": ["dump", "-n", NAMESPACE, "web"],
}
# What rich would have a reader load from elsewhere.
FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def on_terminal(argv: Sequence[str]) -> str:
    """What a program writes to a terminal, escapes and all.

    Raises:
        CalledProcessError: it fails.
    """
    ours, theirs = pty.openpty()
    environ = os.environ | {"COLUMNS": str(COLUMNS), "LINES": str(LINES), "TERM": "xterm-256color"}
    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environ) as program:
        os.close(theirs)
        said = b""
        try:
            while chunk := os.read(ours, 65536):
                said += chunk
        except OSError:  # EIO: nobody has the terminal open any more
            os.close(ours)
    if program.returncode:
        raise subprocess.CalledProcessError(program.returncode, argv, said)
    return said.decode("utf-8").replace("\r\n", "\n")


def draw(title: str, said: str) -> str:
    """A picture of a terminal."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    for line in said.rstrip("\n").split("\n")[:LINES]:
        console.print(Text.from_ansi(line), overflow="ellipsis", no_wrap=True)
    picture = console.export_svg(title=title, unique_id="screen")
    return FONT.sub("", picture)


async def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    async with (
        open_container(BUSY, id="job", namespace=NAMESPACE, memory="64m", cpus=0.5),
        open_container(QUIET, id="web", namespace=NAMESPACE, memory="256m", pids=50),
    ):
        for name, words in COMMANDS.items():
            argv = [sys.executable, "-m", "trioshim.cli", *words]
            said = await trio.to_thread.run_sync(on_terminal, argv)
            picture = draw(f"trioshim {' '.join(words)}", said)
            (PICTURES / f"{name}.svg").write_text(picture, "utf-8")


if __name__ == "__main__":
    trio.run(main)
