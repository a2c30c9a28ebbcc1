"""What `scripts/same-schedules` compares: seeds, and the order in which trio ran their tasks.

The same trio, protobuf and purerpc give the same lines in every Python and process.
"""

from __future__ import annotations

import logging
import random

from tests.sim import requests as ask
from tests.sim import worlds
from trioshim.proto import task_v2_pb2 as api
from trioshim.testing import Program, Trace, check_event_order, open_shim, replay

SEEDS = range(10)


async def live_one_life(draw: random.Random) -> None:
    """One container from create to delete; its program ends by itself or is killed."""
    program = Program(status=7, after=draw.choice((0, 0.05, 3)))
    async with open_shim(program=lambda *_: program) as world, world.client() as shim:
        await shim.create(ask.create("c1"))
        await shim.start(ask.start("c1"))
        await worlds.tried(shim.kill(ask.kill("c1", signal=draw.choice((9, 15)))))
        await shim.wait(api.WaitRequest(id="c1"))
        await shim.delete(ask.delete("c1"))
        await shim.shutdown(ask.shutdown())
        await world.stopped.wait()
    check_event_order(world.publisher.events)
    world.check_nothing_left()


def digest_of_day(seed: int) -> str:
    trace = Trace()
    worlds.run_day(seed, trace)
    return trace.digest


def digest_of_life(seed: int) -> str:
    trace = Trace()
    replay(live_one_life, seed, trace=trace)
    return trace.digest


def main() -> None:
    logging.disable()  # the shim tells of the faults of a day
    for seed in SEEDS:
        print(f"day {seed}: {digest_of_day(seed)}")
    for seed in SEEDS:
        print(f"life {seed}: {digest_of_life(seed)}")


if __name__ == "__main__":
    # A digest has the names of the tasks, and those have their module's.
    from tests.sim import digests  # noqa: PLW0406 (it is called __main__ here)

    digests.main()
