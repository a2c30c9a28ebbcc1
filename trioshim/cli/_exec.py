"""`trioshim exec`: one more program in a container, whoever has started that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click

from ._options import namespace_option, no_abbreviation, state_dirs_option
from ._run import check_terminal, read_env

if TYPE_CHECKING:
    from ..containers import ContainerProcess
    from ._found import Place

__all__ = ["command"]


@click.command("exec", context_settings=no_abbreviation)
@click.option("-i", "--interactive", is_flag=True, help="It reads what we read.")
@click.option("-t", "--tty", is_flag=True, help="It gets a terminal.")
@click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Variable; or ours.")
@click.option("-w", "--workdir", metavar="DIR", help="Directory to start in.")
@click.option("-u", "--user", metavar="USER[:GROUP]", help="Names or numbers.")
@namespace_option
@state_dirs_option
@click.argument("id_", metavar="ID")
@click.argument("args", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    id_: str,
    args: Sequence[str],
    interactive: bool,
    tty: bool,
    env: Sequence[str],
    workdir: str | None,
    user: str | None,
    namespace: str,
    state_dirs: Sequence[str],
) -> int:
    """Run ARGS in the container ID, and wait for their end.

    The exit status is that of ARGS; 125: they could not be run; 126, 127: they cannot be executed,
    or found, in it.
    """
    import trio

    from ..containers import DEVNULL, PIPE
    from ._attend import attend
    from ._found import find_place

    check_terminal(interactive, tty)
    place = find_place(id_, state_dirs, namespace=namespace)

    async def main() -> int:
        opening = _opened(
            place,
            args,
            stdin=PIPE if interactive else DEVNULL,
            terminal=tty,
            env=read_env(env, tty=tty),
            cwd=workdir,
            user=user,
        )
        return await attend(opening, interactive=interactive, terminal=tty)

    return trio.run(main)


@asynccontextmanager
async def _opened(
    place: Place,
    args: Sequence[str],
    *,
    stdin: int,
    terminal: bool,
    env: dict[str, str],
    cwd: str | None,
    user: str | None,
) -> AsyncIterator[ContainerProcess]:
    from ..errors import ShimError
    from ._failures import cannot_start, the_one
    from ._joined import open_joined
    from ._terminal import like_ours

    begun = False
    try:
        async with (
            open_joined(place) as container,
            container.exec(
                args, stdin=stdin, terminal=like_ours(terminal), env=env, cwd=cwd, user=user
            ) as process,
        ):
            begun = True
            yield process
    except (ShimError, BaseExceptionGroup) as error:
        cause = the_one(error)
        if begun or not isinstance(cause, ShimError):
            raise
        raise cannot_start(list(args), cause) from error
