"""smoke"""
from __future__ import annotations
from collections.abc import AsyncIterator
from pathlib import Path
import pytest
from .shim_world import *
from .shim_world import Shim, ShimWorld, open_shim_world

@pytest.fixture
async def world(machine: None, rootfs: Path) -> AsyncIterator[ShimWorld]:
    async with open_shim_world(rootfs) as world:
        yield world

async def test_smoke(world: ShimWorld) -> None:
    shim = await world.start("box")
    await shim.run("box")
    print(shim.fds(), shim.children())
    async with shim.nothing_leaks():
        await shim.state("box")
    await shim.exec("box", "e1", "sh", "-c", "exit 3")
    await shim.start("box", "e1")
    assert await shim.wait("box", "e1") == 3
    await shim.delete("box", "e1")
    print(world.daemon.topics())
