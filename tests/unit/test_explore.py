"""A seed finds a race and runs it again: `explore`, `replay`, pytest's marker, hypothesis."""

from __future__ import annotations

import os
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from trioshim.testing import Exploration, Trace, _schedules, explore, replay, run_schedule

from .fresh_python import GUARD, printed_by


async def hasty() -> None:
    """Wrong: it counts steps instead of waiting, and a writer who is starved comes too late."""
    written = []

    async def write() -> None:
        await trio.lowlevel.checkpoint()
        written.append("hello")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        for _ in range(4):
            await trio.lowlevel.checkpoint()
        assert written == ["hello"]


async def crowd() -> None:
    """Nothing is wrong here."""
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(trio.sleep, 1, name=f"member {number}")


def failure_of(run: Callable[[], object]) -> list[str]:
    """The lines of the note of the failure."""
    with pytest.raises(ExceptionGroup) as caught:
        run()
    return "\n".join(caught.value.__notes__).splitlines()


def digest_of(scenario: Callable[..., Awaitable[object]], seed: int) -> str:
    trace = Trace()
    replay(scenario, seed, trace=trace)
    return trace.digest


# ---------------------------------------------------------------- explore


def test_a_starved_task_is_found() -> None:
    """The first seed that fails is told, with the schedule and the line that replays it."""
    told, line = failure_of(lambda: explore(hasty))
    match = re.fullmatch(r"seed (\d+), schedule ([0-9a-f]{16}): it failed after \d+ steps", told)
    assert match
    seed = int(match[1])
    assert line == f"replay: explore(hasty, schedules=1, seed={seed})"
    assert explore(hasty, schedules=seed).schedules == seed  # those before it pass


