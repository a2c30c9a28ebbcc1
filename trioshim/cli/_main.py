"""From words to an exit status: the commands, and what is said when one of them fails.

Rules of this file:

* a command's module is imported when the command is called: `run` does not wait for tables;
* whatever goes wrong in the world is one line on standard error that says what to do; a traceback
  means a defect in trioshim, or `--debug`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from .._version import __version__
from ._failures import CannotRunError, explain, the_one

__all__ = ["obey"]

# What `trioshim --help` says of each; the module of a command has its name.
_COMMANDS = {
    "run": "Run a container until it ends, and remove it.",
    "ps": "List the containers that run.",
    "exec": "Run one more program in a container.",
    "events": "Tell of containers that start, stop and end.",
    "stats": "Show what containers use.",
    "kill": "Send a container a signal.",
    "logs": "Show what a container of `run -d` has written.",
    "dump": "Show what a shim is doing, and what it waits for.",
    "check": "See whether this machine has what is needed, and how to set it up.",
}
# As with docker: the statuses below are the container's own.
_COULD_NOT_RUN = 125
_RUNNERS = {"run", "exec"}
_USAGE = 2
_INTERRUPTED = 130  # 128 and SIGINT
_BROKEN_PIPE = 141  # 128 and SIGPIPE: what a shell says of `... | head`


class Commands(click.Group):
    """The commands, each loaded when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's)
        return list(_COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 (click's)
        cmd_name: str,
    ) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"._{cmd_name}", __package__).command
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 (click's)
        formatter: click.HelpFormatter,
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # By itself click would answer it with status 1.
            raise BaseExceptionGroup("", [error]) from None


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trioshim")
@click.option("--debug", is_flag=True, help="Tell everything, with tracebacks.")
def program(debug: bool) -> None:
    """Containers on trioshim: run them, look at them, find out why one hangs."""
    if debug:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)


def obey(argv: Sequence[str]) -> int:
    """Do what the words say; returns the exit status."""
    called = next((word for word in argv if not word.startswith("-")), "")
    try:
        status = program.main(list(argv), prog_name="trioshim", standalone_mode=False)
        sys.stdout.flush()
    except click.UsageError as error:
        error.show()
        return _COULD_NOT_RUN if called in _RUNNERS else _USAGE
    except click.Abort:  # what click makes of Ctrl-C
        return _INTERRUPTED
    except BaseException as error:
        if "--debug" in argv:
            logging.getLogger("trioshim.cli").exception("failed")
        failure = the_one(error)
        text = explain(failure)
        if text is None:
            raise  # a defect
        return _failed(called, failure, text)
    return int(status or 0)


def _failed(called: str, error: BaseException, text: str) -> int:
    if isinstance(error, BrokenPipeError):
        # Python would complain about what it cannot write at its own end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _BROKEN_PIPE
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED
    click.echo(f"trioshim: {text}", err=True)
    if isinstance(error, CannotRunError):
        return error.status
    return _COULD_NOT_RUN if called in _RUNNERS else 1
