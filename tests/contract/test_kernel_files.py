"""Files and mounts of the real kernel."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from trioshim._mountinfo import mounts_below
from trioshim.abc import Mount
from trioshim.linux import LinuxKernel, _libc

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
MNT_DETACH = 2
MS_MOVE = 0x2000
TMPFS = Mount("tmpfs", "tmpfs", options=("size=64k",))


@pytest.fixture
def kernel() -> LinuxKernel:
    return LinuxKernel()


@pytest.fixture
def rootfs(tmp_path: Path) -> Iterator[Path]:
    """A directory whose mounts, if a test leaves any, are taken away."""
    path = tmp_path / "rootfs"
    path.mkdir()
    yield path
    # Detached from the outside in, each takes along what is below it, hidden or not.
    while left := mounted(tmp_path):
        _libc.umount2(min(left, key=len), MNT_DETACH)


def mountinfo() -> bytes:
    return Path("/proc/self/mountinfo").read_bytes()


def mounted(path: Path) -> list[str]:
    """The mount points on and below a path, topmost first."""
    return mounts_below(mountinfo(), str(path.resolve()))


# ---------------------------------------------------------------- files


def test_a_file_is_written_for_its_owner_only(kernel, tmp_path) -> None:
    """Mode 0600, and no other file is left beside it."""
    kernel.write_file(f"{tmp_path}/pid", b"1")
    assert (tmp_path / "pid").read_bytes() == b"1"
    assert stat.S_IMODE((tmp_path / "pid").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["pid"]


def test_a_symlink_is_replaced_not_followed(kernel, tmp_path) -> None:
    """Whoever can plant a symlink in a bundle cannot have another file overwritten."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "pid").symlink_to("victim")
    kernel.write_file(f"{tmp_path}/pid", b"1")
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "pid").is_symlink()


def test_a_file_that_cannot_be_moved_into_place_leaves_nothing(kernel, tmp_path) -> None:
    """The temporary file goes when the last step fails."""
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError):
        kernel.write_file(f"{tmp_path}/taken", b"1")
    assert os.listdir(tmp_path) == ["taken"]


@needs_root
async def test_a_full_disk_leaves_the_old_file(kernel, rootfs) -> None:
    """Whole or not at all: what was there is still there, and nothing else."""
    await kernel.mount([TMPFS], str(rootfs))
    kernel.write_file(f"{rootfs}/exit", b"old")
    with pytest.raises(OSError, match="No space left") as caught:
        kernel.write_file(f"{rootfs}/exit", b"new" * 100_000)
    assert caught.value.errno == errno.ENOSPC
    assert (rootfs / "exit").read_bytes() == b"old"
    assert os.listdir(rootfs) == ["exit"]


def test_a_directory_is_made_once(kernel, tmp_path) -> None:
    """Again: nothing to do; but a file of that name is an error."""
    kernel.make_directory(f"{tmp_path}/rootfs", 0o711)
    kernel.make_directory(f"{tmp_path}/rootfs", 0o711)
    assert stat.S_IMODE((tmp_path / "rootfs").stat().st_mode) == 0o711
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        kernel.make_directory(f"{tmp_path}/file", 0o711)


# ---------------------------------------------------------------- mounts


@needs_root
async def test_layers_are_mounted_in_order_and_all_unmounted(kernel, rootfs) -> None:
    """Two on one point and one below it: three mounts, and none after."""
    await kernel.mount([TMPFS, TMPFS], str(rootfs))
    (rootfs / "a b\\c").mkdir()
    await kernel.mount([Mount("tmpfs", "x", target="a b\\c")], str(rootfs))
    assert mounted(rootfs) == [f"{rootfs}/a b\\c", str(rootfs), str(rootfs)]
    await kernel.unmount(str(rootfs))
    assert mounted(rootfs) == []


