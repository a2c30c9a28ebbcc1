"""The pages say what the code says: drawings, links, names and time limits are in step with it."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import trioshim
from trioshim import _compose, ttrpc
from trioshim.bootstrap import _sockets, _template
from trioshim.linux import _console, _fifo, _logger
from trioshim.runc import Timeouts
from trioshim.task import _container, _containers, _execs

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for path in [*ROOT.glob("docs/**/*.md"), ROOT / "README.md"] if path.exists())
OPERATIONS = ROOT / "docs" / "operations.md"
SOURCE = "\n".join(path.read_text("utf-8") for path in sorted(ROOT.glob("trioshim/**/*.py")))

# Words in the names of files that stand for something else.
PLACEHOLDER = re.compile(r"VERB|NAMESPACE|HASH|ID|N\b")


def default(function: object, name: str) -> float:
    assert callable(function)
    return float(inspect.signature(function).parameters[name].default)


LIMITS = {
    "Timeouts.create": Timeouts().create,
    "Timeouts.kill": Timeouts().kill,
    "Timeouts.other": Timeouts().other,
    "Timeouts.patience": Timeouts().patience,
    "OPEN_TIMEOUT": _fifo.OPEN_TIMEOUT,
    "READY_TIMEOUT": _logger.READY_TIMEOUT,
    "CONSOLE_TIMEOUT": _console.CONSOLE_TIMEOUT,
    "UNDO_GRACE": _container.UNDO_GRACE,
    "EXIT_GRACE": _container.EXIT_GRACE,
    "GRACE": _execs.GRACE,
    "grace": default(trioshim.serve, "grace"),
    "drain": default(trioshim.serve, "drain"),
    "send_timeout": default(ttrpc.serve_connection, "send_timeout"),
    "LINGER": _compose.LINGER,
    "RESERVED": _containers.RESERVED,
    "JOIN_TIMEOUT": _sockets.JOIN_TIMEOUT,
    "TEMPLATE_TIMEOUT": _template.TEMPLATE_TIMEOUT,
    "TEMPLATE_RETRY": _template.TEMPLATE_RETRY,
    "TEMPLATE_IDLE": _template.TEMPLATE_IDLE,
}


def without_programs(page: str) -> str:
    """A page without its blocks of code, where brackets mean something else."""
    return re.sub(r"^ *```.*?^ *```$", "", page, flags=re.MULTILINE | re.DOTALL)


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    text = without_programs(page.read_text("utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links() -> Iterator[tuple[Path, str]]:
    """Every link of every page to a place of this repository."""
    for page in PAGES:
        text = without_programs(page.read_text("utf-8"))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" not in target:
                yield page, target


def section(title: str) -> list[list[str]]:
    """The rows of the table below a heading of operations.md, without its head."""
    _, found, rest = OPERATIONS.read_text("utf-8").partition(f" {title}\n")
    assert found, f"no heading {title}"
    rows = [line.strip("|").split("|") for line in rest.split("\n#")[0].splitlines() if "|" in line]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_the_drawings_are_those_of_the_tables() -> None:
    """docs/reference.md has the states of _states.py."""
    argv = [sys.executable, "scripts/draw_states.py", "--check"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("page", "target"), [pytest.param(*link, id=f"{link[0].name}-{link[1]}") for link in links()]
)
def test_a_link_leads_somewhere(page: Path, target: str) -> None:
    """The file is there, and so is the heading."""
    name, _, anchor = target.partition("#")
    path = (page.parent / name).resolve() if name else page
    assert path.exists(), f"{page.name}: no {target}"
    if anchor:
        assert anchor in headings(path), f"{page.name}: no heading for {target}"


def test_variables_and_constants_are_in_the_code() -> None:
    """A name in capitals in operations.md is one of the source's, whole."""
    text = without_programs(OPERATIONS.read_text("utf-8"))
    names = {name for name in quoted(text) if re.fullmatch(r"[A-Z][A-Z0-9_]+", name)}
    assert {"TTRPC_ADDRESS", "TRIOSHIM_RUNC_TIMEOUT", "LINGER"} <= names
    missing = {name for name in names if not re.search(rf"\b{name}\b", SOURCE)}
    assert missing == {"RLIMIT_NOFILE"}  # the kernel's


def test_our_own_variables_are_in_the_table() -> None:
    """Whatever the source reads as TRIOSHIM_... is explained."""
    told = {name for row in section("Environment") for name in quoted(row[0])}
    assert set(re.findall(r"\bTRIOSHIM_[A-Z_]+\b", SOURCE)) <= told


@pytest.mark.parametrize("title", ["In the bundle", "Elsewhere"])
def test_files_are_in_the_code(title: str) -> None:
    """The files that are ours, or that we have runc make, have these names."""
    names = [
        name
        for row in section(title)
        if not row[1].startswith("containerd (")
        for name in quoted(row[0])
    ]
    assert names
    for name in names:
        literal = name.rpartition("*/")[2]
        parts = [re.escape(part) for part in PLACEHOLDER.split(literal) if part.strip("/")]
        if literal.startswith("/"):  # a directory, and names that are computed
            parts = [re.escape(re.split(r"/(?:HASH|NAMESPACE)", literal)[0])]
        assert re.search(r"\{[^{}\n]*\}".join(parts), SOURCE), f"{name} is not in the source"


def test_time_limits_are_those_of_the_code() -> None:
    """Each number in the table of operations.md that has a name is the value of that name."""
    limits = [cell for row in section("Time limits") for cell in row[1:2]]
    told = [re.match(r"([\d.]+) \(`([\w.]+)`\)", limit) for limit in limits]
    found = {match[2]: float(match[1]) for match in told if match}
    assert found == LIMITS
