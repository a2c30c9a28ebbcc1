"""What a spare does of a `start` beforehand: all that can be undone.

So the first one that is asked for finds in memory what it needs, and written to what it writes to.
"""

from __future__ import annotations

import os

from ..bootstrap import Arguments, Verb
from ..bootstrap._spawn import Left
from ..bootstrap._start import Caller, start
from ._child import adopters, server_arguments
from ._likeness import adopt, traits_of
from ._rehearsal import clear
from ._request import compare

__all__ = ["rehearse_start"]

_HERE = "/proc/self/cwd"  # the path of a socket must not be long


def rehearse_start(directory: str) -> None:
    """Start a shim that is not there.

    Args:
        directory: is made, and removed at the end.

    Raises:
        OSError: this machine does not let us.
    """
    os.makedirs(directory, 0o700, exist_ok=True)
    os.chdir(directory)
    try:
        compare(os.getpid(), traits_of(os.getpid()))
        adopters(os.getpid())
        adopt(os.getpid())
        arguments = Arguments().replace(
            verb=Verb.START, namespace="template", id="rehearsal", address="/rehearsal"
        )
        environ = {"TRIOSHIM_SOCKET_DIR": _HERE}
        start(arguments, environ, _Nobody(environ))
    except _EnoughError:
        return
    finally:
        os.chdir("/")
        clear(directory)


class _EnoughError(Exception):
    """What comes now cannot be undone."""


class _Nobody(Caller):
    """Who waits for no answer."""

    __slots__ = ()

    def read_stdin(self) -> bytes:
        return b""

    def expect_server(self) -> None:
        """It will not come."""

    def leave_server(self, argv: list[str], environ: dict[str, str], listener: int) -> Left:  # noqa: ARG002
        server_arguments([os.fsencode(word) for word in argv])
        raise _EnoughError
