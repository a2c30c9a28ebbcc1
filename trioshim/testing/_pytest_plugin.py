"""`@pytest.mark.explore`: pytest runs an async test in many schedules.

Every run of pytest loads this module where trioshim is installed.  So it imports nothing but
pytest, and trio only when such a test is run; and it touches no other test.

With pytest-trio, in its trio mode or not: a marked test is ours.  An async fixture would live in
one run of trio, and there are many, so it is refused.  Beneath hypothesis' `@given`, each example
is run in schedules.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import os
import shlex
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any

import pytest

from ._pytest_given import examples, is_given, written
from ._pytest_options import SHORT, free, lengthened, values

__all__ = ["draw"]

_SCHEDULES = 1000
_PER_EXAMPLE = 1  # with @given, whose examples are many already
_SEEDS = frozenset({"schedules", "seed"})  # the options say it too
_OPTIONS = _SEEDS | {"twice", "max_steps"}
_scenario = pytest.StashKey[Callable[..., Awaitable[object]]]()
_replay = pytest.StashKey[str]()
_short = pytest.StashKey[frozenset[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("explore", "schedules of trio (trioshim)")
    group.addoption(
        "--explore-schedules",
        dest="explore_schedules",
        type=_count,
        metavar="N",
        help=f"how many schedules of each test marked explore (default: {_SCHEDULES}); "
        "also --schedules, where nobody else has that option",
    )
    group.addoption(
        "--explore-seed",
        dest="explore_seed",
        type=int,
        metavar="S",
        help="the first of their seeds (default: 0); also --seed, where nobody else has it",
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Generator[None]:
    known = early_config.known_args_namespace
    numbers = values(args)
    known.file_or_dir = [name for name in known.file_or_dir if name not in numbers]
    yield
    ours = free(parser)  # only now: a conftest may have options of its own
    early_config.stash[_short] = ours
    args[:] = lengthened(args, ours)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of schedules: 1 or more")
    return int(text)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"explore(schedules={_SCHEDULES}, seed=0, twice=False, max_steps=1_000_000): run an async "
        "test in many orders of its trio tasks (trioshim)",
    )


class _Draw:
    """Stands for the random.Random that each schedule has of its own."""

    def __repr__(self) -> str:
        return "draw"

    def __getattr__(self, name: str) -> object:
        raise AttributeError(f"no draw.{name} here: draw is for the test, not for its fixtures")


@pytest.fixture(scope="session")  # of a narrower one, hypothesis would warn
def draw() -> object:
    """A random.Random of the schedule's seed, in tests marked explore."""
    return _Draw()


def _is_marked(item: object) -> bool:
    return isinstance(item, pytest.Function) and item.get_closest_marker("explore") is not None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if isinstance(item, pytest.Function) and _is_marked(item):
        item.stash[_scenario] = written(item.obj)  # pytest-trio puts a wrapper there later


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> None:
    function = fixturedef.func
    is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    if _is_marked(request.node) and (is_async or hasattr(function, "_force_trio_fixture")):
        pytest.fail(
            f"a test marked explore cannot use the async fixture {fixturedef.argname!r}: "
            "each schedule is a run of trio of its own; open it in the test (async with)",
            pytrace=False,
        )


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    __tracebackhide__ = True
    if not _is_marked(pyfuncitem):
        if any(isinstance(value, _Draw) for value in pyfuncitem.funcargs.values()):
            pytest.fail("draw is for async tests with @pytest.mark.explore", pytrace=False)
        return None
    scenario = pyfuncitem.stash[_scenario]
    if not inspect.iscoroutinefunction(scenario):
        pytest.fail(
            "@pytest.mark.explore is for async tests; in one that is not, call "
            "trioshim.testing.run_schedule(scenario, seed=...)",
            pytrace=False,
        )
    how = _how(pyfuncitem)
    if is_given(pyfuncitem.obj):
        with examples(pyfuncitem.obj, scenario, functools.partial(_explore, pyfuncitem, how)):
            pyfuncitem.obj(**_arguments(pyfuncitem, pyfuncitem.obj))
    else:
        bound = functools.partial(scenario, **_arguments(pyfuncitem, scenario))
        _explore(pyfuncitem, how, bound, seed=0)
    return True


def _arguments(item: pytest.Function, function: Callable[..., object]) -> dict[str, object]:
    import trio

    names = inspect.signature(function).parameters
    found = {name: item.funcargs[name] for name in names if name in item.funcargs}
    for name, value in found.items():
        if isinstance(value, trio.abc.Clock):
            pytest.fail(
                f"a test marked explore cannot use the clock {name!r}: each schedule has a "
                "virtual clock of its own, which jumps when all tasks wait",
                pytrace=False,
            )
    return found


@dataclass(frozen=True, slots=True)
class _How:
    schedules: int
    seed: int | None
    search: Callable[..., object]


def _how(item: pytest.Function) -> _How:
    from ._explore import search  # before the first example: hypothesis looks at the time

    marker = item.get_closest_marker("explore")
    assert marker is not None  # the caller has looked
    unknown = [repr(value) for value in marker.args] + sorted(marker.kwargs.keys() - _OPTIONS)
    if unknown:
        pytest.fail(
            "@pytest.mark.explore takes schedules=, seed=, twice= and max_steps=, "
            f"not {', '.join(unknown)}",
            pytrace=False,
        )
    schedules = item.config.getoption("explore_schedules")
    seed = item.config.getoption("explore_seed")
    if schedules is None:
        usual = _PER_EXAMPLE if is_given(item.obj) else _SCHEDULES
        schedules = marker.kwargs.get("schedules", usual)
    if seed is None:
        seed = marker.kwargs.get("seed")
    rest = {key: value for key, value in marker.kwargs.items() if key not in _SEEDS}
    return _How(schedules, seed, functools.partial(search, **rest))


def _explore(item: pytest.Function, how: _How, test: functools.partial[Any], seed: int) -> None:
    """Run the schedules of a test, or of one of its examples.

    Args:
        item: the test, as pytest has it.
        how: what the mark and the options say.
        test: the function with its arguments.
        seed: the first, if they say nothing.
    """
    __tracebackhide__ = True
    drawn = {name: value for name, value in test.keywords.items() if not isinstance(value, _Draw)}
    first = seed if how.seed is None else how.seed
    how.search(
        functools.partial(test.func, *test.args, **drawn),
        range(first, first + how.schedules),
        again=functools.partial(_again, item),
    )


def _again(item: pytest.Function, seed: int) -> str:
    path = os.path.relpath(item.path, item.config.invocation_params.dir)
    _, _, name = item.nodeid.partition("::")
    short = item.config.stash.get(_short, frozenset[str]())
    schedules, first = (key if key in short else SHORT[key] for key in SHORT)
    test = shlex.quote(f"{path}::{name}")
    item.stash[_replay] = f"pytest {test} {schedules} 1 {first} {seed}"
    return item.stash[_replay]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and call.when == "call" and _replay in item.stash:
        report.sections.append(("explore", f"to run this schedule again:\n{item.stash[_replay]}"))
    return report
