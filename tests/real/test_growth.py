"""The benchmarks that need real containers run, and an idle shim sleeps."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks import _shims, growth, idle


@pytest.fixture(autouse=True)
def ours(machine: None, give_up: Callable[[str], None]) -> None:
    give_up(_shims.missing(_shims.TRIO))


def test_each_has_its_curve() -> None:
    """Our shim, and runc by hand, at one and at three containers; all of it took time."""
    found = growth.curve(growth.KINDS[:1], [1, 3], 1)

    assert {name: list(costs) for name, costs in found.items()} == {
        growth.OURS: [1, 3],
        growth.RUNC: [1, 3],
    }
    costs = [cost for by_size in found.values() for cost in by_size.values()]
    assert all(min(cost.create, cost.exec, cost.exit) > 0 for cost in costs)
    assert found[growth.OURS][3].cpu > 0
    assert found[growth.OURS][3].resident > found[growth.OURS][3].proportional > 0


def test_execs_in_one_container_are_looked_at_in_decades() -> None:
    """Milliseconds and memory, at the first and at the last."""
    found = growth.exec_curve(growth.KINDS[:1], 3)

    assert list(found[growth.OURS]) == [1, 3]
    assert all(min(figures) > 0 for figures in found[growth.OURS].values())


def test_an_idle_shim_with_a_container_never_wakes() -> None:
    """No timer, no poll: nothing at all runs in it."""
    found = idle.measure(_shims.TRIO, seconds=2, settling=1)

    assert (found.wakes, found.ran) == (0, 0)
