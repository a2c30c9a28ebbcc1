"""The shim is stopped in the middle of a life with faults: it ends in time, and lets go of all."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
import trio

from tests.sim.amount import SCHEDULES
from tests.sim.fault_lives import LIVES
from tests.sim.fault_runs import GIVEN_UP, Run, calls_of, heard, once_each, remove
from trioshim.errors import ShimError
from trioshim.proto import events_pb2 as events
from trioshim.testing import (
    FaultPlan,
    World,
    check_event_order,
    draw_faults,
    run_schedule,
)

BATCHES = 2
LONGEST = 30  # virtual seconds to stop: undoing a Create 20, replies 1, events 5


@dataclass
class Stopped(Run):
    """A run that is stopped after some seconds.

    Attributes:
        after: virtual seconds.
        softly: as SIGTERM does; else everything is cancelled at once.
        took: seconds until it had ended.
    """

    after: float = 0.0
    softly: bool = False
    took: float = field(init=False)

    async def live(self) -> None:
        with trio.fail_after(7200):
            async with self.open_world() as self.world:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._until_it_is_gone)
                    await trio.sleep(self.after)
                    await self._stop(self.world)
                    nursery.cancel_scope.cancel()
                self.check_end()
                await remove(set(self.world.runtime.containers), self.world)
                assert not self.world.kernel.processes

    async def _until_it_is_gone(self) -> None:
        try:
            async with self.world.client() as shim:
                await self._beside_another(shim)
        except* (ShimError, AssertionError):
            await trio.lowlevel.checkpoint()  # the shim is gone, and every request is refused

    async def _stop(self, world: World) -> None:
        begin = trio.current_time()
        if self.softly:
            world.service.shutdown_requested.set()
        else:
            world.serving.cancel()
        await world.stopped.wait()
        self.took = trio.current_time() - begin

    def check_end(self) -> None:
        """What is left is what a daemon knows of, by an event or by the log."""
        assert self.took <= LONGEST
        assert not self.world.kernel.stdios
        assert not self.world.kernel.cgroups
        seen, said = once_each(self.world), [r.getMessage() for r in self.logged]
        check_event_order(seen, complete=False)
        known = {e.container_id for e in seen if isinstance(e, events.TaskCreate)}
        known |= {found[1] for text in said if (found := GIVEN_UP.search(text))}
        mounted = {mount.split("/")[2] for mount in self.world.kernel.mounts}
        if not any("events were not delivered" in text for text in said):
            assert set(self.world.runtime.containers) | mounted <= known


@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_shim_can_be_stopped_whatever_happens(batch: int) -> None:
    """Softly or at once, at some moment of a life with 1 to 4 faults."""
    for seed in range(batch, SCHEDULES // 10, BATCHES):
        draw = random.Random(f"stops {seed}")
        name = draw.choice(list(LIVES))
        run = Stopped(name, FaultPlan(*draw_faults(draw, calls_of(name))), wild=True)
        run.after = draw.choice((1.0, 1.5, 3, 11, 15, 30, 62, 110, 121))
        run.softly = draw.random() < 0.5
        try:
            with heard(run.logged):
                run_schedule(run.live, seed=seed)
            assert not [r.getMessage() for r in run.logged if r.exc_info]
        except BaseException as error:
            how = "softly" if run.softly else "at once"
            error.add_note(
                f"{name!r}, {run.plan!r}, stopped {how} after {run.after} s, seed {seed}"
            )
            raise
