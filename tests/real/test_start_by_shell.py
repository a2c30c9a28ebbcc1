"""The installed executable: its shell asks a spare, and Python does what the spare does not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .poll import eventually
from .shell_world import NAME, ShellWorld, open_shell_world
from .template_world import was_forked
from .verb_world import GUARD, needs_root

pytestmark = needs_root


@pytest.fixture
def world(tmp_path: Path, compiled_package: Path) -> Iterator[ShellWorld]:
    """A world in which a spare waits."""
    with open_shell_world(tmp_path, compiled_package) as world:
        world.template()
        yield world


def begin(world: ShellWorld, id_: str) -> subprocess.Popen[bytes]:
    """`start`, with a standard input that has not ended yet."""
    argv, bundle, environ = world.command(id_)
    return subprocess.Popen(
        argv,
        cwd=bundle,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def in_group(world: ShellWorld, id_: str) -> int:
    """Start a container of a group; the pid of its shim."""
    config = {"annotations": {"io.containerd.trio.v1.group": "g"}}
    argv, bundle, environ = world.command(id_)
    (bundle / "config.json").write_text(json.dumps(config))
    subprocess.run(argv, cwd=bundle, env=environ, stdin=subprocess.DEVNULL, check=True)
    return int((bundle / "shim.pid").read_text())


def test_no_python_is_needed(world: ShellWorld) -> None:
    """One container after the other, each with a shim of its own."""
    before, shims = world.pythons(), set()
    for number in range(3):
        shims.add(world.start(f"c{number}"))
        world.ready()
    assert world.pythons() == before
    assert len(shims) == 3
    assert all(map(was_forked, shims))


def test_a_shim_that_is_there_is_answered(world: ShellWorld) -> None:
    """Again for the same container: the same shim, and the spare is one still."""
    shim = world.start("c")
    world.ready()
    before, spare = world.pythons(), world.spare()
    assert world.start("c") == shim
    world.ready()
    assert (world.pythons(), world.spare()) == (before, spare)
    other = world.start("d")
    assert other == spare
    assert world.pythons() == before


def test_a_group_is_joined(world: ShellWorld) -> None:
    """By the first container's shim, and the spare is one still."""
    shim = in_group(world, "one")
    world.ready()
    before, spare = world.pythons(), world.spare()
    assert in_group(world, "two") == shim
    world.ready()
    assert (world.pythons(), world.spare()) == (before, spare)


@pytest.mark.parametrize(
    "wrapper",
    [("env", "MALLOC_ARENA_MAX=7"), ("unshare", "--net"), ("env", "TRIOSHIM_TEMPLATE=1")],
    ids=["environment", "namespace", "word"],
)
def test_a_refusal_costs_no_spare(world: ShellWorld, wrapper: tuple[str, ...]) -> None:
    """Nothing of it has changed; Python does it, and asks the same spare if that helps."""
    before, spare = world.pythons(), world.spare()
    argv, bundle, environ = world.command("c")
    environ.pop("TRIOSHIM_TEMPLATE")
    subprocess.run([*wrapper, *argv], cwd=bundle, env=environ, stdin=subprocess.DEVNULL, check=True)
    shim = int((bundle / "shim.pid").read_text())
    if "TRIOSHIM_TEMPLATE=1" in wrapper:
        assert (shim, world.pythons()) == (spare, before)
        return
    assert world.pythons() == before + 1
    assert not was_forked(shim)


def test_what_is_wrong_is_said_by_python(world: ShellWorld) -> None:
    """In one line; nothing is left, and the spare is one still."""
    before = world.pythons()
    argv, bundle, environ = world.command("c")
    environ["TRIOSHIM_GROUP"] = "nonsense"
    done = subprocess.run(
        argv,
        cwd=bundle,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=GUARD,
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(f"{NAME}: TRIOSHIM_GROUP='nonsense' is not known".encode())
    assert done.stderr.count(b"\n") == 1
    assert world.pythons() == before + 1
    assert not (bundle / "shim.pid").exists()


def test_a_standard_input_that_comes_late(world: ShellWorld) -> None:
    """The spare does not wait for it: it dies, and Python waits."""
    spare = world.spare()
    with begin(world, "c") as start:
        assert start.stdin is not None
        with start.stdin:
            eventually(lambda: not Path(f"/proc/{spare}").exists(), "its end")
        start.stdin = None
        answer = start.communicate(timeout=GUARD)[0]
    assert (start.returncode, answer) == (0, f"unix://{world.world.path('c')}".encode())
    world.ready()


def test_a_start_that_is_killed_leaves_no_shim(world: ShellWorld) -> None:
    """Nor a socket: whoever would know of it is gone."""
    spare = world.spare()
    with begin(world, "c") as start:
        try:
            eventually(lambda: os.path.samefile(f"/proc/{spare}/cwd", world.world.root / "c"), "it")
        finally:
            start.kill()
    assert start.returncode == -signal.SIGKILL
    eventually(lambda: not Path(f"/proc/{spare}").exists(), "its end")
    assert not world.world.path("c").exists()
    world.ready()


def test_code_that_has_changed_is_not_run(world: ShellWorld) -> None:
    """The spare sees it, and Python makes a shim of the new code."""
    before, template = world.pythons(), world.processes()
    (module,) = world.directory.parent.glob("p/lib/python*/site-packages/trioshim/errors.py")
    module.write_text(module.read_text() + "# changed\n")
    shim = world.start("c")
    assert world.pythons() == before + 1
    assert not was_forked(shim)
    eventually(lambda: world.processes() != template, "the old template's end")


def test_nothing_is_left(world: ShellWorld) -> None:
    """When the template ends, by itself or not."""
    (template,) = world.processes()
    os.kill(template, signal.SIGTERM)
    eventually(lambda: not world.processes("trioshim-spare"), "the spare's end")
    assert list(world.directory.iterdir()) == []
