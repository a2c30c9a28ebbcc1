"""`trioshim run` without waiting for imports: a process that has them already does the work.

Importing takes longer than running a container.  So the first `trioshim run` leaves a template
behind (`trioshim.template`; `_template` here is its program), which forks processes that have
loaded everything; a later one hands its command line, its environment, its directory and its
standard streams to such a process, sends on the signals that it gets, and ends with its status.

It is a gain and never a need.  Rules:

* what a process outside of our session cannot do as we would (a terminal to type at, a path
  such as /dev/fd/63, Python's own variables) is not asked of it;
* whatever is odd, `hand_over` says None, and the command runs here as ever; but not when the other
  has had its last word: no command is done twice;
* if we are killed, it ends as if its terminal had gone; if it is killed, so are we, to who looks.

Next to nothing is imported: every `trioshim run` would pay for it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` loads `enum`: longer than all the rest
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType
    from typing import Any

    from ..bootstrap._spawn import Left

__all__ = ["hand_over", "leave_one"]

MODULE = "trioshim.cli._template"
COMMANDS = ("run",)
_STREAMS = (0, 1, 2)
_FORWARDED = (
    *(_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM),
    *(_signal.SIGUSR1, _signal.SIGUSR2, _signal.SIGWINCH),
)
_HARMLESS = {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONHASHSEED"}
_KILLED = 137  # what a shell says of SIGKILL


def hand_over(words: Sequence[str], environ: Mapping[str, str]) -> int | None:
    """Have a command done by a process that is ready for it.

    Args:
        words: behind `trioshim`.
        environ: our environment.

    Returns:
        Its exit status; None: nothing was done, it is to be done here.
    """
    path = _path(environ) if _is_simple(words, environ) else ""
    if not path:
        return None
    from ..bootstrap._template import connect

    connection = connect(path)
    if connection is None:
        return None
    try:
        with _Signals() as signals:
            helper = _ask(connection, path, words, environ)
            if helper is None:
                return None
            # From here on it is done there, and whatever goes wrong, never here a second time.
            signals.send_to(helper)
            return _status(connection)
    finally:
        connection.close()


def _ask(
    connection: socket, path: str, words: Sequence[str], environ: Mapping[str, str]
) -> Left | None:
    from ..bootstrap._files import remove
    from ..bootstrap._template import request

    try:
        return request(connection, ["trioshim", *words], environ, _STREAMS)
    except TimeoutError:
        # Nobody is to wait for it again: it sees that its socket is gone, and ends.
        remove(path)
        return None
    except (OSError, ValueError, OverflowError):
        return None


def leave_one(words: Sequence[str], environ: Mapping[str, str]) -> None:
    """See to it that the next command finds somebody who is ready."""
    path = _path(environ) if _is_simple(words, environ) else ""
    if path:
        from ..bootstrap._template import start_template

        try:
            start_template(path, environ, MODULE)
        except OSError:
            return  # not here; all goes on without


def _path(environ: Mapping[str, str]) -> str:
    from ..bootstrap._dialects import wants_template
    from ..bootstrap._template import template_path

    if os.geteuid() != 0:  # who is refused anyway
        return ""
    try:
        # What a login session is given goes with its processes, and no other can take it over.
        with open("/proc/self/sessionid", "rb") as file:
            session = file.read().decode()
    except OSError:
        session = ""
    try:
        return template_path(environ, f"commands {session}") if wants_template(environ) else ""
    except ValueError:  # whoever needs that variable complains of it
        return ""


def _is_simple(words: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether another process can do this in our place."""
    return (
        bool(words)
        and words[0] in COMMANDS
        and not any(_may_be_for_typing(word) or "/fd/" in word for word in words[1:])
        and not any(key.startswith("PYTHON") and key not in _HARMLESS for key in environ)
        and _has_standard_streams()
    )


def _may_be_for_typing(word: str) -> bool:
    """-i and -t, also in -dit.  It does not matter if a program's own -i is taken for ours."""
    if word.startswith("--"):
        return word in ("--interactive", "--tty")
    return word.startswith("-") and ("i" in word or "t" in word)


def _has_standard_streams() -> bool:
    try:
        return all(os.get_inheritable(fd) for fd in _STREAMS)
    except OSError:  # one of them is closed
        return False


def _status(connection: socket) -> int:
    connection.settimeout(None)
    said = b""
    try:
        while data := connection.recv(16):
            said += data
    except OSError:
        said = b""
    if said.isdigit():
        return int(said)
    _say(b"trioshim: the process that held the container was killed\n")
    return _KILLED


def _say(line: bytes) -> None:
    try:
        os.write(2, line)
    except OSError:
        return  # nobody reads it


class _Signals:
    """A context in which signals are kept, and then sent on."""

    def __init__(self) -> None:
        self._kept: list[int] = []
        self._send: Callable[[int], None] = self._kept.append
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        for signum in _FORWARDED:
            if _signal.getsignal(signum) != _signal.SIG_IGN:
                self._before[signum] = _signal.signal(signum, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            _signal.signal(signum, handler)
        for signum in self._kept:  # nobody has taken them
            os.kill(os.getpid(), signum)

    def send_to(self, helper: Left) -> None:
        """From now on, and with those that came before."""
        self._send = helper.signal
        while self._kept:
            helper.signal(self._kept.pop(0))

    def _arrived(self, signum: int, _frame: FrameType | None) -> None:
        self._send(signum)
