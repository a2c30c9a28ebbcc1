"""`trioshim check`: whether this machine is ready, and how its daemons are told about the shim."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
import trio

from ._lines import Daemon, lines_for
from ._machine import SHIM, Finding, Machine, Verdict, find_shim, inspect, read_version
from ._options import json_option
from ._output import print_json, rich_table

__all__ = ["command"]

_COLUMNS = ("what", "status", "found", "advice")


@click.command("check")
@click.option(
    "--config",
    "daemon",
    type=click.Choice([daemon.value for daemon in Daemon]),
    help="Only print the lines that tell it about the shim.",
)
@json_option
def command(daemon: str | None, as_json: bool) -> int:
    """See whether this machine has what is needed, and what to do if not.

    The exit status is 1 if something is missing without which nothing works.
    """
    world = Machine()
    if daemon is not None:
        text = trio.run(world.said, ["containerd", "--version"])
        version = read_version(text.rpartition(" v")[2] if " v" in text else text)[:2] or None
        shim = find_shim(world) or f"/usr/local/bin/{SHIM}"
        click.echo(lines_for(Daemon(daemon), shim=shim, containerd=version), nl=False)
        return 0
    findings = trio.run(inspect, world)
    _report(findings, as_json=as_json)
    return int(any(finding.verdict is Verdict.MISSING for finding in findings))


def _report(findings: Sequence[Finding], *, as_json: bool) -> None:
    rows = [
        {
            "what": finding.name,
            "status": finding.verdict.value,
            "found": finding.found,
            "advice": finding.advice,
        }
        for finding in findings
    ]
    if as_json:
        for row in rows:
            print_json(row)
    elif sys.stdout.isatty():
        from rich.console import Console

        Console().print(rich_table(_COLUMNS, rows))
    else:
        for row in rows:
            advice = f"  -> {row['advice']}" if row["advice"] else ""
            click.echo(f"{row['status']:<8} {row['what']}: {row['found']}{advice}")
