"""`trioshim stats`: what containers use, as a table that is drawn anew."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

import click
import trio

from ..containers import Stats
from ..containers._stats import read_stats
from ..errors import ShimError
from ..proto.task_v2_pb2 import StatsRequest
from ._failures import CliError
from ._found import Place, find_place, find_places, open_task
from ._options import json_option, namespace_option, state_dirs_option
from ._output import plain_table, print_json, rich_table

__all__ = ["Sample", "command", "rows_of"]

_COLUMNS = ("id", "namespace", "cpu", "memory", "memory_limit", "pids", "pids_limit")
_PATIENCE = 2.0  # seconds for one shim
_UNITS = "KMGT"

Finder = Callable[[], list[Place]]
Row = dict[str, object]
Sample = tuple[float, Stats]  # seconds by trio's clock


@click.command("stats")
@namespace_option
@state_dirs_option
@click.option("--interval", default=1.0, show_default=True, metavar="SECONDS")
@click.option("--once", is_flag=True, help="One table, of one interval.")
@json_option
@click.argument("ids", nargs=-1, metavar="[ID...]")
def command(
    ids: Sequence[str],
    namespace: str,
    state_dirs: Sequence[str],
    interval: float,
    once: bool,
    as_json: bool,
) -> None:
    """Show processor, memory and processes of containers: all, or those named.

    CPU is of one processor: 200 % are two of them.  On a terminal it is a live table until Ctrl-C,
    elsewhere one table after the other; as JSON, one line for each container.
    """
    if not 0 < interval <= 3600:
        raise CliError(f"an interval of {interval:g} seconds is none: write such as 0.5 or 5")

    def find() -> list[Place]:
        if ids:
            return [find_place(id_, state_dirs, namespace=namespace) for id_ in ids]
        return find_places(state_dirs, namespace=namespace)

    if sys.stdout.isatty() and not once and not as_json:
        trio.run(_show_live, find, interval)
    else:
        trio.run(_print, find, interval, once, as_json)


async def _show_live(find: Finder, interval: float) -> None:
    from rich.live import Live

    with Live(auto_refresh=False, screen=False) as live:
        async for rows in _rounds(find, interval):
            live.update(rich_table(_COLUMNS, [_readable(row) for row in rows]), refresh=True)


async def _print(find: Finder, interval: float, once: bool, as_json: bool) -> None:
    async for rows in _rounds(find, interval):
        if as_json:
            for row in rows:
                print_json(row)
        else:
            click.echo(plain_table(_COLUMNS, [_readable(row) for row in rows]))
        if once:
            return


async def _rounds(find: Finder, interval: float) -> AsyncIterator[list[Row]]:
    before: dict[Place, Sample] = await _sample(find())
    while True:
        await trio.sleep(interval)
        now = await _sample(find())
        yield rows_of(before, now)
        before = now


async def _sample(places: Iterable[Place]) -> dict[Place, Sample]:
    """What each of them uses now; who does not answer is left out."""
    found: dict[Place, Sample | None] = dict.fromkeys(places)

    async def ask(place: Place) -> None:
        with trio.move_on_after(_PATIENCE):
            try:
                async with open_task(place) as task:
                    answer = await task.stats(StatsRequest(id=place.id))
                    found[place] = trio.current_time(), read_stats(answer.stats)
            except (CliError, ShimError, OSError, ValueError):
                return

    async with trio.open_nursery() as nursery:
        for place in found:
            nursery.start_soon(ask, place)
    return {place: sample for place, sample in found.items() if sample is not None}


def rows_of(before: Mapping[Place, Sample], now: Mapping[Place, Sample]) -> list[Row]:
    """Percent of a processor, bytes, tasks; None: there is no limit, or it is not known yet."""
    rows: list[Row] = []
    for place, (time, stats) in now.items():
        earlier = before.get(place)
        cpu = None
        if earlier is not None and time > earlier[0]:
            cpu = 100 * (stats.cpu_seconds - earlier[1].cpu_seconds) / (time - earlier[0])
        rows.append(
            {
                "id": place.id,
                "namespace": place.namespace,
                "cpu": None if cpu is None else round(cpu, 1),
                "memory": stats.memory,
                "memory_limit": stats.memory_limit,
                "pids": stats.processes,
                "pids_limit": stats.processes_limit,
            }
        )
    return rows


def _readable(row: Row) -> Row:
    return row | {
        "cpu": None if row["cpu"] is None else f"{row['cpu']} %",
        "memory": _size(row["memory"]),
        "memory_limit": _size(row["memory_limit"]),
    }


def _size(number: object) -> str | None:
    """As `-m` takes it: 64m are 64 * 1024 * 1024."""
    if not isinstance(number, int):
        return None
    size, unit = float(number), "B"
    for larger in _UNITS:
        if size < 1024:
            break
        size, unit = size / 1024, f"{larger}iB"
    return f"{size:.4g} {unit}"
