"""Where bundles live: each belongs to one program, and to nobody once that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trio

from trioshim._mountinfo import mounts_below
from trioshim.bootstrap import check_identifier
from trioshim.containers import _locks, _store
from trioshim.containers._store import Bundle, find_leftovers, make_bundle, open_bundle
from trioshim.errors import AlreadyExistsError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="not root: nothing can be mounted")

# Makes a bundle, says so, and holds it until it is killed.
HOLD = """
import sys, time
from trioshim.containers._store import make_bundle
bundle = make_bundle(sys.argv[2] or None, state_dir=sys.argv[1])
print(bundle.id, flush=True)
time.sleep(600)
"""
# When told to start: cleans up, and says what it got.
CLEAN = """
import sys, trio
from trioshim.containers._store import find_leftovers
print("ready", flush=True)
sys.stdin.readline()
found = find_leftovers(state_dir=sys.argv[1])
print(*(bundle.id for bundle in found), flush=True)
async def remove():
    for bundle in found:
        await bundle.remove()
trio.run(remove)
"""
# Makes many bundles, one after the other, looks at each and removes it.
CHURN = """
import sys, trio
from trioshim.containers._store import open_bundle
async def main():
    for _ in range(200):
        async with open_bundle(state_dir=sys.argv[1]) as bundle:
            assert sorted(path.name for path in bundle.path.iterdir()) == [".owner", "rootfs"]
trio.run(main)
"""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "state"
    for point in mounts_below(_store._mountinfo(), str(tmp_path)):  # after a failure
        subprocess.run(["umount", "--lazy", point], check=True)


def everything(state: Path) -> list[str]:
    home = state / "default"
    return sorted(os.listdir(home)) if home.exists() else []


@contextmanager
def program(text: str, *args: str | Path) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", text, *map(str, args)]
    with subprocess.Popen(argv, stdin=-1, stdout=-1, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def leave_bundle(state: Path, name: str = "") -> str:
    """Have a program make a bundle, and kill it."""
    with program(HOLD, state, name) as process:
        name = line(process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    return name


def release_all(bundles: list[Bundle]) -> list[str]:
    for bundle in bundles:
        bundle.release()
    return [bundle.id for bundle in bundles]


# ---------------------------------------------------------------- one program


async def test_a_bundle_is_there_for_the_block(state: Path) -> None:
    """A private directory with a rootfs; afterwards nothing."""
    async with open_bundle("box", state_dir=state) as bundle:
        assert (bundle.id, bundle.path) == ("box", state / "default" / "box")
        assert bundle.path.stat().st_mode & 0o777 == 0o700
        assert (bundle.path / "rootfs").is_dir()
        (bundle.path / "upper").mkdir()
        (bundle.path / "upper" / "file").write_text("x")
    assert everything(state) == []


async def test_a_block_that_fails_or_is_cancelled_leaves_nothing(state: Path) -> None:
    """However it ends."""
    with pytest.raises(KeyError, match="x"):
        async with open_bundle(state_dir=state):
            raise KeyError("x")
    with trio.CancelScope() as scope:
        async with open_bundle(state_dir=state):
            scope.cancel()
            await trio.sleep_forever()
    assert everything(state) == []


async def test_ids_are_made_if_none_is_given(state: Path) -> None:
    """They are valid, and no two are the same."""
    made = [make_bundle(state_dir=state) for _ in range(20)]
    for bundle in made:
        check_identifier(bundle.id)
    assert everything(state) == sorted({bundle.id for bundle in made})
    for bundle in made:
        await bundle.remove()


def test_an_id_that_is_made_is_never_somebody_elses(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If chance repeats itself another one is drawn."""
    drawn = iter(["a-1", "a-1", "a-2"])
    monkeypatch.setattr(_store, "_random_id", lambda: next(drawn))
    ids = release_all([make_bundle(state_dir=state), make_bundle(state_dir=state)])
    assert ids == ["a-1", "a-2"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".new-x", "-rf", "a" * 77, "a b"])
def test_a_name_that_is_no_identifier_is_refused(state: Path, name: str) -> None:
    """containerd's rule, for the id and for the namespace; nothing is made."""
    with pytest.raises(ValueError, match="container id"):
        make_bundle(name, state_dir=state)
    with pytest.raises(ValueError, match="namespace"):
        make_bundle("a", namespace=name, state_dir=state)
    with pytest.raises(ValueError, match="namespace"):
        find_leftovers(namespace=name, state_dir=state)
    assert not state.exists()


async def test_an_id_in_use_is_refused(state: Path) -> None:
    """The error says by whom; the bundle is untouched.  In another namespace the id is free."""
    async with open_bundle("box", state_dir=state) as bundle:
        inode = bundle.path.stat().st_ino
        with pytest.raises(AlreadyExistsError, match=f"box is in use .*process {os.getpid()}"):
            make_bundle("box", state_dir=state)
        assert bundle.path.stat().st_ino == inode
        assert everything(state) == ["box"]
        async with open_bundle("box", namespace="other", state_dir=state):
            pass


async def test_a_bundle_that_is_held_is_no_leftover(state: Path) -> None:
    """Not even for the program that holds it."""
    async with open_bundle("box", state_dir=state) as bundle:
        assert find_leftovers(state_dir=state) == []
        bundle.release()
        assert release_all(find_leftovers(state_dir=state)) == ["box"]
        with pytest.raises(FileNotFoundError, match="not ours"):
            await bundle.remove()


def test_no_directory_means_no_leftovers(state: Path) -> None:
    """Nothing has ever run here."""
    assert find_leftovers(state_dir=state) == []
    assert not state.exists()