@needs_root
async def test_a_mount_hidden_below_another_is_unmounted(kernel, rootfs) -> None:
    """The one below can be reached only after the one above has gone."""
    (rootfs / "sub").mkdir()
    await kernel.mount([Mount("tmpfs", "x", target="sub"), TMPFS], str(rootfs))
    await kernel.unmount(str(rootfs))
    assert mounted(rootfs) == []


@needs_root
async def test_a_mount_hidden_below_an_older_one_is_unmounted(kernel, rootfs) -> None:
    """Moved on top later, so mountinfo lists it first: one pass is not enough."""
    await kernel.mount([Mount("tmpfs", "x", options=("rprivate",))], str(rootfs))
    older, point = rootfs / "older", rootfs / "point"
    older.mkdir()
    await kernel.mount([Mount("tmpfs", "x", target="older")], str(rootfs))
    for path in (older / "sub", point, point / "sub"):
        path.mkdir()
    await kernel.mount([Mount("tmpfs", "x", target="point/sub")], str(rootfs))
    _libc.mount(str(older), str(point), "", MS_MOVE, "")
    await kernel.unmount(str(point))
    assert mounted(rootfs) == [str(rootfs)]


async def test_nothing_to_unmount_is_no_error(kernel, tmp_path) -> None:
    """A path that is no mount point, not there, or empty."""
    for target in (str(tmp_path), f"{tmp_path}/none/rootfs", ""):
        await kernel.unmount(target)


@needs_root
async def test_unmounting_follows_no_symlink(kernel, rootfs) -> None:
    """A symlink in the place of a rootfs does not lead to somebody else's mount."""
    await kernel.mount([TMPFS], str(rootfs))
    link = rootfs.parent / "link"
    link.symlink_to(rootfs)
    await kernel.unmount(str(link))
    assert mounted(rootfs) == [str(rootfs)]
    with pytest.raises(OSError, match="must be a directory, not a symlink"):
        await kernel.mount([TMPFS], str(link))


@needs_root
async def test_a_failed_mount_takes_the_earlier_ones_with_it(kernel, rootfs) -> None:
    """The error names the component; no mount is left, though a bind brought one below it."""
    source = rootfs.parent / "source"
    (source / "below").mkdir(parents=True)
    await kernel.mount([Mount("tmpfs", "x", target="below")], str(source))
    mounts = [TMPFS, Mount("bind", str(source), options=("rbind",)), Mount("nofs", "src")]
    with pytest.raises(OSError, match="No such device") as caught:
        await kernel.mount(mounts, str(rootfs))
    assert str(caught.value).startswith("failed to mount rootfs component nofs 'src' on ")
    assert caught.value.errno == errno.ENODEV
    assert mounted(rootfs) == []
    await kernel.unmount(str(source))


@needs_root
@pytest.mark.parametrize(
    ("mount", "why"),
    [
        (Mount("tmpfs", "x", options=("uidmap=0:1:1",)), "id-mapped mounts are not supported"),
        (Mount("tmpfs", "x", options=("x" * 5000,)), "mount options is too long"),
        (Mount("tmpfs", "x\0y"), "NUL byte"),
        (Mount("tmpfs", "x", target="a\0b"), "null byte"),
        (Mount("tmpfs", "x", target="none"), "No such file or directory"),
    ],
)
async def test_what_cannot_be_mounted_says_why(kernel, rootfs, mount, why) -> None:
    """Each is an OSError in containerd's words, with the reason behind them."""
    with pytest.raises(OSError, match="^failed to mount rootfs component .*" + why):
        await kernel.mount([TMPFS, mount], str(rootfs))
    assert mounted(rootfs) == []


@needs_root
async def test_a_readonly_bind_is_readonly(kernel, rootfs) -> None:
    """The kernel needs a second call for it, and a third for the propagation."""
    source = rootfs.parent / "source"
    source.mkdir()
    await kernel.mount([Mount("", str(source), options=("rbind", "ro", "rslave"))], str(rootfs))
    with pytest.raises(OSError, match="Read-only file system"):
        (rootfs / "file").touch()
    (source / "file").touch()
    await kernel.unmount(str(rootfs))


