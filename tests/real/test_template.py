"""A shim from a template is the shim that `start` would have spawned; nobody needs a template."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

import trioshim

from .likeness import assert_alike, fds, read
from .poll import eventually
from .shell_world import open_shell_world
from .template_world import TemplateWorld, open_template_world, socket_of, stop, was_forked
from .verb_world import end, needs_root

pytestmark = needs_root


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TemplateWorld]:
    """A world without a template."""
    with open_template_world(tmp_path) as world:
        yield world


@pytest.fixture(params=["Python", "shell"])
def either(
    tmp_path: Path, compiled_package: Path, request: pytest.FixtureRequest
) -> Iterator[TemplateWorld]:
    """The same, in which Python asks the template, or the executable's shell does."""
    if request.param == "shell":
        with open_shell_world(tmp_path, compiled_package) as world:
            yield world
    else:
        with open_template_world(tmp_path) as other:
            yield other


# ---------------------------------------------------------------- alike


def test_a_forked_shim_is_like_a_spawned_one(either: TemplateWorld) -> None:
    """All that /proc tells, field by field: limits, signals, session, environment, files."""
    world = either
    world.template()
    forked, spawned = world.start("two"), world.start("six", template="off")
    assert (was_forked(forked), was_forked(spawned)) == (True, False)
    assert_alike(forked, spawned)


@pytest.mark.parametrize(
    "wrapper",
    [
        ("prlimit", "--nofile=512:1024", "--core=0"),
        ("sh", "-c", 'umask 077; "$@"', "sh"),
        ("sh", "-c", 'echo 300 > /proc/self/oom_score_adj; "$@"', "sh"),
        ("env", "EXTRA=1", "TZ=Asia/Tokyo"),
    ],
    ids=["limits", "umask", "score", "environment"],
)
def test_what_start_has_its_shim_has(either: TemplateWorld, wrapper: tuple[str, ...]) -> None:
    """The daemon's limits, mask, score and environment are the shim's, not the template's."""
    world = either
    world.template()
    forked, spawned = world.start("two", *wrapper), world.start("six", *wrapper, template="off")
    assert (was_forked(forked), was_forked(spawned)) == (True, False)
    assert_alike(forked, spawned)


@pytest.mark.parametrize(
    "wrapper",
    [
        ("unshare", "--mount"),
        ("unshare", "--net"),
        ("nice", "-n", "5"),
        ("taskset", "1"),
        ("env", "-u", "LC_ALL", "MALLOC_ARENA_MAX=7"),
        ("sh", "-c", 'trap "" USR2; exec "$@"', "sh"),
        ("setpriv", "--no-new-privs"),
        ("setpriv", "--bounding-set", "-sys_time"),
    ],
    ids=lambda words: words[0] + words[-1][-5:],
)
def test_what_cannot_be_made_alike_is_spawned(
    either: TemplateWorld, wrapper: tuple[str, ...]
) -> None:
    """Namespaces, priority, early variables, ignored signals, privileges: then no fork."""
    world = either
    world.template()
    assert not was_forked(world.start("two", *wrapper))
    assert was_forked(world.start("three"))


def test_the_parent_is_who_adopts_orphans_of_start(either: TemplateWorld) -> None:
    """Below another subreaper than the template's, `start` spawns."""
    world = either
    world.template()
    subreaper = (
        "import ctypes, subprocess, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0);"
        "done = subprocess.run(sys.argv[1:], check=False); sys.exit(done.returncode)"
    )
    assert not was_forked(world.start("two", sys.executable, "-c", subreaper))


# ---------------------------------------------------------------- the template itself


def files(pid: int) -> set[bytes]:
    return {name for name in fds(pid) if name.startswith(b"/")}


def test_it_holds_nothing_of_the_first_caller(world: TemplateWorld) -> None:
    """Neither directory nor environment, and no file but its own."""
    pid = world.template()
    own = {b"/dev/null", bytes(next(world.directory.glob("*.lock")))}
    for process in (pid, *world.processes("trioshim-spare")):
        assert os.readlink(f"/proc/{process}/cwd") == "/"
        assert read(process, "environ") == b""
        # A spare rehearses before it waits.
        eventually(lambda pid=process: files(pid) <= own, "no file but its own")
        assert os.getpgid(process) != os.getpgid(0)
    assert socket_of(world).stat().st_mode & 0o777 == 0o600
    assert world.directory.stat().st_mode & 0o777 == 0o700


