"""How many schedules a minute one core explores.

    python -m benchmarks.schedules [--seconds N]

CPU time, so that a busy machine counts less; the best of three, for what disturbs only adds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Awaitable, Callable

import trio
import trio.lowlevel

from trioshim.proto import task_v2_pb2 as api
from trioshim.testing import Program, explore, open_shim

__all__ = ["main"]

PROGRAM = Program(status=7, after=1)


async def race() -> None:
    """The ten lines of docs/testing.md, without their assertion."""
    inbox = []

    async def greet() -> None:
        await trio.lowlevel.checkpoint()
        inbox.append("hello")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(greet)
        for _ in range(4):
            await trio.lowlevel.checkpoint()


async def channels() -> None:
    """Two producers and a consumer."""
    send, receive = trio.open_memory_channel[int](1)

    async def produce(mine: trio.MemorySendChannel[int]) -> None:
        async with mine:
            for number in range(3):
                await mine.send(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce, send.clone())
        nursery.start_soon(produce, send)
        assert sorted([number async for number in receive]) == [0, 0, 1, 1, 2, 2]


async def service() -> None:
    """The whole shim, asked without a wire: create, start, wait, delete, shutdown."""
    async with open_shim(program=lambda *_: PROGRAM) as world:
        shim = world.service
        await shim.create(api.CreateTaskRequest(id="c1", bundle="/bundles/c1"))
        await shim.start(api.StartRequest(id="c1"))
        assert (await shim.wait(api.WaitRequest(id="c1"))).exit_status == 7
        await shim.delete(api.DeleteRequest(id="c1"))
        await shim.shutdown(api.ShutdownRequest(id="c1"))
        await world.stopped.wait()


async def wire() -> None:
    """The same over ttrpc."""
    async with open_shim(program=lambda *_: PROGRAM) as world, world.client() as shim:
        await shim.create(api.CreateTaskRequest(id="c1", bundle="/bundles/c1"))
        await shim.start(api.StartRequest(id="c1"))
        assert (await shim.wait(api.WaitRequest(id="c1"))).exit_status == 7
        await shim.delete(api.DeleteRequest(id="c1"))
        await shim.shutdown(api.ShutdownRequest(id="c1"))
        await world.stopped.wait()


SCENARIOS: dict[str, Callable[[], Awaitable[None]]] = {
    "a race of ten lines": race,
    "a channel, three tasks": channels,
    "a container's life in the shim": service,
    "the same over ttrpc": wire,
}


def per_minute(scenario: Callable[[], Awaitable[None]], seconds: float) -> tuple[float, float]:
    """Schedules a minute, and steps in each."""
    begun = time.process_time()
    explore(scenario, schedules=50)
    count = max(int(50 * seconds / (time.process_time() - begun)), 50)
    begun = time.process_time()
    found = explore(scenario, schedules=count)
    return 60 * count / (time.process_time() - begun), found.steps / count


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.schedules", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of CPU for each measurement")
    wanted = parser.parse_args()
    print(f"{'scenario':<34}{'steps':>7}{'schedules a minute':>20}")
    for name, scenario in SCENARIOS.items():
        best, steps = max(per_minute(scenario, wanted.seconds) for _ in range(3))
        print(f"{name:<34}{steps:>7.0f}{best:>20,.0f}", flush=True)


if __name__ == "__main__":
    main()