def test_shuffling_alone_never_starves_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why our scheduler postpones tasks: a thousand shuffled orders do not have this race."""
    monkeypatch.setattr(_schedules, "_POSTPONED", 0)
    assert explore(hasty).schedules == 1000


def test_a_failure_is_replayed() -> None:
    """The line of the note, run as it stands, gives the same note."""
    note = failure_of(lambda: explore(hasty))
    line = note[1].removeprefix("replay: ")
    for _ in range(3):
        assert failure_of(lambda: eval(line, {"explore": explore, "hasty": hasty})) == note


def test_a_replay_has_the_schedule_of_the_failure() -> None:
    """The digest in the note is that of the trace."""
    told, _ = failure_of(lambda: explore(hasty))
    seed, trace = int(told.split()[1].rstrip(",")), Trace()
    with pytest.raises(ExceptionGroup):
        replay(hasty, seed, trace=trace)
    assert f"schedule {trace.digest}:" in told


def test_what_was_looked_at_is_counted() -> None:
    """Schedules, different orders, steps."""
    digests = [digest_of(crowd, seed) for seed in range(50, 80)]
    found = explore(crowd, schedules=30, seed=50)
    assert found == Exploration(30, len(set(digests)), found.steps)
    assert found.distinct > 20
    assert explore(trio.lowlevel.checkpoint, schedules=9).distinct < 9  # one task: few orders
    assert found.steps == sum(explore(crowd, schedules=1, seed=s).steps for s in range(50, 80))


@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
def test_a_seed_is_the_same_in_every_process(hash_seed: str) -> None:
    """Orders and draws do not depend on the hashes of texts."""
    program = (
        "from tests.unit.test_explore import *\n"
        "print([digest_of(crowd, seed) for seed in range(20)], replay(drawing, 3))"
    )
    here = [digest_of(crowd, seed) for seed in range(20)]
    printed = printed_by("-c", program, hash_seed=hash_seed)
    assert printed == f"{here} {replay(drawing, 3)}\n"


@pytest.mark.parametrize("schedules", [0, -3])
def test_no_schedule_is_no_success(schedules: int) -> None:
    """A test that ran nothing must not pass."""
    with pytest.raises(ValueError, match=f"1 or more, not {schedules}"):
        explore(crowd, schedules=schedules)


# ---------------------------------------------------------------- draws


async def drawing(draw: random.Random) -> float:
    await crowd()
    return draw.random()


def test_a_scenario_draws_from_its_seed() -> None:
    """The same seed draws the same, another one something else."""
    drawn = [replay(drawing, seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert explore(drawing, schedules=3).schedules == 3


def test_draws_leave_the_order_alone() -> None:
    """Whoever draws more has the same schedule."""

    async def draws(draw: random.Random, *, times: int = 0) -> None:
        for _ in range(times):
            draw.random()
        await crowd()

    async def draws_much(*, draw: random.Random) -> None:
        await draws(draw, times=100)

    draws_much.__qualname__ = draws.__qualname__  # a digest has the names of the tasks
    assert digest_of(draws, 7) == digest_of(draws_much, 7)


def test_a_scenario_has_one_argument_at_most() -> None:
    """The error names them."""

    async def greedy(draw: random.Random, other: int) -> None: ...

    with pytest.raises(TypeError, match=r"takes draw, other: bind them with functools\.partial"):
        explore(greedy)


# ---------------------------------------------------------------- twice


def test_a_scenario_that_changes_is_told() -> None:
    """Something outlives a run: the two orders differ, and the text says what to look for."""
    runs: list[None] = []

    async def forgetful() -> None:
        runs.append(None)
        for _ in runs:
            await trio.lowlevel.checkpoint()

    with pytest.raises(RuntimeError, match=r"(?s)^seed 5 took two ways.*real I/O.*time\.time.*set"):
        explore(forgetful, seed=5, twice=True)
    assert explore(crowd, schedules=5, twice=True).schedules == 5


def test_a_failure_of_the_second_run_is_told_as_that() -> None:
    """The same order, another outcome."""
    runs: list[None] = []

    async def once() -> None:
        runs.append(None)
        assert len(runs) < 2

    with pytest.raises(AssertionError) as caught:
        explore(once, twice=True)
    assert "the first run of it passed, the second failed" in caught.value.__notes__[0]


# ---------------------------------------------------------------- hypothesis


@settings(max_examples=30, deadline=None, database=None)
@given(seed=st.integers(0, 2**64), members=st.integers(1, 5))
def test_hypothesis_may_choose_the_seed(seed: int, members: int) -> None:
    """`@given` draws before trio runs; its examples are schedules as any others."""

    async def scenario() -> int:
        await crowd()
        return members

    first, again = Trace(), Trace()
    assert run_schedule(scenario, seed=seed, trace=first) == members
    run_schedule(scenario, seed=seed, trace=again)
    assert first.digest == again.digest


# ---------------------------------------------------------------- pytest

HASTY = """
import pytest, trio

@pytest.mark.explore(schedules=200)
@pytest.mark.parametrize("text", ["hello world"])
async def test_hasty(text, tmp_path):
    written = []
    async def write():
        await trio.lowlevel.checkpoint()
        written.append(text)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        for _ in range(4):
            await trio.lowlevel.checkpoint()
        assert written == [text]
"""
COUNTED = """
import pytest, trio
pytestmark = pytest.mark.trio
seen = []

class TestIt:
    @pytest.mark.explore(schedules=7, twice=True)
    async def test_it(self, draw):
        seen.append(draw.random())

@pytest.fixture(autouse=True)
def tell():
    yield
    print(f"{len(seen)} runs, {len(set(seen))} draws")
