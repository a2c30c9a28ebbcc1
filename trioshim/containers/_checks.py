"""What a container is asked to be, checked: each error says what is wrong and what to write.

Pure.  Nothing is corrected in silence: what runc would cut, replace or misread is refused here.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Mapping, Sequence

# runc's own init needs this much before the program runs; docker has the same limit.
LEAST_MEMORY = 6 * 1024 * 1024
# One tenth of the kernel's default period is too coarse for small shares, so docker's is used.
CPU_PERIOD = 100_000
_LEAST_CPUS = 0.01
_MOST_HOSTNAME = 64

_MEMORY = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def check_text(text: object, what: str) -> str:
    """A string that the kernel and JSON can both carry.

    Raises:
        ValueError: it is no string, has a NUL, or cannot be written in UTF-8.
    """
    if not isinstance(text, str):
        raise ValueError(f"{what} is {text!r}, of type {type(text).__name__}: it has to be a str")
    if "\0" in text:
        raise ValueError(f"{what} {text!r} has a NUL character: no program can be given one")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} {text!r} cannot be written in UTF-8, as JSON wants it") from None
    return text


def check_args(args: Sequence[str]) -> list[str]:
    """The command line of a process.

    Raises:
        ValueError: it is empty, one string, or has parts that cannot be passed on.
    """
    if isinstance(args, (str, bytes)):
        raise ValueError(f"args is {args!r}: give a list of words, such as ['sh', '-c', 'ls']")
    words = [check_text(word, f"args[{position}]") for position, word in enumerate(args)]
    if not words or not words[0]:
        raise ValueError("args names no program: give at least one word, such as ['sh']")
    return words


def check_env(env: Mapping[str, str]) -> dict[str, str]:
    """An environment.

    Raises:
        ValueError: a name is empty or has "=", or something is no string.
    """
    for name, value in env.items():
        check_text(name, "the name of a variable in env")
        check_text(value, f"the value of {name} in env")
        if not name or "=" in name:
            raise ValueError(f"{name!r} in env is no name of a variable: it is empty or has '='")
    return dict(env)


def check_path(path: str, what: str) -> str:
    """An absolute path without detours.

    Raises:
        ValueError: it is relative, or has "..".
    """
    check_text(path, what)
    if not path.startswith("/"):
        raise ValueError(f"{what} {path!r} is relative: it has to begin with '/'")
    if ".." in path.split("/"):
        raise ValueError(f"{what} {path!r} has '..' in it: write the path that you mean")
    return "/" + posixpath.normpath(path).lstrip("/")


def check_hostname(hostname: str) -> str:
    """A name for the container's own UTS namespace.

    Raises:
        ValueError: it is longer than 64 characters, or has others than letters, digits, ".-_".
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", check_text(hostname, "hostname")):
        raise ValueError(f"hostname {hostname!r} is not made of letters, digits, '.', '-' and '_'")
    if len(hostname) > _MOST_HOSTNAME:
        raise ValueError(f"hostname {hostname!r} has more than {_MOST_HOSTNAME} characters")
    return hostname


def size_in_bytes(size: int | str, what: str) -> int:
    """1024, "64m", "1.5g": bytes; k, m, g and t are powers of 1024, as docker has them.

    Raises:
        ValueError: no number, or a unit that nobody knows.
    """
    if isinstance(size, str):
        match = _MEMORY.fullmatch(size.strip())
        if match is None:
            raise ValueError(
                f"{what} {size!r} is no size: write bytes, or a number and one of k, m, g, t"
                " such as '64m'"
            )
        return int(float(match[1]) * 2 ** _UNITS[match[2].lower()])
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise ValueError(f"{what} {size!r} is no size: write bytes as an int, or such as '64m'")
    return size


def memory_limit(memory: int | str) -> int:
    """A limit of memory, in bytes.

    Raises:
        ValueError: no size, or too small to start anything.
    """
    limit = size_in_bytes(memory, "memory")
    if limit < LEAST_MEMORY:
        raise ValueError(f"memory {memory!r} is too little to start a container: at least '6m'")
    return limit


def cpu_quota(cpus: float) -> int:
    """Microseconds of processor time in each period of `CPU_PERIOD`.

    Raises:
        ValueError: no number of processors.
    """
    number = isinstance(cpus, (int, float)) and not isinstance(cpus, bool)
    if not number or not math.isfinite(cpus) or cpus < _LEAST_CPUS:
        raise ValueError(f"cpus {cpus!r} is no number of processors: write such as 0.5 or 2")
    return round(cpus * CPU_PERIOD)


def check_pids(pids: int) -> int:
    """A limit for the number of processes and threads.

    Raises:
        ValueError: no number from 1 on.
    """
    if isinstance(pids, bool) or not isinstance(pids, int) or pids < 1:
        raise ValueError(f"pids {pids!r} is no limit: write a whole number from 1 on")
    return pids


def rlimit(name: str, limit: int | tuple[int, int]) -> dict[str, object]:
    """One entry of `process.rlimits`: "nofile" and a limit, or a soft and a hard one.

    Raises:
        ValueError: no limits, or the soft one is above the hard one.
    """
    soft, hard = limit if isinstance(limit, tuple) else (limit, limit)
    if not 0 <= soft <= hard:
        raise ValueError(f"rlimit {name}: {limit!r} has to be (soft, hard) with 0 <= soft <= hard")
    kind = check_text(name, "the name of an rlimit").upper().removeprefix("RLIMIT_")
    return {"type": f"RLIMIT_{kind}", "soft": soft, "hard": hard}
