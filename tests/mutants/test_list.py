"""The list of defects fits today's code; whether each is caught is for `run` to say."""

from __future__ import annotations

import ast
from collections import Counter

import pytest

from .copies import ROOT, Outcome
from .defect import Defect, Kind
from .defects import DEFECTS
from .run import judge


@pytest.mark.parametrize("one", DEFECTS, ids=lambda one: one.name)
def test_the_text_to_be_edited_is_there_once(one: Defect) -> None:
    """A defect whose code has changed is noticed here, in no time."""
    text = (ROOT / "trioshim" / one.file).read_text("utf-8")
    assert text.count(one.old) == 1
    ast.parse(text.replace(one.old, one.new))  # a defect, not a slip of the pen
    assert one.new != one.old


@pytest.mark.parametrize("one", DEFECTS, ids=lambda one: one.name)
def test_the_tests_that_see_it_exist(one: Defect) -> None:
    """A test that was renamed is noticed here, and none of them needs a machine of its own."""
    assert one.caught_by
    for test in one.caught_by:
        file, _, name = test.partition("::")
        name = name.partition("[")[0]
        assert not file.startswith("tests/real/")
        assert f"def {name}(" in (ROOT / file).read_text("utf-8")


def test_where_a_hang_counts_one_test_is_named() -> None:
    """Else nobody knew which of them it was that did not end."""
    assert all(len(one.caught_by) == 1 for one in DEFECTS if one.hangs)


def test_names_are_names() -> None:
    """No two defects share one, so `-k` can choose each."""
    assert max(Counter(one.name for one in DEFECTS).values()) == 1


def test_there_are_many_of_every_kind() -> None:
    """The list is not cut down to what is easy."""
    assert len(DEFECTS) >= 40
    assert {one.kind for one in DEFECTS} == set(Kind)


A_TEST = "tests/a.py::test_b"


@pytest.mark.parametrize(
    ("outcome", "hangs", "by"),
    [
        (
            Outcome(1, "F\nFAILED tests/a.py::test_b[c d] - assert 1 == 2\n"),
            False,
            "tests/a.py::test_b",
        ),
        (Outcome(1, "E\nERROR tests/a.py::test_b - OSError\n"), False, A_TEST),
        (Outcome(0, "1 passed"), False, ""),
        (Outcome(0, "1 passed"), True, ""),
        (Outcome(2, "ERROR tests/a.py - ImportError\n"), False, ""),
        (Outcome(4, "ERROR: not found: tests/a.py::test_b"), False, ""),
        (Outcome(None, ""), False, ""),
        (Outcome(None, ""), True, "tests/x.py::test_y (hangs)"),
    ],
    ids=["failed", "error", "passed", "passed-no-hang", "no-import", "no-test", "slow", "hangs"],
)
def test_only_a_failing_test_counts(outcome: Outcome, hangs: bool, by: str) -> None:
    """Tests that could not run, or that took long, have seen nothing."""
    one = Defect("n", Kind.CHECK, "f", "old", "new", ("tests/x.py::test_y",), hangs)
    assert judge(one, outcome)[0] == by
