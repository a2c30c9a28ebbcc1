"""`trioshim dump`: the tasks of a shim, and why each of them waits."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click
import trio

from ..proto import task_v2_pb2 as api
from ._failures import CliError
from ._found import Place, find_place, open_task
from ._options import namespace_option, state_dirs_option
from ._output import print_json
from ._proc import is_our_shim, shim_name
from ._reasons import Reason, reason_for

if TYPE_CHECKING:
    from rich.tree import Tree

__all__ = ["TaskNode", "command", "read_tree"]

_PATIENCE = 5.0  # seconds for an answer to a signal
_LOOK_AGAIN = 0.02
_PLACE = re.compile(r"@ (?P<file>[^:]+):(?P<line>\d+) (?P<function>\S+): (?P<code>.*)")


@dataclass(slots=True)
class TaskNode:
    """A task of a shim.

    Attributes:
        name: of its function, or of the request that it answers.
        places: the lines that it stands in: file, line, function, code; the innermost last.
        children: the tasks of its nurseries.
    """

    name: str
    places: list[tuple[str, int, str, str]] = field(default_factory=list)
    children: list[TaskNode] = field(default_factory=list)

    @property
    def reason(self) -> Reason | None:
        return reason_for((file, function) for file, _, function, _ in self.places)

    def to_json(self) -> dict[str, object]:
        reason = self.reason
        return {
            "name": self.name,
            "reason": reason.text if reason else None,
            "usual": reason.usual if reason else None,
            "places": [f"{file}:{line} {function}" for file, line, function, _ in self.places],
            "tasks": [child.to_json() for child in self.children],
        }


@click.command("dump")
@namespace_option
@state_dirs_option
@click.option("--json", "as_json", is_flag=True, help="The tree as one JSON.")
@click.option("--raw", is_flag=True, help="As the shim has written it.")
@click.argument("id_", metavar="ID")
def command(id_: str, namespace: str, state_dirs: Sequence[str], as_json: bool, raw: bool) -> None:
    """Show every task of the shim of a container, and what it waits for.

    Nothing is disturbed: the shim is asked with SIGUSR1, and writes tasks.txt into its bundle.
    Only shims of trioshim can be asked.
    """
    text = trio.run(_ask, find_place(id_, state_dirs, namespace=namespace))
    if raw:
        click.echo(text, nl=False)
        return
    root = read_tree(text)
    if as_json:
        print_json(root.to_json())
    elif sys.stdout.isatty():
        from rich.console import Console

        Console().print(_draw(root))
    else:
        click.echo("\n".join(_lines(root, 0)))


async def _ask(place: Place) -> str:
    """Have the shim write its tasks, and read them."""
    async with open_task(place) as task:
        pid = (await task.connect(api.ConnectRequest(id=place.id), timeout=_PATIENCE)).shim_pid
    pidfd = os.pidfd_open(pid)
    try:
        if not is_our_shim(pid):  # SIGUSR1 would be its end
            raise CliError(
                f"the shim of {place.id} is {shim_name(pid)} (process {pid}), which cannot be"
                " asked: only trioshim's own can"
            )
        path = f"/proc/{pid}/cwd/tasks.txt"
        before = _version(path)
        signal.pidfd_send_signal(pidfd, signal.SIGUSR1)
        with trio.move_on_after(_PATIENCE):
            while _version(path) == before:  # noqa: ASYNC110 (another program writes it)
                await trio.sleep(_LOOK_AGAIN)
        if _version(path) == before:
            raise CliError(
                f"process {pid}, the shim of {place.id}, has not answered in {_PATIENCE:g} seconds:"
                f" it hangs itself, or is stopped; look at /proc/{pid}/status and /proc/{pid}/stack"
            )
        return _read(path)
    finally:
        os.close(pidfd)


def _read(path: str) -> str:
    return Path(path).read_text("utf-8", "replace")


def _version(path: str) -> tuple[int, int]:
    """It is replaced as a whole, so another file is another answer."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return (0, 0)
    return found.st_ino, found.st_mtime_ns


def read_tree(text: str) -> TaskNode:
    """Understand tasks.txt: a task, its lines, its children, each two spaces deeper.

    Raises:
        CliError: there is no task in it.
    """
    branch: list[TaskNode] = []
    for line in text.splitlines():
        words = line.lstrip(" ")
        depth = (len(line) - len(words)) // 2
        place = _PLACE.fullmatch(words)
        if place is not None and branch:
            found = (place["file"], int(place["line"]), place["function"], place["code"])
            branch[min(depth, len(branch)) - 1].places.append(found)
        elif words:
            node = TaskNode(words)
            del branch[depth:]
            if branch:
                branch[-1].children.append(node)
            branch.append(node)
    if not branch:
        raise CliError("the shim has written no tasks: is it about to end? try again")
    return branch[0]


def _where(node: TaskNode) -> str:
    if not node.places:
        return ""
    file, line, function, _ = node.places[-1]
    return f"{file}:{line} {function}"


def _why(node: TaskNode) -> str:
    reason = node.reason
    if reason is not None:
        return reason.text
    return node.places[-1][3] if node.places else ""


def _lines(node: TaskNode, depth: int) -> Iterator[str]:
    indent = "  " * depth
    mark = "" if node.reason is None or node.reason.usual else "  <-- look here"
    yield f"{indent}{_short(node.name)}: {_why(node) or 'runs'}{mark}"
    if node.places:
        yield f"{indent}    {_where(node)}"
    for child in node.children:
        yield from _lines(child, depth + 1)


def _short(name: str) -> str:
    """`trioshim.task._events._forward` is `task._events._forward`."""
    return name.removeprefix("trioshim.")


def _draw(node: TaskNode, tree: Tree | None = None) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    unusual = node.reason is not None and not node.reason.usual
    label = Text.assemble((_short(node.name), "bold"), "  ")
    label.append(_why(node), "bold yellow" if unusual else "green" if node.reason else "")
    if node.places:
        label.append(f"  {_where(node)}", "dim")
    branch = Tree(label) if tree is None else tree.add(label)
    for child in node.children:
        _draw(child, branch)
    return branch
