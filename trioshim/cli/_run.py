"""`trioshim run`: one container, from its options to its exit status."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from ._failures import CliError, check_root, check_runtime

__all__ = ["command"]

Options = dict[str, object]


@click.command(
    "run",
    context_settings={"allow_interspersed_args": False, "help_option_names": ["--help"]},
    short_help="Run a container until it ends, and remove it.",
)
@click.option("--image", metavar="FILE", help="OCI layout (directory or tar), or docker archive.")
@click.option("--rootfs", metavar="DIR", help="Directory that is its root, and can be written to.")
@click.option("--bundle", metavar="DIR", help="Directory with a config.json of its own.")
@click.option("-m", "--memory", metavar="SIZE", help="Limit, such as 64m.")
@click.option("--cpus", type=float, metavar="N", help="Processors, such as 0.5.")
@click.option("--pids", type=int, metavar="N", help="Limit of processes and threads.")
@click.option("-v", "--volume", "mounts", multiple=True, metavar="SRC:DST[:ro]", help="Bind mount.")
@click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Variable; or ours.")
@click.option("-w", "--workdir", "cwd", metavar="DIR", help="Directory to start in.")
@click.option("-u", "--user", metavar="USER[:GROUP]", help="Names or numbers.")
@click.option("--hostname", metavar="NAME", help="Its own host name.")
@click.option("--network", type=click.Choice(["none", "host"]), help="Default: none.")
@click.option("--read-only", is_flag=True, help="Its root cannot be written to.")
@click.option("--name", metavar="ID", help="Its id; default: a new one.")
@click.option("-i", "--interactive", is_flag=True, help="It reads what we read.")
@click.option("-t", "--tty", is_flag=True, help="It gets a terminal.")
@click.option("-d", "--detach", is_flag=True, help="In the background; the id is printed.")
@click.option("--log", metavar="FILE", help="With -d: where its output is kept.")
@click.option("-n", "--namespace", default="trioshim", show_default=True, metavar="NAME")
@click.option("--shim", metavar="PROGRAM", help="Another shim than trioshim's.")
@click.option("--state-dir", metavar="DIR", help="Where bundles are; default: /run/trioshim.")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def command(
    args: Sequence[str],
    interactive: bool,
    tty: bool,
    detach: bool,
    log: str | None,
    env: Sequence[str],
    **rest: object,
) -> int:
    """Run ARGS in a container until they end, and remove it.

    Without --image, --rootfs or --bundle it is the host's own root, read-only.
    The exit status is that of ARGS; 125: it could not be run; 126, 127: ARGS cannot be executed,
    or found, in it.
    """
    _check(interactive, tty, detach, log)
    check_root()
    options = _options(rest, read_env(env, tty=tty and not rest["bundle"]))
    if "shim" not in options:
        check_runtime()
    from ._container_run import run_detached, run_in_front

    if detach:
        return run_detached(args, log, options)
    return run_in_front(args, options, interactive=interactive, terminal=tty)


def _check(interactive: bool, tty: bool, detach: bool, log: str | None) -> None:
    if detach and (interactive or tty):
        raise CliError("-d has nobody who types: leave out -i and -t, or -d")
    if log and not detach:
        raise CliError("--log is for -d: without it the output comes here, so write > FILE")
    check_terminal(interactive, tty)


def check_terminal(interactive: bool, tty: bool) -> None:
    """Raise CliError if a terminal is asked for where there is none to type at."""
    if interactive and tty and not os.isatty(0):
        raise CliError("-t with -i needs a terminal, and our input is none: leave out -t")


def read_env(words: Sequence[str], *, tty: bool) -> dict[str, str]:
    """NAME=VALUE, or NAME for our own value; what we do not have is left out, as docker does."""
    env = {"TERM": os.environ["TERM"]} if tty and os.environ.get("TERM") else {}
    for word in words:
        name, equals, value = word.partition("=")
        if equals:
            env[name] = value
        elif name in os.environ:
            env[name] = os.environ[name]
    return env


def _options(given: Options, env: dict[str, str]) -> Options:
    """What was said, under the names of `open_container`."""
    options = {name: value for name, value in given.items() if value not in (None, False, ())}
    if env:
        options["env"] = env
    if "name" in options:
        options["id"] = options.pop("name")
    if "mounts" in options:
        options["mounts"] = [_absolute(str(mount)) for mount in given["mounts"]]  # type: ignore[attr-defined]
    return options


def _absolute(mount: str) -> str:
    """`./data:/data` means the directory that we are in."""
    if not mount.startswith("."):
        return mount
    source, colon, rest = mount.partition(":")
    return os.path.abspath(source) + colon + rest
