"""`containerd-shim-trio-v1`: what containerd runs.

Promises: each verb imports only what it needs, because the daemon runs `start` and `delete` once
for each container; a failure is one line on standard error and exit status 1, never a traceback;
`start` that succeeds writes nothing but the address.
"""

from __future__ import annotations

import os
import sys

from .bootstrap import Arguments, Verb, check_arguments, parse_arguments

_NAME = "containerd-shim-trio-v1"


def main() -> int:
    """Do what the command line says.

    Returns:
        The exit status.
    """
    _open_standard_fds()
    _silence_warnings()
    voice = 2
    try:
        arguments = parse_arguments(sys.argv[1:])
        check_arguments(arguments)
        if arguments.verb is Verb.START:
            voice = _mute_stderr()
        if arguments.verb is not Verb.SERVE:
            _run_helper(arguments)
            return 0
    except Exception as error:  # noqa: BLE001 (the daemon shows this line to the user)
        _complain(voice, error)
        return 1
    _serve(arguments)
    return 0


def _serve(arguments: Arguments) -> None:
    import gc

    # What is imported is kept: to look through it for garbage is a tenth of the first answer.
    gc.disable()
    from ._compose import serve_forever

    gc.freeze()
    gc.enable()
    serve_forever(arguments)


def _run_helper(arguments: Arguments) -> None:
    if arguments.verb is Verb.START:
        from .bootstrap._start import start

        start(arguments, os.environ)
    elif arguments.verb is Verb.DELETE:
        from .bootstrap._delete import delete

        delete(arguments, os.environ)
    elif arguments.verb is Verb.INFO:
        from .bootstrap._info import info

        info(os.environ)
    else:
        _print_version()


def _print_version() -> None:
    from ._version import __version__
    from .bootstrap._files import write_all

    python = sys.version.partition(" ")[0]
    write_all(1, f"{_NAME}:\n  Version: {__version__}\n  Python:  {python}\n".encode())


def _open_standard_fds() -> None:
    """If 0, 1 or 2 is closed, a file opened later would become it."""
    while (fd := os.open("/dev/null", os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _silence_warnings() -> None:
    """PYTHONWARNINGS may come with the daemon's environment; `-I` cannot be in a script's name."""
    if "warnings" in sys.modules:
        import warnings

        warnings.simplefilter("ignore")


def _mute_stderr() -> int:
    """The daemon takes standard error for a part of the address: let nobody write there by chance.

    Returns:
        A file descriptor on which to say why it failed.
    """
    import fcntl

    voice = fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 3)
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    return voice


def _complain(voice: int, error: Exception) -> None:
    text = f"{_NAME}: {error or type(error).__name__}\n"
    os.write(voice, text.encode("utf-8", "backslashreplace"))


if __name__ == "__main__":
    # Nothing is buffered, and to take the interpreter apart takes milliseconds.
    os._exit(main())
