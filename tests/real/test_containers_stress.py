"""Many `run_container` under random cancellation: each is right or cancelled, and nothing is left.

TRIOSHIM_STRESS=5 does a thousand of them; it scales as in test_stress.py.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import trio

from trioshim.containers import CompletedContainer, run_container

from . import container_world
from .container_world import Place

place = container_world.place

CONTAINERS = max(20, round(200 * float(os.environ.get("TRIOSHIM_STRESS", "1"))))
AT_A_TIME = 8
CALM = 0.3  # the share of those that nobody cancels


async def run_one(place: Place, status: int, seconds: float) -> str:
    """What became of a container that is to end with this status, given so many seconds."""
    said = f"{status} and a word"
    done: CompletedContainer | None = None
    with trio.move_on_after(seconds) as scope:
        done = await run_container(
            ["sh", "-c", f"cat; exit {status}"],
            stdin=said.encode(),
            capture_stdout=True,
            check=False,
            **place.box,
        )
    if scope.cancelled_caught:
        return "cancelled"
    assert done is not None
    assert (done.returncode, done.stdout) == (status, said.encode())
    return "right"


async def test_many_containers_under_random_cancellation(place: Place) -> None:
    """Eight at a time; the place looks for what is left, down to fds and zombies."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    results: Counter[str] = Counter()
    running = trio.CapacityLimiter(AT_A_TIME)

    async def run(status: int, seconds: float) -> None:
        async with running:
            results[await run_one(place, status, seconds)] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(CONTAINERS):
            calm = dice.random() < CALM
            seconds = 60.0 if calm else dice.uniform(0, 0.5)
            nursery.start_soon(run, dice.randrange(256), seconds)

    assert results.total() == CONTAINERS
    assert min(results["right"], results["cancelled"]) > CONTAINERS * CALM / 2
