"""What runc says: its log, its output, and which error of ours that is.

Pure.  The texts matter: docker and the kubelet look for some of them, so the beginnings
("OCI runtime create failed: ") and the words for "already gone" are containerd's.
"""

from __future__ import annotations

import json
import re
import signal
from dataclasses import dataclass

from ..errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    NotFoundError,
    RuntimeFailedError,
    ShimError,
)
from ._argv import Verb

_PREFIXES = {
    Verb.CREATE: "OCI runtime create failed",
    Verb.START: "OCI runtime start failed",
    Verb.EXEC: "OCI runtime exec failed",
    Verb.RESTORE: "OCI runtime restore failed",
    Verb.KILL: "unknown error after kill",
    Verb.PAUSE: "OCI runtime pause failed",
    Verb.RESUME: "OCI runtime resume failed",
    Verb.UPDATE: "OCI runtime update failed",
    Verb.CHECKPOINT: "OCI runtime checkpoint failed",
    Verb.DELETE: "failed to delete task",
}
# Expressions; compiled when a command has failed, for no cold shim shall wait for that.
# runc says the first; crun names the files of its state that are not there.
_NO_CONTAINER = (
    r"does not exist|(error opening file .*/status|cannot open directory )[^:]*: no such file"
)
_EXISTS = r"container with (given )?id (already )?exists"
# runc says the first; crun's start removes the fifo that init waits at, and misses it next time.
_RUNS = r"cannot start an already running container|cannot open \S+/exec\.fifo.?: no such file"
# runc says the first; crun resumes what runs as well, and says the second of what has ended.
_NOT_PAUSED = r"container (not paused|\S+ is not running)"
_NO_PROCESS = r"process already finished|container not running|no such process"


class Excerpt:
    """The beginning and the end of a text of any length, in bounded memory."""

    HEAD = 4 * 1024
    TAIL = 60 * 1024

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._left_out = 0

    def add(self, data: bytes) -> None:
        room = self.HEAD - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        surplus = max(0, len(self._tail) - self.TAIL)
        del self._tail[:surplus]
        self._left_out += surplus

    def text(self) -> str:
        gap = f"\n[{self._left_out} bytes left out]\n".encode() if self._left_out else b""
        return (self._head + gap + self._tail).decode(errors="replace").strip()


@dataclass(frozen=True, slots=True)
class Result:
    """How one command ended.

    Attributes:
        verb, argv: what was run.
        status: its exit status; 128 + the signal's number when a signal ended it.
        output: what it wrote where we listened, shortened.
        logged: the last error in its log; "" if there is none.
    """

    verb: Verb
    argv: tuple[str, ...]
    status: int = 0
    output: str = ""
    logged: str = ""

    @property
    def failure(self) -> str:
        """The failure in go-runc's words, from the exit status and the output alone."""
        said = self.output or self.logged
        ended = f"{self.argv[0]} did not terminate successfully: {_ending(self.status)}"
        return f"{ended}: {said}" if said else ended

    @property
    def no_container(self) -> bool:
        """It failed because the runtime does not know the container."""
        return self._says(_NO_CONTAINER)

    @property
    def exists(self) -> bool:
        """It failed because the runtime knows a container of that id already."""
        return self._says(_EXISTS)

    @property
    def runs(self) -> bool:
        """A start failed because the container has been started already."""
        return self._says(_RUNS)

    @property
    def not_paused(self) -> bool:
        """A resume failed because the container is not paused."""
        return self._says(_NOT_PAUSED)

    @property
    def no_process(self) -> bool:
        """It failed because the process has ended."""
        return self._says(_NO_PROCESS)

    def _says(self, expression: str) -> bool:
        text = f"{self.output}\n{self.logged}"
        return re.search(expression, text, re.IGNORECASE) is not None


def _ending(status: int) -> str:
    number = status - 128
    if 0 < number < signal.NSIG:
        names = {int(known): known.name for known in signal.Signals}
        return f"exit status {status} ({names.get(number, f'signal {number}')})"
    return f"exit status {status}"


def last_error(log: bytes) -> str:
    """The last error in a log of JSON lines, trimmed and shortened; "" if there is none."""
    for line in reversed(log.splitlines()):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue  # a line that was cut, or that is not runc's
        if not isinstance(entry, dict) or str(entry.get("level")).lower() != "error":
            continue
        return _shortened(str(entry.get("msg") or ""))
    return ""


def _shortened(text: str) -> str:
    excerpt = Excerpt()
    excerpt.add(text.encode(errors="replace"))
    return excerpt.text()


def failed(result: Result, prefix: str = "") -> RuntimeFailedError:
    """The error for a command that failed, told by its log if that says something."""
    why = result.logged or result.failure
    return _error(result, f"{prefix or _PREFIXES[result.verb]}: {why}")


def birth_failed(result: Result) -> ShimError:
    """The error for a failed create, restore or exec: another's container is told apart."""
    error = failed(result)
    return AlreadyExistsError(error.message) if result.exists else error


def start_failed(result: Result) -> ShimError:
    """The error for a failed start: `FailedPreconditionError` for what runs already."""
    error = failed(result)
    return FailedPreconditionError(error.message) if result.runs else error


def resume_failed(result: Result) -> ShimError:
    """The error for a failed resume: `FailedPreconditionError` for what is not paused."""
    error = failed(result)
    return FailedPreconditionError(error.message) if result.not_paused else error


def failed_raw(result: Result, ending: str = "") -> RuntimeFailedError:
    """The error for a command whose failure containerd passes on without its log."""
    return _error(result, result.failure + ending)


def kill_failed(result: Result) -> ShimError:
    """The error for a failed kill: `NotFoundError` for what has ended, as clients expect."""
    if result.no_process:
        return NotFoundError("process already finished")
    if result.no_container:
        return NotFoundError("no such container")
    return _error(result, f"{_PREFIXES[Verb.KILL]}: {result.failure}")


def criu_failed(result: Result, dump_log: str) -> RuntimeFailedError:
    """The error for a failed checkpoint: the first line, and where criu's log is now."""
    first, *_ = result.failure.splitlines()
    return _error(result, f"{first} path= {dump_log}")


def not_started(verb: Verb, argv: tuple[str, ...], error: OSError) -> RuntimeFailedError:
    """The error for a command that could not be started at all."""
    if isinstance(error, FileNotFoundError):
        why = "executable file not found in $PATH"
        advice = "; install it on this host, or set binary_name in the runtime's options"
    else:
        why, advice = error.strerror or str(error), ""
    message = f'{_PREFIXES[verb]}: exec: "{argv[0]}": {why}{advice}'
    return RuntimeFailedError(message, argv=argv, status=127)


def no_pid(argv: tuple[str, ...], why: str) -> RuntimeFailedError:
    """The error for a command that ended well and left no process that is ours."""
    message = f"failed to retrieve OCI runtime container pid: {why}"
    return RuntimeFailedError(message, argv=argv, status=0)


def _error(result: Result, message: str) -> RuntimeFailedError:
    return RuntimeFailedError(
        message, argv=result.argv, status=result.status, log=result.logged or result.output
    )
