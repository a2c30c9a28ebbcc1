"""Imports point down, and only `linux` makes system calls: the picture in the design, kept true."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "trioshim"
TESTS = Path(__file__).parents[1]

# What a part may import of the others.  Who is not named imports nothing of ours but the floor.
FLOOR = {
    "abc",
    "errors",
    "proto",
    "_atomic",
    "_instant",
    "_specs",
    "_exit_record",
    "_mountinfo",
    "_plain",
    "_version",
}
MAY_IMPORT = {
    "task": {"bootstrap"},
    "rpc": {"ttrpc"},
    "ttrpc": set(),
    "linux": set(),
    "runc": set(),
    "bootstrap": set(),
    "publisher": {"ttrpc"},
    "client": {"bootstrap", "rpc", "ttrpc"},
    "containers": {"bootstrap", "client", "ttrpc"},
    "cli": {"bootstrap", "client", "containers", "template", "ttrpc"},
    "shim": {"rpc", "task"},
    "testing": {"shim", "task", "client", "rpc", "ttrpc"},
    "_dump": set(),
    "_door": {"bootstrap", "shim"},
    "_place": {"bootstrap", "linux", "task"},
    "_compose": {
        *("_door", "_dump", "_place", "bootstrap", "linux", "publisher", "runc", "shim", "task"),
    },
    "template": {"_compose", "bootstrap", "linux", "publisher", "runc", "shim", "ttrpc"},
    "__main__": {"bootstrap", "_compose"},
    "__init__": {"abc", "client", "containers", "errors", "rpc", "shim", "testing", "ttrpc"},
}
# Modules with decisions and nothing else: no event loop, no system calls.
PURE = [
    "ttrpc/_frames.py",
    "ttrpc/_connection.py",
    "ttrpc/_events.py",
    "ttrpc/_envelope.py",
    "task/_states.py",
    "runc/_argv.py",
    "runc/_bundle.py",
    "bootstrap/_arguments.py",
    "bootstrap/_dialects.py",
    "bootstrap/_identifiers.py",
    "bootstrap/_wire.py",
    "errors.py",
    "_specs.py",
    "_exit_record.py",
    "_mountinfo.py",
]
FORBIDDEN = {"subprocess", "multiprocessing", "asyncio", "threading", "anyio"}

SOURCES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "proto"
)


def part_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Absolute names of everything that a module imports."""
    package = ["trioshim", *path.relative_to(PACKAGE).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base += [node.module] if node.module else []
            found |= {".".join([*base, alias.name]) for alias in node.names}
            found.add(".".join(base))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    """A part imports only what stands below it."""
    part = part_of(path)
    used = {name.split(".")[1] for name in imports(path) if name.startswith("trioshim.")}
    if part in FLOOR:
        assert used <= FLOOR
    else:
        assert used <= FLOOR | {part} | MAY_IMPORT[part]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nobody_else_waits_for_children(path: Path) -> None:
    """No second event loop, no subprocess: two waiters turn exit statuses into 0 (P6)."""
    assert not {name.split(".")[0] for name in imports(path)} & FORBIDDEN
    if part_of(path) not in {
        "cli",
        "client",
        "containers",
    }:  # in their users' programs, never in a shim
        assert "trio.run_process" not in path.read_text("utf-8")


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_do_nothing(name: str) -> None:
    """They import neither trio nor os."""
    assert not {"trio", "os", "socket", "signal"} & imports(PACKAGE / name)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_stay_small(path: Path) -> None:
    """No module above 400 lines."""
    assert len(path.read_text("utf-8").splitlines()) <= 400


@pytest.mark.parametrize(
    "path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS))
)
def test_test_modules_stay_small(path: Path) -> None:
    """No module of tests above 400 lines either."""
    assert len(path.read_text("utf-8").splitlines()) <= 400
