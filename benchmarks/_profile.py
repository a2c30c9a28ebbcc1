"""Where the time of our gRPC server goes, by library and by function.

The server runs twice in a process of its own: to sample its time, then to count its calls.  What
is written in C, and the system calls, count for the Python code that calls them.
"""

from __future__ import annotations

import pstats
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trioshim.proto import task_v2_pb2 as api

from ._clients import Http2Client
from ._recorders import COUNTS, SAMPLES
from ._servers import Kind, open_server

__all__ = ["profile"]

_TOP = 25  # functions
_Function = tuple[str, int, str]
_Stats = dict[_Function, Any]


def profile(answer: bytes, seconds: float) -> str:
    """Two tables: libraries, and the functions that take most.

    Args:
        answer: what the server says to State.
        seconds: how long it is asked, each time.
    """
    with tempfile.TemporaryDirectory(prefix="tsb-") as directory:
        samples, _ = _recorded(Path(directory, f"p{SAMPLES}"), answer, seconds)
        counts, calls = _recorded(Path(directory, f"p{COUNTS}"), answer, seconds)
    return "\n".join(_told(samples, counts, calls))


def _recorded(file: Path, answer: bytes, seconds: float) -> tuple[_Stats, int]:
    """What the server has noted, and how many calls it has answered."""
    path = Path(f"{file}.socket")
    with open_server(Kind.TRIOSHIM, path, answer, file):
        client = Http2Client(str(path), "State", api.StateRequest(id="box").SerializeToString())
        calls = 1 + len(client.run(seconds, 1))
        client.close()
    return vars(pstats.Stats(str(file)))["stats"], calls


def _told(samples: _Stats, counts: _Stats, calls: int) -> Iterator[str]:
    functions = Counter({function: about[0] for function, about in samples.items()})
    libraries: Counter[str] = Counter()
    for function, number in functions.items():
        libraries[_library(function)] += number
    called: Counter[str] = Counter()
    for function, about in counts.items():
        called[_library(function)] += about[1]
    total = functions.total()
    yield f"1 in flight, {total} samples; all libraries: {called.total() / calls:.0f} calls."
    yield from ("", "| library | of the time | functions called for each call |", "|---|--:|--:|")
    for library, number in libraries.most_common():
        yield f"| {library} | {number / total:.1%} | {called[library] / calls:.1f} |"
    yield f"| written in C | | {called[''] / calls:.1f} |"
    yield from ("", "| function | of the time | called for each call |", "|---|--:|--:|")
    for function, number in functions.most_common(_TOP):
        times = counts[function][1] / calls if function in counts else 0
        yield f"| {_name(function)} | {number / total:.1%} | {times:.1f} |"


def _library(function: _Function) -> str:
    """Whose it is; "" for what is written in C."""
    file = function[0]
    if file == "~":
        return ""
    if found := re.search(r"site-packages/(google/protobuf|\w+)", file):
        return found[1]
    return "trioshim" if "/trioshim/" in file else "standard library"


def _name(function: _Function) -> str:
    file, line, name = function
    return f"`{_library(function)}/{Path(file).name}:{line} {name}`"
