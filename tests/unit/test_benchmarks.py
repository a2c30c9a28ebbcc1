"""The benchmarks run, and figures are what they are said to be.  How fast it is, is no test."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import PARTS, mark, run, summary, written
from benchmarks._figures import (
    BEGIN,
    END,
    Held,
    Row,
    Sample,
    Spread,
    in_turns,
    put_between,
    tables,
)
from benchmarks._plot import draw
from benchmarks._report import Report, Verdict, table

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
FIGURE = r" [\d,.]+ \|"


def run_rpc(*words: str) -> str:
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
    page = run_rpc("--quick", "--rounds", "1")
    for server in ("echo on trio | none", "Task service | ttrpc", "Task service | gRPC"):
        rows = re.findall(rf"{re.escape(server)} \| raw \|((?:{FIGURE})+)", page)
        assert [len(re.findall(FIGURE, figures)) for figures in rows] == [6, 5]


def test_the_profile_names_the_libraries() -> None:
    """The samples are of our server, and the calls are counted."""
    page = run_rpc("--quick", "--profile")
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
    """So that --write finds them, in the order in which they are written."""
    lines = PAGE.splitlines()
    for name in (*PARTS, "summary"):
        begun = lines.index(mark(name))
        ended = lines.index(END, begun)
        assert not any(line.startswith("<!--") for line in lines[begun + 1 : ended])


# ---------------------------------------------------------------- all of them


def held(what: str, middle: float, most: float = 1.0) -> Held:
    return Held(what, Spread(middle / 2, middle, middle * 2), most, "Go")


def report(*verdicts: Verdict, lines: tuple[str, ...] = ("| figures |",)) -> Report:
    return Report("A title", lines, verdicts)


def test_a_round_begins_with_another_one_each_time() -> None:
    """Nobody is always the first, and everybody has a turn."""
    assert [in_turns("abc", number) for number in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_a_spread_is_a_median_and_quartiles() -> None:
    """Of the ratios within the rounds, not of the figures."""
    assert Spread.of([5, 1, 3, 2, 4]) == Spread(2, 3, 4)
    assert Spread.of_ratios([2, 400, 6], [1, 100, 2]) == Spread(2.5, 3, 3.5)
    assert str(Spread(2.5, 3, 3.5)) == "3.00 (2.50 to 3.50)"


def test_a_single_round_has_no_spread() -> None:
    """What cannot be known is not printed."""
    assert str(Spread.of([1.5])) == "1.50"


@pytest.mark.parametrize(("middle", "met"), [(1.0, True), (1.004, True), (1.01, False)])
def test_a_ratio_is_met_as_it_is_printed(middle: float, met: bool) -> None:
    """Whoever reads 1.00 beside "at most 1.00" reads that it is met."""
    verdict = held("exec", middle).verdict()
    assert (verdict.what, verdict.asked, verdict.met) == ("exec", "at most 1.00 × Go", met)
    assert verdict.measured.startswith(f"{middle:.2f} (")


def test_a_table_has_figures_on_the_right() -> None:
    """The first column is words."""
    done = table(["what", "ms"], [["start", "1.0"]])
    assert done == ("| what | ms |", "| --- | --: |", "| start | 1.0 |")


def test_the_summary_has_a_row_for_each_verdict() -> None:
    """Of every part, in their order; what is not met can be seen."""
    good, bad = Verdict("a", "1", "0", met=True), Verdict("b", "2", "3", met=False)
    lines = summary([report(good), report(), report(bad)])
    assert lines[2:] == ("| a | 1 | 0 | yes |", "| b | 2 | 3 | **no** |")


def test_every_part_is_written_into_its_own_place() -> None:
    """With the summary; and what is around them stays."""
    names = ("life", "rpc")
    page = "".join(f"{mark(name)}\nold\n{END}\n# {name}\n" for name in (*names, "summary"))
    reports = {name: report(lines=(f"new {name}",)) for name in names}
    done = written(page, reports)
    for name in names:
        assert f"{mark(name)}\n\nnew {name}\n\n{END}\n# {name}\n" in done
    assert "old" not in done
    assert done.endswith(f"{END}\n# summary\n")


def test_a_part_that_cannot_be_measured_does_not_end_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says why, and is not met; what the others have found is there."""

    def fail(_quick: bool) -> tuple[Report, list[Held]]:
        raise FileNotFoundError("no shim")

    parts = {"bad": fail, "good": lambda _quick: (report(), [held("exec", 1.0)])}
    monkeypatch.setattr("benchmarks.__main__.PARTS", parts)
    reports, ratios = run(parts, quick=True)
    (verdict,) = reports["bad"].verdicts
    assert (verdict.met, verdict.measured) == (False, "FileNotFoundError: no shim")
    assert (reports["good"], ratios) == (report(), [held("exec", 1.0)])


@pytest.mark.parametrize(
    ("words", "error"),
    [(["nothing"], "there is no part nothing"), (["--write", "life"], "goes with no PART")],
)
def test_a_wrong_command_is_refused_before_anything_is_measured(
    words: list[str], error: str
) -> None:
    """And what is wrong is said."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert error in done.stderr


def test_the_picture_is_the_same_for_the_same_figures() -> None:
    """No date, no random name: a new picture means new figures."""
    pytest.importorskip("matplotlib", reason="matplotlib is missing (the extra bench)")
    ratios = [held("exec", 0.5), held("whole life", 3.0)]
    drawn = draw(ratios)
    assert drawn == draw(ratios)
    assert drawn != draw([held("exec", 0.6), held("whole life", 3.0)])
    assert "whole life" in drawn
    assert "dc:date" not in drawn