def test_a_place_that_others_can_write_to_is_refused(state: Path) -> None:
    """What lies in a bundle is run as root."""
    (state / "default").mkdir(parents=True)
    (state / "default").chmod(0o777)
    with pytest.raises(PermissionError, match="others could write here"):
        make_bundle(state_dir=state)


def test_what_is_no_bundle_is_left_alone(state: Path) -> None:
    """Files, fifos and symlinks are not ours."""
    home = state / "default"
    home.mkdir(parents=True)
    (home / "file").touch()
    os.mkfifo(home / "fifo")
    (home / "link").symlink_to("/tmp")
    assert find_leftovers(state_dir=state) == []
    assert everything(state) == ["fifo", "file", "link"]


@needs_root
async def test_what_is_still_mounted_is_unmounted_first(state: Path, tmp_path: Path) -> None:
    """Every layer, and a busy one too; what was seen there stays whole."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    async with open_bundle(state_dir=state) as bundle:
        rootfs = bundle.path / "rootfs"
        for _ in range(2):
            await trio.run_process(["mount", "--bind", str(precious), str(rootfs)])
        busy = os.open(rootfs, os.O_RDONLY)
    os.close(busy)
    assert (precious / "file").read_text() == "x"
    assert everything(state) == []
    assert str(state).encode() not in _store._mountinfo()


async def test_what_cannot_be_unmounted_is_not_removed(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a mount the host's files would be removed: the bundle stays, and stays ours."""
    bundle = make_bundle("box", state_dir=state)
    mounted = f"1 1 0:1 / {bundle.path}/rootfs rw - ext4 /dev/x rw".encode()
    with monkeypatch.context() as patch:
        patch.setattr(_store, "_mountinfo", lambda: mounted)
        with pytest.raises(OSError, match="cannot be unmounted"):  # it is none, in truth
            await bundle.remove()
        with pytest.raises(OSError, match="still mounted"):
            _store._remove_tree(str(bundle.path))
    assert everything(state) == ["box"]
    assert find_leftovers(state_dir=state) == []
    await bundle.remove()
    assert everything(state) == []


# ---------------------------------------------------------------- many programs


async def test_the_bundle_of_a_killed_program_is_found(state: Path) -> None:
    """By kill -9 too, the lock goes with the program; its id is free after the removal."""
    name = leave_bundle(state)
    (found,) = find_leftovers(state_dir=state)
    assert (found.id, found.path) == (name, state / "default" / name)
    assert find_leftovers(state_dir=state) == []  # it is ours now
    await found.remove()
    async with open_bundle(name, state_dir=state):
        pass


def test_the_bundle_of_a_living_program_is_not_touched(state: Path) -> None:
    """However often one cleans."""
    with program(HOLD, state, "box") as process:
        assert line(process) == "box"
        assert find_leftovers(state_dir=state) == []
        with pytest.raises(AlreadyExistsError, match=f"process {process.pid} made it"):
            make_bundle("box", state_dir=state)
    assert release_all(find_leftovers(state_dir=state)) == ["box"]


def test_an_id_left_over_is_refused_and_told(state: Path) -> None:
    """Something of it may still run: that is not for the next one of that id to find out."""
    leave_bundle(state, "box")
    with pytest.raises(AlreadyExistsError, match=r"left over by process \d+, which was killed"):
        make_bundle("box", state_dir=state)
    assert release_all(find_leftovers(state_dir=state)) == ["box"]


@pytest.mark.parametrize("name", [".new-0123", ".gone-box-0123"])
def test_what_was_left_half_way_is_removed(state: Path, name: str) -> None:
    """A program killed while it made or removed a bundle."""
    half = state / "default" / name
    half.mkdir(parents=True)
    (half / "rootfs").mkdir()
    assert find_leftovers(state_dir=state) == []
    assert everything(state) == []


def test_each_leftover_goes_to_one_of_many(state: Path) -> None:
    """Programs that clean up at once share them out: none twice, none forgotten."""
    with ExitStack() as stack:
        holders = [stack.enter_context(program(HOLD, state, f"box-{n}")) for n in range(8)]
        names = sorted(line(process) for process in holders)
    with ExitStack() as stack:
        cleaners = [stack.enter_context(program(CLEAN, state)) for _ in range(4)]
        assert [line(process) for process in cleaners] == ["ready"] * 4
        for process in cleaners:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        got = [name for process in cleaners for name in line(process).split()]
        assert [process.wait() for process in cleaners] == [0] * 4
    assert sorted(got) == names
    assert everything(state) == []


def test_who_makes_a_bundle_is_not_disturbed_by_who_cleans(state: Path) -> None:
    """A bundle has its lock before it has its name, so no cleaner takes it for a leftover."""
    found = []
    with ExitStack() as stack:
        makers = [stack.enter_context(program(CHURN, state)) for _ in range(2)]
        while any(process.poll() is None for process in makers):
            found += release_all(find_leftovers(state_dir=state))
        assert [process.returncode for process in makers] == [0] * 2
    assert found == []
    assert everything(state) == []


def test_a_lock_on_what_has_gone_meanwhile_is_none(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the lock another has removed it, and a third one has the name."""
    flock = _locks.fcntl.flock
    make_bundle("box", state_dir=state).release()

    def late_flock(fd: int, how: int) -> None:
        monkeypatch.undo()
        (state / "default" / "box").rename(state / "gone")
        make_bundle("box", state_dir=state).release()
        flock(fd, how)

    monkeypatch.setattr(_locks.fcntl, "flock", late_flock)
    assert _locks.try_lock(str(state / "default" / "box")) is None