def test_many_starts_make_one_template(world: TemplateWorld) -> None:
    """Twenty at once, with none there: each has its shim, and there is one template."""
    commands = [world.command(f"c{number}") for number in range(20)]
    starts = [
        subprocess.Popen(
            argv, cwd=bundle, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        for argv, bundle, environ in commands
    ]
    answers = {start.communicate(timeout=60)[0] for start in starts}
    assert len(answers) == 20
    world.ready()
    pids = [int((bundle / "shim.pid").read_text()) for _, bundle, _ in commands]
    assert len(set(pids)) == 20


def test_a_burst_is_served_by_one_template(either: TemplateWorld) -> None:
    """Twenty at once, with one there: forked or spawned, each has its own shim."""
    world = either
    world.template()
    commands = [world.command(f"c{number}") for number in range(20)]
    starts = [
        subprocess.Popen(
            argv, cwd=bundle, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        for argv, bundle, environ in commands
    ]
    assert len({start.communicate(timeout=60)[0] for start in starts}) == 20
    pids = [int((bundle / "shim.pid").read_text()) for _, bundle, _ in commands]
    assert len(set(pids)) == 20
    assert sum(map(was_forked, pids)) >= 5


@pytest.mark.parametrize("kind", ["trioshim-template", "trioshim-spare"])
def test_to_kill_it_harms_nobody(either: TemplateWorld, kind: str) -> None:
    """Shims live on, the next container starts, and soon there is a new one."""
    world = either
    world.template()
    shim = world.start("two")
    for pid in world.processes(kind):
        end(pid)
    world.start("three")
    eventually(lambda: len(world.processes("trioshim-spare")) == 1, "a new spare")
    assert was_forked(world.start("four"))
    os.kill(shim, 0)


def test_a_template_that_hangs_is_left_alone(world: TemplateWorld) -> None:
    """Its spare too: one `start` waits for a second, and no other."""
    pids = [world.template(), *world.processes("trioshim-spare")]
    for pid in pids:
        stop(pid)
    assert not was_forked(world.start("two"))
    assert not list(world.directory.glob("*.sock"))
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: not world.processes(), "it to see that nobody wants it")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_leaves_nothing(world: TemplateWorld, signum: int) -> None:
    """Socket, lock and spare go with it."""
    os.kill(world.template(), signum)
    eventually(lambda: not world.processes(), "its end")
    eventually(lambda: not world.processes("trioshim-spare"), "the spare's end")
    assert world.files() == set()


def test_it_ends_when_nobody_asks(world: TemplateWorld) -> None:
    """Shims that live do not count."""
    world.idle = 1
    world.template()
    shim = world.start("two")
    eventually(lambda: not world.processes(), "its end")
    assert world.files() == set()
    os.kill(shim, 0)


def test_a_start_that_goes_away_leaves_no_shim(world: TemplateWorld) -> None:
    """A connection without a word: the spare ends, and there is another."""
    world.template()
    eventually(lambda: len(world.processes("trioshim-spare")) == 1, "one spare")
    (spare,) = world.processes("trioshim-spare")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(socket_of(world)))
    eventually(lambda: not Path(f"/proc/{spare}").exists(), "the spare's end")
    eventually(lambda: world.processes("trioshim-spare"), "another one")


def test_new_code_makes_a_new_template(world: TemplateWorld, tmp_path: Path) -> None:
    """A file of ours that is written anew: no shim of the old code is made from then on."""
    place = tmp_path / "venv"
    venv.create(place, symlinks=True)
    packages = next(place.glob("lib/python*/site-packages"))
    (packages / "others.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    package = Path(trioshim.__file__).parent
    subprocess.run(["cp", "-r", str(package), str(packages)], check=True)
    world.python = str(place / "bin/python3")
    world.world.root.joinpath("x").write_text("")
    old = world.template()
    shim_module = packages / "trioshim" / "shim.py"
    shim_module.write_text(shim_module.read_text() + "\n# new\n")
    assert not was_forked(world.start("two"))
    eventually(lambda: old not in world.processes(), "the old one's end")
    world.start("three")
    eventually(lambda: world.processes("trioshim-spare"), "a new one")
    assert was_forked(world.start("four"))


def test_off_is_off(world: TemplateWorld) -> None:
    """No template is asked, and none is made."""
    assert not was_forked(world.start("two", template="off"))
    assert not world.directory.exists()
