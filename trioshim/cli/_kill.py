"""`trioshim kill`: a signal for a container, by way of its shim."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import click

from ._failures import CliError
from ._options import namespace_option, state_dirs_option

__all__ = ["command"]


@click.command("kill")
@click.option("-s", "--signal", "name", default="KILL", show_default=True, metavar="SIGNAL")
@click.option("-a", "--all", "everyone", is_flag=True, help="Every process of the container.")
@namespace_option
@state_dirs_option
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def command(
    ids: Sequence[str], name: str, everyone: bool, namespace: str, state_dirs: Sequence[str]
) -> None:
    """Send a signal to the first process of containers: a name or a number."""
    import trio

    signum = read_signal(name)
    for id_ in ids:
        trio.run(_kill, id_, signum, everyone, namespace, state_dirs)


def read_signal(text: str) -> int:
    """TERM, SIGTERM or 15.

    Raises:
        CliError: it is none.
    """
    if text.isdecimal() and 0 < int(text) < signal.NSIG:
        return int(text)
    name = text.upper()
    try:
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except KeyError:
        raise CliError(
            f"there is no signal {text}: write a name or a number, as `kill -l` lists them"
        ) from None


async def _kill(
    id_: str, signum: int, everyone: bool, namespace: str, state_dirs: Sequence[str]
) -> None:
    from ..proto.task_v2_pb2 import KillRequest
    from ._found import find_place, open_task

    async with open_task(find_place(id_, state_dirs, namespace=namespace)) as task:
        await task.kill(KillRequest(id=id_, signal=signum, all=everyone), timeout=10)
