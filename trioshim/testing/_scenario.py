"""What a scenario is: an async function, with no argument or with one that we give it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

__all__ = ["bind", "takes_one"]

T = TypeVar("T")


def takes_one(scenario: Callable[..., Any], what: str) -> inspect.Parameter | None:
    """The one argument that has to be given to it; None if there is none.

    Args:
        scenario: the function.
        what: what would be given, for the error.

    Raises:
        TypeError: it wants more.
    """
    wanted = [
        parameter
        for parameter in inspect.signature(scenario).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if len(wanted) > 1:
        names = ", ".join(parameter.name for parameter in wanted)
        raise TypeError(
            f"a scenario takes no argument, or {what}; {scenario!r} takes {names}: "
            "bind them with functools.partial"
        )
    return wanted[0] if wanted else None


def bind(
    scenario: Callable[..., Awaitable[T]], argument: object, what: str
) -> Callable[[], Awaitable[T]]:
    """The scenario with its argument, if it takes one.

    Raises:
        TypeError: it wants more.
    """
    parameter = takes_one(scenario, what)
    if parameter is None:
        return partial(scenario)
    if parameter.kind is parameter.KEYWORD_ONLY:
        return partial(scenario, **{parameter.name: argument})
    return partial(scenario, argument)
