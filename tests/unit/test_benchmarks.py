"""The benchmarks run, and figures are what they are said to be.  How fast it is, is no test."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks._figures import BEGIN, END, Row, Sample, put_between, tables

ROOT = Path(__file__).parents[2]
FIGURE = r" [\d,.]+ \|"


def run(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.rpc", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def sample(p50: float) -> Sample:
    return Sample(p50, 2 * p50, 1e6 / p50, server_cpu=p50 - 1, client_cpu=1)


def row(server: str, against: str, *p50s: float) -> Row:
    return Row(server, "ttrpc", "raw", against, {1: [sample(p50) for p50 in p50s]})


def test_the_quick_run_has_a_row_for_each_server() -> None:
    """The floor and our two wires answer, over real sockets, one and 64 at a time."""
    page = run("--quick", "--rounds", "1")
    for server in ("echo on trio | none", "Task service | ttrpc", "Task service | gRPC"):
        rows = re.findall(rf"{re.escape(server)} \| raw \|((?:{FIGURE})+)", page)
        assert [len(re.findall(FIGURE, figures)) for figures in rows] == [6, 5]


def test_the_profile_names_the_libraries() -> None:
    """The samples are of our server, and the calls are counted."""
    page = run("--quick", "--profile")
    for library in ("trio", "h2", "trioshim"):
        assert re.search(rf"\| {library} \| [\d.]+% \| [1-9]", page)


def test_a_sample_is_of_all_calls() -> None:
    """Nanoseconds in, microseconds out, and times of processors by call."""
    took = [*range(1000, 100_000, 1000), 1_000_000]
    done = Sample.of(took, elapsed=10**9, server_cpu=200_000, client_cpu=100_000)
    assert done == Sample(50.5, 1000.0, 100.0, server_cpu=2.0, client_cpu=1.0)


def test_a_round_without_an_answer_is_an_error() -> None:
    """No figure is made of nothing."""
    with pytest.raises(ValueError, match="no call was answered"):
        Sample.of([], elapsed=1, server_cpu=1, client_cpu=1)


def test_ratios_are_taken_within_a_round() -> None:
    """A slow round is slow for both: it changes no ratio."""
    go = row("go", "", 10, 1000, 20, 40, 10)
    ours = row("ours", "go", 20, 2000, 40, 80, 40)
    lines = tables([go, ours], [1]).splitlines()
    assert lines[-2] == "| go | ttrpc | raw | 20 | 40 | 50,000 | 19.0 | 1.0 | 19.0 |  |"
    assert lines[-1].endswith("| 39 | 2.00 (2.00 to 2.00) × go |")


def test_only_figures_of_the_same_client_are_compared() -> None:
    """Else the client would be what is measured."""
    other = Row("go", "ttrpc", "grpcio", "", {1: [sample(10)]})
    assert tables([other, row("ours", "go", 20)], [1]).endswith("|  |")


def test_figures_go_between_the_marks() -> None:
    """What is around them stays, and they can be put there again."""
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    done = put_between(page, "new")
    assert done == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert put_between(done, "new") == done


@pytest.mark.parametrize("page", ["", BEGIN, END])
def test_a_page_without_marks_is_refused(page: str) -> None:
    """Nothing is written into the wrong place."""
    with pytest.raises(ValueError, match="no lines"):
        put_between(page, "new")


def test_the_page_has_the_marks() -> None:
    """So that --write finds them."""
    put_between((ROOT / "docs" / "benchmarks.md").read_text("utf-8"), "new")
