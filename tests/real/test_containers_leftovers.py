"""What a program that was killed has left is removed by the next `run_container`."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal

import pytest
import trio

from trioshim.containers import (
    run_container,
)

from . import container_world
from .container_world import (
    SHIMS,
    Place,
    need,
)
from .shim_parts import until

place = container_world.place

HELD = """
    from trioshim.proto import task_v2_pb2 as api
    async with open_container(["sleep", "1000"], id="box", shim=sys.argv[1], **box) as container:
        say((await container.task.connect(api.ConnectRequest(id="box"))).shim_pid)
        await trio.sleep_forever()
"""


async def clean_up(place: Place) -> None:
    """Run another one in the same place; then nothing is there of the first."""
    assert (await run_container(["true"], **place.box)).returncode == 0
    assert place.traces() == []


@pytest.mark.parametrize("then", [None, signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("shim", SHIMS)
async def test_the_next_one_cleans_up(
    place: Place, shim: str, then: signal.Signals | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Shim, container, mounts, cgroup and bundle; also if the shim was killed or stopped too."""
    need(shim)
    script = place.script(HELD, shim)
    assert script.stdout is not None
    pid = int(await trio.to_thread.run_sync(script.stdout.readline))
    if then is not None:
        os.kill(pid, then)
    script.kill()
    script.wait()
    assert place.traces() != []
    with caplog.at_level(logging.WARNING, "trioshim.containers"):
        await clean_up(place)
    assert [record.getMessage() for record in caplog.records] == [
        "container box was left over by a program that was killed"
    ]


@pytest.mark.parametrize("shim", SHIMS)
async def test_killed_while_it_was_created(
    place: Place, shim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime is at it still when the next one comes."""
    need(shim)
    runc = shutil.which("runc")
    mark, path = place.base / "creating", place.base / "bin"
    path.mkdir()
    (path / "runc").write_text(
        f'#!/bin/sh\ncase "$*" in *\\ create\\ *) touch {mark}; sleep 1; esac\nexec {runc} "$@"\n'
    )
    (path / "runc").chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{path}:{os.environ['PATH']}")
        script = place.script(HELD, shim)
    await until(mark.exists, "the runtime")
    script.kill()
    script.wait()
    assert (await run_container(["true"], **place.box)).returncode == 0
    await until(lambda: not place.traces(), "our runc's own sleep to end")


async def test_killed_at_any_moment(place: Place) -> None:
    """While it begins or ends; many clean up at once, and each leftover is removed by one."""
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    body = 'say("up")\nawait run_container(["true"], **box)\n'
    for _ in range(3):
        scripts = [place.script(body) for _ in range(2)]
        for script in scripts:
            assert script.stdout is not None
            await trio.to_thread.run_sync(script.stdout.readline)
        await trio.sleep(dice.uniform(0, 1.2))
        for script in scripts:
            script.kill()
            script.wait()
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(clean_up_beside, place)
        assert place.traces() == [], f"seed {seed}"


async def clean_up_beside(place: Place) -> None:
    assert (await run_container(["true"], **place.box)).returncode == 0