@needs_root
async def test_propagation_is_set(kernel, rootfs) -> None:
    """A word of its own call: the mount is in a peer group afterwards."""
    await kernel.mount([Mount("tmpfs", "x", options=("rshared",))], str(rootfs))
    lines = mountinfo().decode().splitlines()
    assert [" shared:" in line for line in lines if f" {rootfs} " in line] == [True]
    await kernel.unmount(str(rootfs))


@needs_root
async def test_an_overlay_of_many_layers_fits(kernel, rootfs) -> None:
    """Their paths are more than a page; our own working directory stays where it was."""
    store = rootfs.parent / ("long" * 20)
    layers = [store / f"{number}" / "fs" for number in range(60)]
    for number, layer in enumerate(layers):
        layer.mkdir(parents=True)
        (layer / f"from-{number}").touch()
    for name in ("upper", "work"):
        (store / name).mkdir()
    options = (
        f"workdir={store}/work",
        f"upperdir={store}/upper",
        "lowerdir=" + ":".join(map(str, layers)),
    )
    assert len(",".join(options)) > 4096
    cwd = os.getcwd()
    await kernel.mount([Mount("overlay", "overlay", options=options)], str(rootfs))
    assert sorted(os.listdir(rootfs)) == sorted(f"from-{number}" for number in range(60))
    assert os.getcwd() == cwd
    await kernel.unmount(str(rootfs))


@needs_root
async def test_a_symlink_of_the_image_does_not_lead_out(kernel, rootfs) -> None:
    """An absolute symlink inside the rootfs means a place inside the rootfs."""
    outside = rootfs.parent / "outside"
    outside.mkdir()
    inside = f"{rootfs}{outside}"
    os.makedirs(inside)
    (rootfs / "link").symlink_to(outside)
    await kernel.mount([Mount("tmpfs", "x", target="link")], str(rootfs))
    assert mounted(outside) == []
    assert mounted(rootfs) == [inside]
    await kernel.unmount(str(rootfs))


@needs_root
async def test_a_busy_mount_is_tried_again(kernel, rootfs, autojump_clock) -> None:
    """Somebody lets go of it within 2.5 seconds: it is unmounted."""
    await kernel.mount([TMPFS], str(rootfs))
    fd = os.open(rootfs, os.O_RDONLY)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kernel.unmount, str(rootfs))
        await trio.sleep(1)
        os.close(fd)
    assert mounted(rootfs) == []


@needs_root
async def test_a_mount_busy_for_long_is_named(kernel, rootfs, autojump_clock) -> None:
    """After 50 tries the error says which mount; those beside it are gone."""
    await kernel.mount([TMPFS], str(rootfs))
    for name in ("busy", "idle"):
        (rootfs / name).mkdir()
        await kernel.mount([Mount("tmpfs", "x", target=name)], str(rootfs))
    fd = os.open(rootfs / "busy", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="busy") as caught:
            await kernel.unmount(str(rootfs))
    finally:
        os.close(fd)
    assert (caught.value.errno, caught.value.filename) == (errno.EBUSY, f"{rootfs}/busy")
    assert trio.current_time() == pytest.approx(49 * 0.05)
    assert mounted(rootfs) == [f"{rootfs}/busy", str(rootfs)]
    await kernel.unmount(str(rootfs))


@needs_root
async def test_a_cancelled_mount_is_not_half_made(kernel, rootfs) -> None:
    """Cancelled before it begins: nothing is mounted; once begun it is finished."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await kernel.mount([TMPFS, TMPFS], str(rootfs))
    assert scope.cancelled_caught
    assert mounted(rootfs) == []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kernel.mount, [TMPFS, TMPFS], str(rootfs))
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert len(mounted(rootfs)) in (0, 2)
    await kernel.unmount(str(rootfs))
