"""A test with hypothesis' `@given` and the mark explore: each example is run in schedules.

hypothesis draws the seed after the example's values, so a seed shrinks, and is kept in the
database with its example.  hypothesis is imported only when such a test runs.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["examples", "is_given", "written"]

Scenario = Callable[..., Awaitable[object]]
_BYTES = 2  # of a seed; drawn as an integer, every third would come again
_DIGEST = "_hypothesis_internal_add_digest"  # a parametrized test's part of the database's key


def is_given(function: object) -> bool:
    return bool(getattr(function, "is_hypothesis_test", False))


def written(function: Any) -> Any:
    """The test as it was written, without `@given`."""
    return function.hypothesis.inner_test if is_given(function) else function


@contextmanager
def examples(
    function: Any, scenario: Scenario, run: Callable[[functools.partial[Any], int], None]
) -> Iterator[None]:
    """Inside of the block, `function` gives each of its examples to `run`, with a seed.

    Args:
        function: what `@given` made.
        scenario: the async test as it was written.
        run: is called with the scenario, bound to the example's values, and the seed.
    """

    @functools.wraps(scenario)
    def example(*args: object, **kwargs: object) -> None:
        __tracebackhide__ = True
        run(functools.partial(scenario, *args, **kwargs), _draw_seed())

    handle = function.hypothesis
    if hasattr(handle.inner_test, _DIGEST):
        setattr(example, _DIGEST, getattr(handle.inner_test, _DIGEST))
    handle.inner_test = example
    try:
        yield
    finally:
        handle.inner_test = scenario  # parametrized tests share it


def _draw_seed() -> int:
    from hypothesis import strategies
    from hypothesis.control import current_build_context

    data = current_build_context().data
    if getattr(data, "max_choices", getattr(data, "max_length", None)) == 0:
        return 0  # an @example: there is nothing to draw from
    drawn = data.draw(strategies.binary(min_size=_BYTES, max_size=_BYTES))
    return int.from_bytes(drawn, "big")
