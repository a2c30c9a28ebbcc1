"""`@pytest.mark.explore`: pytest runs an async test in many schedules.

Every run of pytest loads this module where trioshim is installed.  So it imports nothing but
pytest, and trio only when such a test is run; and it touches no other test.

With pytest-trio, in its trio mode or not: a marked test is ours.  An async fixture would live in
one run of trio, and there are many, so it is refused.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import os
import shlex
from collections.abc import Awaitable, Callable, Generator

import pytest

__all__ = ["draw"]

_SCHEDULES = 1000
_OPTIONS = frozenset({"schedules", "seed", "twice"})
_scenario = pytest.StashKey[Callable[..., Awaitable[object]]]()
_replay = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("explore", "schedules of trio (trioshim)")
    group.addoption(
        "--schedules",
        dest="explore_schedules",
        type=_count,
        metavar="N",
        help=f"how many schedules of each test marked explore (default: {_SCHEDULES})",
    )
    group.addoption(
        "--seed",
        dest="explore_seed",
        type=int,
        metavar="S",
        help="the first of their seeds (default: 0)",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of schedules: 1 or more")
    return int(text)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"explore(schedules={_SCHEDULES}, seed=0, twice=False): run an async test in many orders "
        "of its trio tasks (trioshim)",
    )


class _Draw:
    """Stands for the random.Random that each schedule has of its own."""

    def __getattr__(self, name: str) -> object:
        raise AttributeError(f"no draw.{name} here: draw is for the test, not for its fixtures")


@pytest.fixture
def draw(request: pytest.FixtureRequest) -> object:
    """A random.Random of the schedule's seed, in tests marked explore."""
    if not _is_marked(request.node):
        pytest.fail("draw is for async tests with @pytest.mark.explore", pytrace=False)
    return _Draw()


def _is_marked(item: object) -> bool:
    return isinstance(item, pytest.Function) and item.get_closest_marker("explore") is not None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if isinstance(item, pytest.Function) and _is_marked(item):
        item.stash[_scenario] = item.obj  # as written: pytest-trio puts a wrapper there later


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
        return None
    function = pyfuncitem.stash[_scenario]
    if not inspect.iscoroutinefunction(function):
        pytest.fail(
            "@pytest.mark.explore is for async tests; in one with @given, call "
            "trioshim.testing.run_schedule(scenario, seed=...)",
            pytrace=False,
        )
    _explore(pyfuncitem, functools.partial(function, **_arguments(pyfuncitem, function)))
    return True


def _arguments(item: pytest.Function, function: Callable[..., object]) -> dict[str, object]:
    import trio

    found = {
        name: item.funcargs[name]
        for name in inspect.signature(function).parameters
        if name in item.funcargs and not isinstance(item.funcargs[name], _Draw)
    }
    for name, value in found.items():
        if isinstance(value, trio.abc.Clock):
            pytest.fail(
                f"a test marked explore cannot use the clock {name!r}: each schedule has a "
                "virtual clock of its own, which jumps when all tasks wait",
                pytrace=False,
            )
    return found


def _explore(item: pytest.Function, scenario: Callable[..., Awaitable[object]]) -> None:
    __tracebackhide__ = True
    from ._explore import search

    schedules, seed, twice = _how(item)

    def again(failed: int) -> str:
        path = os.path.relpath(item.path, item.config.invocation_params.dir)
        _, _, name = item.nodeid.partition("::")
        item.stash[_replay] = (
            f"pytest {shlex.quote(f'{path}::{name}')} --schedules 1 --seed {failed}"
        )
        return item.stash[_replay]

    search(scenario, range(seed, seed + schedules), twice=twice, again=again)


def _how(item: pytest.Function) -> tuple[int, int, bool]:
    marker = item.get_closest_marker("explore")
    assert marker is not None  # the caller has looked
    unknown = [repr(value) for value in marker.args] + sorted(marker.kwargs.keys() - _OPTIONS)
    if unknown:
        pytest.fail(
            f"@pytest.mark.explore takes schedules=, seed= and twice=, not {', '.join(unknown)}",
            pytrace=False,
        )
    schedules = item.config.getoption("explore_schedules")
    seed = item.config.getoption("explore_seed")
    if schedules is None:
        schedules = marker.kwargs.get("schedules", _SCHEDULES)
    if seed is None:
        seed = marker.kwargs.get("seed", 0)
    return schedules, seed, marker.kwargs.get("twice", False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and call.when == "call" and _replay in item.stash:
        report.sections.append(("explore", f"to run this schedule again:\n{item.stash[_replay]}"))
    return report
