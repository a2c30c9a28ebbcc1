"""The container of `trioshim run`: in front of a person, or in the background."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from tempfile import gettempdir
from typing import Any

import trio

from ..containers import DEVNULL, PIPE, Container, ContainerProcess, open_container
from ..errors import ShimError
from ._attend import attend
from ._failures import CannotRunError, CliError, cannot_start, explain, the_one
from ._terminal import like_ours

__all__ = ["LOG_FILE", "run_detached", "run_in_front"]

LOG_FILE = "output.log"  # in the bundle of a container in the background

Options = dict[str, Any]


def run_in_front(
    args: Sequence[str], options: Options, *, interactive: bool, terminal: bool
) -> int:
    """Run a container with our own streams and signals; returns its exit status."""
    stdin = PIPE if interactive else DEVNULL
    opening = _opened(args, options, stdin=stdin, output=None, terminal=terminal)

    async def main() -> int:
        return await attend(opening, interactive=interactive, terminal=terminal)

    return trio.run(main)


@asynccontextmanager
async def _opened(
    args: Sequence[str], options: Options, *, stdin: int, output: int | None, terminal: bool
) -> AsyncIterator[Container]:
    begun = False
    try:
        async with open_container(
            args,
            stdin=stdin,
            stdout=output,
            stderr=output,
            terminal=like_ours(terminal),
            **options,
        ) as container:
            begun = True
            yield container
    except (ShimError, BaseExceptionGroup) as error:
        cause = the_one(error)
        if begun or not isinstance(cause, ShimError):
            raise
        raise cannot_start(list(args), cause) from error


# ---------------------------------------------------------------- in the background


def run_detached(args: Sequence[str], log: str | None, options: Options) -> int:
    """Leave a process behind that holds the container; say its id.

    Raises:
        CannotRunError: the container was not started; nothing is left.
    """
    target = os.path.abspath(log) if log else None
    reading, writing = os.pipe()
    # Before trio runs there is one thread, so a fork is whole.
    if os.fork() == 0:
        os.close(reading)
        _be_the_holder(writing, args, target, options)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        status, _, said = pipe.read().partition("\n")
    if status != "0":
        raise CannotRunError(said or "the process in the background was killed", int(status or 125))
    os.write(1, f"{said}\n".encode())
    return 0


def _be_the_holder(pipe: int, args: Sequence[str], log: str | None, options: Options) -> None:
    """In the child: never returns."""
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.chdir("/")
        trio.run(_hold, pipe, args, log, options)
    except BaseException as error:  # noqa: BLE001 (the parent tells it; nobody else can)
        _report(pipe, *_in_words(the_one(error)))
    finally:
        os._exit(0)


def _in_words(error: BaseException) -> tuple[int, str]:
    status = error.status if isinstance(error, CannotRunError) else 125
    return status, explain(error) or repr(error)


def _report(pipe: int, status: int, text: str) -> None:
    try:
        os.write(pipe, f"{status}\n{text}".encode())
        os.close(pipe)
    except OSError:  # it was said already
        return


async def _hold(pipe: int, args: Sequence[str], log: str | None, options: Options) -> None:
    output = _open_output(log)

    def begun(process: ContainerProcess) -> None:
        assert isinstance(process, Container)
        # The file has no name but this one, so it goes with us, whoever ends us.
        target = log or f"/proc/{os.getpid()}/fd/{output}"
        (process.bundle / LOG_FILE).symlink_to(target)
        _report(pipe, 0, process.id)

    opening = _opened(args, options, stdin=DEVNULL, output=output, terminal=False)
    await attend(opening, begun=begun)


def _open_output(log: str | None) -> int:
    """Where the output is kept: a file that was named stays, else it goes with the container."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
    if log is None:
        return os.open(gettempdir(), flags | os.O_TMPFILE, 0o600)
    try:
        return os.open(log, flags | os.O_CREAT, 0o600)
    except OSError as error:
        raise CliError(f"the output cannot be kept in {log}: {error.strerror}") from None
