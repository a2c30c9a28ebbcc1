"""Where `start` puts the server: fds, signals, group, oom score, cgroup and core; or it says no."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from trioshim.bootstrap._wire import block_field

from .verb_world import GUARD, World, ask, needs_root, open_world

pytestmark = needs_root


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world; afterwards no server of it is left."""
    with open_world(tmp_path) as world:
        yield world


def test_the_server_is_placed_as_containerd_expects(world: World) -> None:
    """Listener on fd 3, null devices below, a group of its own."""
    world.run("start", bundle=world.bundle())
    facts = ask(world.path())
    assert facts["listening"] == 1
    assert facts["fds"].pop("3").startswith("socket:")
    assert facts["fds"] == dict.fromkeys("012", "/dev/null")
    assert facts["group"] == facts["pid"]


def test_start_without_standard_files(world: World) -> None:
    """Nothing that is opened becomes fd 0 by chance."""
    command = ["sh", "-c", '"$@" <&-', "sh", *world.argv("start")]
    bundle = world.bundle()
    done = subprocess.run(
        command, cwd=bundle, env=world.environ(), capture_output=True, timeout=GUARD, check=True
    )
    assert done.stdout == f"unix://{world.path()}".encode()
    assert ask(world.path())["fds"]["0"] == "/dev/null"


def test_the_server_ignores_no_signal(world: World) -> None:
    """What CPython ignores in the helper would reach every container (SIGPIPE, SIGXFSZ)."""
    bundle, shell = world.bundle(), world.root / "shell"
    shell.write_text(f'#!/bin/sh\ngrep SigIgn /proc/$$/status > signals\nexec {world.stub} "$@"\n')
    shell.chmod(0o755)
    world.run("start", bundle=bundle, server=str(shell))
    ask(world.path())
    ignored = int((bundle / "signals").read_text().split()[1], 16)
    assert ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1) == 0


@pytest.mark.parametrize(("daemon", "server"), [(-500, -499), (0, 1), (999, 1000), (1000, 1000)])
def test_shims_die_before_the_daemon(world: World, daemon: int, server: int) -> None:
    """One more than the parent's score, at most 1000."""
    set_score = f"echo {daemon} > /proc/$$/oom_score_adj || exit 77"
    done = subprocess.run(
        ["sh", "-c", f'{set_score}; "$@"; exit $?', "sh", *world.argv("start")],
        cwd=world.bundle(),
        env=world.environ(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=GUARD,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip(f"needs the right to set oom_score_adj to {daemon}")
    assert done.returncode == 0, done.stderr
    assert ask(world.path())["score"] == server


def with_roots(*roots: Path) -> dict[str, str]:
    """Other cgroup hierarchies than the host's, which are not ours to touch."""
    names = [str(root) for root in roots]
    return {
        "PRELUDE": "import trioshim.bootstrap._shim_cgroup as module\n"
        f"module.cgroup_roots = lambda _: ({names}, False)"
    }


def shim_cgroup(path: str) -> bytes:
    options = block_field(3, path.encode())
    return block_field(1, b"containerd.runc.v1.Options") + block_field(2, options)


def test_the_server_joins_the_cgroup_of_the_options(world: World) -> None:
    """Its pid is in every hierarchy when the address is said."""
    roots = [world.root / "memory", world.root / "pids"]
    bundle = world.bundle()
    done = world.run("start", bundle=bundle, stdin=shim_cgroup("/a/b"), **with_roots(*roots))
    assert done.returncode == 0
    pid = (bundle / "shim.pid").read_text()
    assert [(root / "a/b/cgroup.procs").read_text() for root in roots] == [pid, pid]


@pytest.mark.parametrize("path", ["/a", "/a/../b"])
def test_a_cgroup_that_cannot_be_joined_is_fatal(world: World, path: str) -> None:
    """A limit that was asked for is not left out silently; nothing is left behind."""
    bundle = world.bundle()
    done = world.run("start", bundle=bundle, stdin=shim_cgroup(path), **with_roots())
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"cgroup" in done.stderr
    assert list(world.sockets.iterdir()) == []
    assert not (bundle / "shim.pid").exists()


def test_core_scheduling_is_done_or_refused(world: World) -> None:
    """SCHED_CORE is never ignored: a kernel that cannot do it stops the start."""
    done = world.run("start", bundle=world.bundle(), SCHED_CORE="1")
    if done.returncode == 0:
        assert ask(world.path())["listening"] == 1
    else:
        assert b"SCHED_CORE is set, but core scheduling is not possible" in done.stderr
        assert list(world.sockets.iterdir()) == []


REFUSE_CORES = """
import trioshim.bootstrap._start as module
def refuse():
    raise OSError("no cores here")
module._share_core = refuse
"""


@pytest.mark.parametrize(("wish", "status"), [("", 0), ("1", 1)])
def test_core_scheduling_is_only_done_on_request(world: World, wish: str, status: int) -> None:
    """Without SCHED_CORE it does not matter that the kernel would refuse."""
    done = world.run("start", bundle=world.bundle(), SCHED_CORE=wish, PRELUDE=REFUSE_CORES)
    assert done.returncode == status
    assert (b"no cores here" in done.stderr) is bool(status)
