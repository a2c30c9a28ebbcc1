"""What the fault plans have found: each with the plan that showed it."""

from __future__ import annotations

import errno

import pytest
import trio

from tests.sim import requests as ask
from trioshim.errors import DeadlineExceededError, ShimError
from trioshim.testing import Fault, FaultKind, FaultPlan, Program, open_shim

ATTACH = Fault("stdio.attach", FaultKind.FAILS, errno=errno.EIO)


async def test_a_remove_that_hangs_does_not_cost_the_unmount(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each step of undoing a Create has its own time; they had one together, and no log."""
    plan = FaultPlan(ATTACH, Fault("runtime.delete", FaultKind.HANGS))
    async with open_shim(faults=plan) as world, world.client() as shim:
        with pytest.raises(ShimError, match="Input/output error"):
            await shim.create(ask.create("c1"))
        assert world.kernel.mounts == []
        assert "c1: cannot remove within 10 s, given up" in caplog.text


async def test_an_unmount_that_hangs_is_in_the_log(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """What is left for the `delete` action is named; it was left without a word."""
    plan = FaultPlan(ATTACH, Fault("kernel.unmount", FaultKind.HANGS))
    async with open_shim(faults=plan) as world, world.client() as shim:
        with pytest.raises(ShimError, match="Input/output error"):
            await shim.create(ask.create("c1"))
        assert trio.current_time() == 10
        assert world.kernel.mounts == ["/bundles/c1/rootfs"]
        assert "c1: cannot unmount within 10 s, given up" in caplog.text


async def test_a_restore_that_cannot_be_undone_is_in_the_log(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The same for a Start that restores."""
    plan = FaultPlan(ATTACH, Fault("runtime.delete", FaultKind.HANGS))
    async with open_shim(faults=plan) as world, world.client() as shim:
        await shim.create(ask.create("c1", checkpoint="/image"))
        with pytest.raises(ShimError, match="Input/output error"):
            await shim.start(ask.start("c1"))
        assert "c1: cannot remove within 10 s, given up" in caplog.text


async def test_a_delete_that_waits_for_the_rest_does_not_blame_init(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Init has ended, killing what it leaves behind hangs; asked again, Delete succeeds."""
    plan = FaultPlan(Fault("runtime.kill_remaining", FaultKind.HANGS, done=True))
    async with (
        open_shim(program=lambda *_: Program(after=None), faults=plan) as world,
        world.client() as shim,
    ):
        await shim.create(ask.create("c1"))
        with pytest.raises(DeadlineExceededError, match="or what it leaves behind has not ended"):
            await shim.delete(ask.delete("c1"))
        assert (await shim.delete(ask.delete("c1"))).exit_status == 137
        await trio.sleep(1)
        world.check_nothing_left()
