"""Every await of every RPC, cut short in six ways: the laws hold, and nothing is left.

`python -m tests.sim.count_blows` prints the counts as a table.
"""

from __future__ import annotations

import pytest

from tests.sim.blows import BLOWS, Kind, cut_short
from tests.sim.rpcs import RPCS


@pytest.mark.parametrize("kind", BLOWS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", RPCS)
def test_every_step_can_be_the_last(name: str, kind: Kind) -> None:
    """At whichever step it falls: laws 1 to 4 hold, and nothing is left."""
    done = cut_short(name, kind)
    assert done.fallen == done.steps > 0
