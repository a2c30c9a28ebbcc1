"""The mark explore and `@given` on one test: hypothesis chooses the values and the seed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.test_explore import ALONE, WITHOUT_OTHERS, pytest_says
from trioshim.testing._pytest_given import examples

GIVEN = """@seed(1)
@settings(deadline=None, max_examples=1000, phases=set(Phase) - {Phase.explain})
@given(n=st.integers(0, 99))
"""
ORDERS = ("@pytest.mark.explore\n" + GIVEN, GIVEN + "@pytest.mark.explore")
HEAD = """
import pytest, trio
from hypothesis import Phase, assume, example, given, seed, settings, strategies as st
"""
# Wrong for n above 9, in the few orders that starve the writer.
RACE = """
async def test_it(n):
    written = []
    async def write():
        await trio.sleep(0)
        written.append(n)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        for _ in range(4):
            await trio.sleep(0)
        assert n < 10 or written
"""
COUNTS = """
seen = []
@pytest.fixture(autouse=True)
def tell():
    yield
    print(f"{len(seen)} runs, {len(set(seen))} draws")
"""


def failure(said: str) -> tuple[str, list[str]]:
    """The note of the schedule that failed, and the arguments that run it again."""
    note = re.search(r"seed \d+, schedule \w+: it failed after \d+ steps", said)
    line = re.search(r"^to run this schedule again:\npytest (.*)$", said, re.MULTILINE)
    assert note, said
    assert line, said
    return note[0], shlex.split(line[1])


@pytest.mark.parametrize("mode", ["true", "false"])
@pytest.mark.parametrize("decorators", ORDERS, ids=["above", "below"])
def test_a_race_is_found_and_made_small(decorators: str, mode: str, tmp_path: Path) -> None:
    """The least value, with its seed; the database gives both again, and so does the seed."""
    tests = HEAD + decorators + RACE
    said = pytest_says(tmp_path, tests, "-o", f"trio_mode={mode}")
    note, again = failure(said)
    assert re.search(r"test_it\([\s|]*n=10,", said), said
    assert failure(pytest_says(tmp_path, tests))[0] == note
    said = pytest_says(tmp_path, tests, *again)
    assert failure(said)[0] == note
    assert re.search(r"test_it\([\s|]*n=10,", said), said


def test_neither_plugin_is_needed(tmp_path: Path) -> None:
    """Without pytest-trio, and without hypothesis' own plugin."""
    said = pytest_says(tmp_path, HEAD + ORDERS[0] + RACE, *ALONE, **WITHOUT_OTHERS)
    failure(said)
    assert re.search(r"test_it\([\s|]*n=10,", said), said


@pytest.mark.parametrize(
    ("mark", "options", "runs", "draws"),
    [
        ("", (), 20, "many"),
        ("", ("--explore-seed=3",), 20, 1),
        ("(seed=3)", (), 20, 1),
        ("(schedules=3, seed=3, twice=True)", (), 120, 3),
        ("(schedules=3)", ("--seed=4", "--schedules=2"), 40, 2),
    ],
)
def test_schedules_of_an_example(
    mark: str, options: tuple[str, ...], runs: int, draws: int | str, tmp_path: Path
) -> None:
    """One each if nobody says more; a seed that somebody says is that of each example."""
    tests = f"""{HEAD}{COUNTS}
@settings(deadline=None, max_examples=20)
@given(n=st.integers())
@pytest.mark.explore{mark}
async def test_it(n, draw):
    seen.append(draw.random())
"""
    told = re.search(r"(\d+) runs, (\d+) draws", pytest_says(tmp_path, tests, *options))
    assert told
    assert int(told[1]) == runs
    assert int(told[2]) > 10 if draws == "many" else int(told[2]) == draws


def test_what_hypothesis_can_do_else(tmp_path: Path) -> None:
    """Methods, parameters, `@example`, draws in the test, assumptions."""
    tests = f"""{HEAD}
class TestIt:
    @pytest.mark.parametrize("most", [3, 5])
    @pytest.mark.explore(schedules=2)
    @example(n=77)
    @settings(deadline=None, max_examples=10)
    @given(n=st.integers(0, 3))
    async def test_it(self, most, n):
        await trio.sleep(n)
        assert n <= most

@pytest.mark.explore
@settings(deadline=None)
@given(data=st.data())
async def test_draws(data):
    await trio.sleep(data.draw(st.integers(0, 9)))
    assume(data.draw(st.booleans()))
"""
    said = pytest_says(tmp_path, tests, "-o", "trio_mode=true")
    assert "1 passed" in said
    assert "2 failed" in said
    assert said.count("n=77") >= 2
    assert "test_it[3]' --schedules 1 --seed 0" in said
    assert "test_it[5]' --schedules 1 --seed 0" in said


def test_the_key_of_a_parametrized_test_is_kept() -> None:
    """hypothesis' plugin has put it on the test that we replace; after the run all is as before."""

    async def scenario() -> None: ...

    async def wrapped() -> None: ...

    vars(wrapped)["_hypothesis_internal_add_digest"] = b"test_it[5]"
    handle = SimpleNamespace(inner_test=wrapped)
    with examples(SimpleNamespace(hypothesis=handle), scenario, lambda _test, _seed: None):
        assert vars(handle.inner_test)["_hypothesis_internal_add_digest"] == b"test_it[5]"
    assert handle.inner_test is scenario


def test_a_test_that_is_not_async_is_refused(tmp_path: Path) -> None:
    """There is `run_schedule` for it."""
    tests = f"{HEAD}@pytest.mark.explore\n@given(n=st.integers())\ndef test_it(n): pass\n"
    said = pytest_says(tmp_path, tests)
    assert "explore is for async tests" in said
    assert "run_schedule" in said


def test_hypothesis_is_not_imported_for_others(tmp_path: Path) -> None:
    """An explored test without it does not load it."""
    tests = """
import sys, pytest
@pytest.mark.explore(schedules=2)
async def test_it():
    assert "hypothesis" not in sys.modules
"""
    assert "1 passed" in pytest_says(tmp_path, tests, *ALONE, **WITHOUT_OTHERS)