"""
WITHOUT_OTHERS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
ALONE = ("-p", "trioshim.testing._pytest_plugin")


def pytest_says(directory: Path, tests: str, *options: str, **env: str) -> str:
    """What pytest tells of these tests, in a project of their own."""
    (directory / "test_it.py").write_text(tests, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-W", "error", "--strict-markers", "-rA", *options],
        cwd=directory,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | env,
        capture_output=True,
        text=True,
        check=False,
        timeout=GUARD,
    )
    return done.stdout + done.stderr


def test_a_marked_test_is_explored(tmp_path: Path) -> None:
    """It fails, and the command line in the report fails in the same way."""
    said = pytest_says(tmp_path, HASTY, "-o", "trio_mode=true")
    line = re.search(r"^to run this schedule again:\npytest (.*)$", said, re.MULTILINE)
    assert line, said
    assert re.search(r"'test_it.py::test_hasty\[hello world\]' --schedules 1 --seed \d+$", line[1])
    schedule = re.search(r"seed \d+, schedule \w+: it failed after \d+ steps", said)
    assert schedule
    assert schedule[0] in pytest_says(tmp_path, HASTY, *shlex.split(line[1]))


def test_pytest_trio_is_not_needed(tmp_path: Path) -> None:
    """No other plugin: the same."""
    said = pytest_says(tmp_path, HASTY, *ALONE, **WITHOUT_OTHERS)
    assert "--schedules 1 --seed" in said


@pytest.mark.parametrize(
    ("options", "runs", "draws"),
    [((), 14, 7), (("--schedules", "3"), 6, 3), (("--schedules=1", "--seed=9"), 2, 1)],
)
def test_options_go_before_the_marker(
    options: tuple[str, ...], runs: int, draws: int, tmp_path: Path
) -> None:
    """--schedules and --seed; `draw` is new in each schedule; pytest-trio's mark does no harm."""
    said = pytest_says(tmp_path, COUNTED, *options)
    assert f"{runs} runs, {draws} draws" in said
    assert "1 passed" in said


WRONG = {
    "@pytest.fixture\nasync def a(): yield\n@pytest.mark.explore\nasync def test(a): pass": (
        "cannot use the async fixture 'a'"
    ),
    "@pytest.mark.explore\nasync def test(nursery): pass": "cannot use the async fixture 'nursery'",
    "@pytest.mark.explore\nasync def test(autojump_clock): pass": "a virtual clock of its own",
    "@pytest.mark.explore\ndef test(): pass": "explore is for async tests",
    "@pytest.mark.explore(5, times=2)\nasync def test(): pass": "and max_steps=, not 5, times",
    "async def test(draw): pass": "draw is for async tests with @pytest.mark.explore",
    "@pytest.fixture\ndef a(draw): draw.random()\n"
    "@pytest.mark.explore\nasync def test(a): pass": "draw is for the test, not for its fixtures",
}


def test_what_cannot_be_explored_is_refused(tmp_path: Path) -> None:
    """Each error says what to do; no test passes."""
    for number, test in enumerate(WRONG):
        text = f"import pytest\n{test}\n"
        (tmp_path / f"test_{number}.py").write_text(text, "utf-8")
    said = pytest_says(tmp_path, "", "-o", "trio_mode=true")
    for error in WRONG.values():
        assert error in said
    assert "passed" not in said


def test_an_option_without_sense_is_refused(tmp_path: Path) -> None:
    """Nothing is run."""
    said = pytest_says(tmp_path, COUNTED, "--schedules", "0")
    assert "'0' is not a number of schedules: 1 or more" in said


def test_other_projects_do_not_pay_for_trio(tmp_path: Path) -> None:
    """The plugin is loaded in every run of pytest: it imports no trio, and no test changes."""
    test = "import sys\ndef test():\n    assert not {'trio', 'trioshim.shim'} & set(sys.modules)\n"
    assert "1 passed" in pytest_says(tmp_path, test, *ALONE, **WITHOUT_OTHERS)


def test_the_plugin_is_found_by_pytest(tmp_path: Path) -> None:
    """Its entry point, its marker, its options."""
    assert "@pytest.mark.explore(schedules=1000" in pytest_says(tmp_path, "", "--markers")
    assert re.search(r"--explore-schedules[ =]N", pytest_says(tmp_path, "", "--help"))
