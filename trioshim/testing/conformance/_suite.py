"""A conformance suite for shims, over any client: what containerd relies on, case by case.

Promises: each case has a shim of its own, one promise and a reason; a failure names all three and
what came.  A case that passes has deleted what it created and shut the shim down.  All waiting is
on trio's clock: in memory, under a virtual one, the suite takes a second.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from inspect import getdoc

import trio

from . import (
    _events,
    _execs,
    _life,
    _requests,
    _signals,
)
from ._bench import Bench, PromiseBrokenError, ShimUnderTest

__all__ = ["CASES", "Case", "check_task_service"]

LIMIT = 120.0  # seconds for one case

Connect = Callable[[], AbstractAsyncContextManager[ShimUnderTest]]


@dataclass(frozen=True, slots=True)
class Case:
    """One promise that containerd, docker or Kubernetes rely on."""

    run: Callable[[Bench], Awaitable[None]]

    @property
    def name(self) -> str:
        return self.run.__name__

    @property
    def promise(self) -> str:
        """One sentence."""
        return (getdoc(self.run) or "").partition("\n\n")[0]

    @property
    def reason(self) -> str:
        """Who relies on it, or what went wrong without it."""
        return " ".join((getdoc(self.run) or "").partition("\n\n")[2].split())

    async def check(self, connect: Connect) -> None:
        """Check it on a shim.

        Args:
            connect: opens a new shim; at its end nothing of it may be left.

        Raises:
            PromiseBrokenError: what was expected and what came.
            Exception: what `connect` raised.
        """
        failure: Exception | None = None
        try:
            async with connect() as shim, shim.connection() as caller:
                bench = Bench(shim, caller)
                failure = await self._try(bench)
                await bench.tidy()
        except Exception as error:  # noqa: BLE001 (raised below, or told beside the first one)
            if failure is None:
                failure = error
            else:
                failure.add_note(f"and then, when it was cleared away: {error!r}")
        if failure is not None:
            failure.add_note(f"case: {self.name}\npromise: {self.promise}\nwhy: {self.reason}")
            raise failure

    async def _try(self, bench: Bench) -> Exception | None:
        # Returned and not raised: the nurseries of a world would wrap it in a group.
        try:
            with trio.fail_after(LIMIT):
                await self.run(bench)
        except trio.TooSlowError:
            return PromiseBrokenError(f"the case must end, and did not in {LIMIT} s")
        except Exception as error:  # noqa: BLE001 (raised by `check`)
            return error
        return None


CASES = tuple(
    Case(run)
    for module in (
        _life,
        _signals,
        _execs,
        _requests,
        _events,
    )
    for run in module.CASES
)


async def check_task_service(connect: Connect) -> None:
    """Run all `CASES` on a shim, each on a new one.

    Args:
        connect: opens a new shim; at its end nothing of it may be left.

    Raises:
        ExceptionGroup: one exception for each case that failed; its notes name the case, the
            promise and the reason for it.
    """
    failures = []
    for case in CASES:
        try:
            await case.check(connect)
        except Exception as error:  # noqa: BLE001 (all are told at the end)
            failures.append(error)
    if failures:
        raise ExceptionGroup(f"{len(failures)} of {len(CASES)} cases failed", failures)
