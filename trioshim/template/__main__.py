"""`python -I -m trioshim.template SOCKET IDLE [PROGRAM]`, the lock as fd 3: what `start` leaves.

Promises: nothing of the first caller is held (directory, files, environment); what goes wrong
before the socket listens stands in the lock's file, which keeps the next `start`s from trying at
once.
"""

from __future__ import annotations

import os
import sys

from ..bootstrap._template import LOCK_FD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ._spare import Kind


def main(load: Callable[[], Kind]) -> int:
    """Get ready, serve, end.

    Args:
        load: imports what the template is for.

    Returns:
        The exit status.
    """
    os.chdir("/")
    os.closerange(LOCK_FD + 1, os.sysconf("SC_OPEN_MAX"))
    try:
        from ._server import serve_template

        serve_template(sys.argv[1], float(sys.argv[2]), LOCK_FD, load, *sys.argv[3:])
    except Exception as error:  # noqa: BLE001 (whatever it is: without a template all goes on)
        _note(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


def _note(text: str) -> None:
    os.lseek(LOCK_FD, 0, os.SEEK_SET)
    os.ftruncate(LOCK_FD, 0)
    os.write(LOCK_FD, text.encode("utf-8", "backslashreplace"))


def load_shim() -> Kind:
    """All that a server needs."""
    from ._child import become_shim
    from ._shell import answer_shell
    from ._spare import Kind
    from ._warmth import live_once, warm_up

    return Kind(warm_up, live_once, become_shim, answer_shell)


if __name__ == "__main__":
    sys.exit(main(load_shim))
