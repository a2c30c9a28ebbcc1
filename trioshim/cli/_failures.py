"""What has gone wrong, in words for people, and the exit status that says so."""

from __future__ import annotations

import os
import re
import shutil

from ..errors import ShimError

__all__ = ["CannotRunError", "CliError", "check_root", "check_runtime", "explain", "the_one"]

NOT_FOUND, NOT_EXECUTABLE, COULD_NOT_RUN = 127, 126, 125

# What runc and crun say when the program is not there, or is none.
_NO_PROGRAM = re.compile(
    r"executable file.* not found|exec: .*no such file or directory"
    r"|starting container process caused: .*no such file",
    re.IGNORECASE,
)
_NO_PERMISSION = re.compile(
    r"exec: .*(?:permission denied|is a directory|exec format error)"
    r"|open executable.*permission denied|exec user process caused: .*exec format error",
    re.IGNORECASE,
)


class CliError(Exception):
    """Something that a person has to do differently; the text says what."""


class CannotRunError(CliError):
    """A program in a container was not started.

    Attributes:
        status: 127: there is no such program; 126: it cannot be executed; 125: anything else.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def the_one(error: BaseException) -> BaseException:
    """The error in a group of one, in a group of one; of several the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def explain(error: BaseException) -> str | None:
    """One line or a few for a person; None: this is a defect, and needs its traceback."""
    if isinstance(error, KeyboardInterrupt):
        return ""
    if isinstance(error, (CliError, ShimError, ValueError)):
        return str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return None


def cannot_start(args: list[str], error: ShimError) -> CannotRunError:
    """What a failed Create, Start or Exec means for who typed `args`."""
    said = str(error)
    name = args[0] if args else "the command"
    if _NO_PERMISSION.search(said):
        text = f"{name!r} cannot be executed in the container: is it a program, with mode +x?"
        return CannotRunError(text, NOT_EXECUTABLE)
    if _NO_PROGRAM.search(said):
        text = f"there is no program {name!r} in the container: look at its PATH and its files"
        return CannotRunError(text, NOT_FOUND)
    return CannotRunError(said, COULD_NOT_RUN)


def check_root() -> None:
    """Raise CliError unless we are root: bundles and sockets are root's."""
    if os.geteuid() != 0:
        raise CliError("only root can do this: put sudo in front of it")


def check_runtime() -> None:
    """Raise CliError if the shim would not find its runtime."""
    if shutil.which("runc") is None:
        raise CliError(
            "there is no runc in PATH, which makes the containers: install it"
            " (Debian: apt-get install runc); `trioshim check` tells what else is missing"
        )
