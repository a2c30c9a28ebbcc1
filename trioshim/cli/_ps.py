"""`trioshim ps`: who runs here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from ._options import json_option, namespace_option, state_dirs_option

__all__ = ["command"]

_COLUMNS = ("id", "namespace", "pid", "status", "shim", "shim_pid", "since", "command")


@click.command("ps")
@namespace_option
@state_dirs_option
@click.option("-q", "--quiet", is_flag=True, help="Only the ids.")
@json_option
def command(namespace: str, state_dirs: Sequence[str], quiet: bool, as_json: bool) -> None:
    """List the containers of `trioshim run`, containerd and docker that have a shim.

    `unreachable`: its shim does not answer; `trioshim run` and containerd clean up.
    """
    import trio

    from ._found import find_places, look_at
    from ._output import print_table

    seen = trio.run(look_at, find_places(state_dirs, namespace=namespace))
    if quiet:
        click.echo("".join(f"{one.id}\n" for one in seen), nl=False)
        return
    rows = [asdict(one) for one in seen]
    if not as_json:
        for row in rows:
            status, exit_status = row["status"], row["exit_status"]
            row["status"] = status if exit_status is None else f"{status} ({exit_status})"
    print_table(_COLUMNS, rows, as_json=as_json)
