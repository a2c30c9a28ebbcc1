"""`trioshim dump`: tasks.txt is understood as it is written, and the table knows this shim."""

from __future__ import annotations

import ast
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

import trioshim
from trioshim._atomic import write_file
from trioshim._dump import task_tree
from trioshim.cli import _dump
from trioshim.cli._dump import TaskNode, _draw, _lines, read_tree
from trioshim.cli._failures import CliError
from trioshim.cli._reasons import REASONS, reason_for

from .cli_world import make_place, open_shim

PACKAGE = Path(trioshim.__file__).parent

TREE = """\
<init>
  trioshim._compose._serve
    @ _compose.py:81 _serve: await _obey_signals_until_done(service)
    @ _compose.py:107 _obey_signals_until_done: await service.shutdown_requested.wait()
    trioshim.task._containers.Containers._live_alone
      @ _container.py:102 live: end = await self._run()
      @ _container.py:117 _run: end = await self.init.child.wait()
      @ _child.py:57 wait: await trio.lowlevel.wait_readable(self._pidfd)
      trioshim.linux._pump.Pump.run
  Create box
    @ _command.py:150 _wait: await child.wait()
"""


def everybody(node: TaskNode) -> Iterator[TaskNode]:
    yield node
    for child in node.children:
        yield from everybody(child)


def test_a_tree_is_read() -> None:
    """Tasks below the tasks that opened their nurseries, each with its lines."""
    root = read_tree(TREE)
    assert [node.name for node in everybody(root)] == [
        "<init>",
        "trioshim._compose._serve",
        "trioshim.task._containers.Containers._live_alone",
        "trioshim.linux._pump.Pump.run",
        "Create box",
    ]
    serve, create = root.children
    assert [function for _, _, function, _ in serve.places] == [
        "_serve",
        "_obey_signals_until_done",
    ]
    assert create.places == [("_command.py", 150, "_wait", "await child.wait()")]
    assert len(serve.children[0].places) == 3


def test_why_a_task_waits() -> None:
    """The innermost line that the table knows tells it; a stuck runc is pointed at."""
    serve, create = read_tree(TREE).children
    live = serve.children[0]
    assert live.reason is not None
    assert (live.reason.text, live.reason.usual) == ("waits for the first process to exit", True)
    assert create.reason is not None
    assert not create.reason.usual
    lines = list(_lines(read_tree(TREE), 0))
    assert [line for line in lines if "look here" in line] == [
        "  Create box: waits for a command of runc to end  <-- look here"
    ]


def test_a_terminal_shows_the_same_tasks() -> None:
    """As a tree, with names that could be taken for markup as they are."""
    from rich.console import Console

    console = Console(width=200, force_terminal=False)
    with console.capture() as captured:
        console.print(_draw(read_tree(TREE + "  [red]odd\n")))
    text = captured.get()
    for name in ("task._containers.Containers._live_alone", "Create box", "[red]odd"):
        assert name in text
    assert "waits for a command of runc" in text


def test_as_json_it_is_whole() -> None:
    """Names, reasons, places and children."""
    found = read_tree(TREE).to_json()
    assert found["reason"] is None
    tasks = found["tasks"]
    assert isinstance(tasks, list)
    assert tasks[1] == {
        "name": "Create box",
        "reason": "waits for a command of runc to end",
        "usual": False,
        "places": ["_command.py:150 _wait"],
        "tasks": [],
    }


async def test_what_the_shim_writes_is_read_whole() -> None:
    """No task of this very run is lost: writer and reader agree."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever, name="one")
        async with trio.open_nursery() as inner:
            inner.start_soon(trio.sleep_forever, name="two")
            await trio.testing.wait_all_tasks_blocked()
            text = task_tree()
            inner.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    names = {node.name for node in everybody(read_tree(text))}
    written = {line.strip() for line in text.splitlines() if not line.strip().startswith("@ ")}
    assert names == written
    assert {"one", "two"} <= names


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_answer_is_none(text: str) -> None:
    """It says what to do."""
    with pytest.raises(CliError, match="try again"):
        read_tree(text)


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """We are taken for root, and this process for a shim; who was sent what."""
    sent: list[int] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(_dump, "is_our_shim", lambda _: True)
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda _, signum: sent.append(signum))
    return sent


async def test_the_answer_is_the_new_one(
    ours: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
) -> None:
    """Not what is left from the last time."""
    monkeypatch.chdir(tmp_path)
    write_file("tasks.txt", b"old")
    place = make_place(tmp_path)
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *_: write_file("tasks.txt", b"new"))
    async with open_shim(place):
        assert await _dump._ask(place) == "new"


async def test_a_shim_that_stands_still_is_told_of(
    ours: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """After 5 seconds, with its pid and where to look."""
    monkeypatch.chdir(tmp_path)
    place = make_place(tmp_path)
    async with open_shim(place):
        with pytest.raises(CliError, match=rf"process {os.getpid()}, .* has not answered in 5 "):
            await _dump._ask(place)
    assert ours == [signal.SIGUSR1]
    assert trio.current_time() >= 5


async def test_others_are_never_asked(ours: list[int], tmp_path: Path) -> None:
    """SIGUSR1 would be their end."""
    place = make_place(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_dump, "is_our_shim", lambda _: False)
        async with open_shim(place):
            with pytest.raises(CliError, match="only trioshim's own can"):
                await _dump._ask(place)
    assert ours == []


def test_places_that_nobody_knows_have_no_reason() -> None:
    """Then the line of code is shown."""
    assert reason_for([("x.py", "f")]) is None
    outer, inner = ("_container.py", "_run"), ("_command.py", "_wait")
    assert reason_for([outer, inner, ("x.py", "f")]) == REASONS[inner]


def functions(name: str) -> set[str]:
    """What is defined in the modules of that name."""
    trees = [ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob(name)]
    kinds = (ast.AsyncFunctionDef, ast.FunctionDef)
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, kinds)}


@pytest.mark.parametrize(("name", "function"), REASONS, ids=str)
def test_the_table_is_in_step_with_the_source(name: str, function: str) -> None:
    """Every function in it is there, under that name, in that file."""
    assert function in functions(name)
