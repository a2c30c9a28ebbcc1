"""The conformance suite on real shims: ours, and the two of containerd 1.6 as the measure.

What a Go shim is known to break is a strict xfail with the reason: if a newer one keeps the
promise, the test says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from trioshim.testing import CASES, Case, PromiseBrokenError

from .conformance_world import find, open_real_shim
from .requirements import GO, RUNTIMES

OURS = "containerd-shim-trio-v1"
GO_V2 = "containerd-shim-runc-v2"
GO_V1 = "containerd-shim-runc-v1"

NIL = "Update without resources ends the Go shims: they look into what is not there"
ONE = "one container for each shim: the id of a request is not looked at"
KNOWN_BREAKS = {
    GO_V2: {"update_without_resources_harms_nobody": NIL},
    GO_V1: {
        "update_without_resources_harms_nobody": NIL,
        "another_container_is_not_found": ONE,
        "many_containers_live_side_by_side": ONE,
        "a_deleted_container_is_not_found": "it keeps its container: State says STOPPED for ever",
        "shutdown_with_a_container_does_nothing": "Shutdown ends it, whatever it still holds",
    },
}


def marks(binary: str, case: Case) -> list[pytest.MarkDecorator]:
    """What is known to be broken has to be broken."""
    reason = KNOWN_BREAKS.get(binary, {}).get(case.name)
    if reason is None:
        return []
    return [pytest.mark.xfail(raises=PromiseBrokenError, strict=True, reason=reason)]


PAIRS = [
    pytest.param(
        binary,
        case,
        id=f"{binary.removeprefix('containerd-shim-')}-{case.name}",
        marks=marks(binary, case),
    )
    for binary in (OURS, GO_V2, GO_V1)
    for case in CASES
]


@pytest.mark.parametrize(("binary", "case"), PAIRS)
def test_a_shim_keeps_its_promise(
    machine: None, rootfs: Path, give_up: Callable[[str], None], binary: str, case: Case
) -> None:
    """Each case of the suite, on each shim, in a process and a namespace of its own."""
    if binary != OURS and GO not in RUNTIMES:
        pytest.skip(f"TRIOSHIM_RUNTIMES leaves {GO} out")
    program = find(binary)
    if program is None and binary == GO_V1:
        pytest.skip(f"no {GO_V1}: containerd 2 does not have it")
    if program is None:
        give_up(f"no {binary} in PATH or beside {sys.executable}")
    # Not an async test: there an error comes in a group, which an xfail does not look into.
    trio.run(case.check, partial(open_real_shim, rootfs, str(program)))


def test_known_breaks_are_of_cases_that_exist() -> None:
    """A case that was renamed takes its xfail along."""
    names = {case.name for case in CASES}
    for known in KNOWN_BREAKS.values():
        assert known.keys() <= names
