"""Mounts as containerd writes them: words to flags, long overlays, targets inside a rootfs."""

from __future__ import annotations

import errno

import pytest

from trioshim.abc import Mount
from trioshim.linux import _mount_options as options
from trioshim.linux._mount_options import parse_options, plan_mount, share_lowerdirs
from trioshim.linux._mounts import canonical, resolve_below

PAGE = 4096


def overlay(layers: int, prefix: str = "/var/lib/containerd/snapshots") -> Mount:
    """An overlay mount with so many lower layers."""
    lower = ":".join(f"{prefix}/{number}/fs" for number in range(layers))
    words = ("workdir=/w/work", "upperdir=/w/fs", f"lowerdir={lower}")
    return Mount("overlay", "overlay", options=words)


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ((), 0),
        (("defaults",), 0),
        (("ro", "nosuid", "nodev", "noexec"), 0x1 | 0x2 | 0x4 | 0x8),
        (("rbind",), options.MS_BIND | options.MS_REC),
        (("ro", "rw"), 0),
        (("rw", "ro"), options.MS_RDONLY),
        (("sync", "noatime", "async", "atime"), 0),
        (("relatime", "norelatime", "strictatime"), options.MS_STRICTATIME),
        (("dirsync", "mand", "nomand", "remount"), options.MS_DIRSYNC | options.MS_REMOUNT),
    ],
)
def test_the_last_of_contradicting_words_counts(words: tuple[str, ...], flags: int) -> None:
    """Flag words set or clear bits in the order in which they come."""
    assert parse_options(words) == options.MountOptions(flags, 0, "")


def test_words_that_are_no_flags_go_to_the_file_system() -> None:
    """What the table does not know is joined by commas, in order."""
    assert parse_options(("size=1m", "ro", "mode=755")).data == "size=1m,mode=755"


def test_propagation_is_kept_apart_from_the_flags() -> None:
    """The kernel refuses a propagation flag in the call that makes the mount."""
    parsed = parse_options(("rbind", "rslave"))
    assert parsed.flags == options.MS_BIND | options.MS_REC
    assert parsed.propagation == options.MS_SLAVE | options.MS_REC


@pytest.mark.parametrize("word", ["uidmap=0:1000:1", "gidmap=0:1000:1"])
def test_an_id_mapped_mount_is_refused_by_name(word: str) -> None:
    """Passed on as data it would be an EINVAL that explains nothing."""
    with pytest.raises(OSError, match=r"id-mapped mounts are not supported \(" + word) as caught:
        parse_options(("ro", word))
    assert caught.value.errno == errno.EOPNOTSUPP


def test_text_that_the_kernel_would_cut_is_an_error() -> None:
    """The page holds the options and a NUL; one byte more is refused, not shortened."""
    fits = Mount("tmpfs", "tmpfs", options=("x" * (PAGE - 1),))
    assert len(plan_mount(fits, PAGE).options.data) == PAGE - 1
    with pytest.raises(OSError, match="mount options is too long"):
        plan_mount(Mount("tmpfs", "tmpfs", options=("x" * PAGE,)), PAGE)


def test_a_short_overlay_is_left_as_it_is() -> None:
    """Whole paths are clearer in mountinfo, so only what would not fit is shortened."""
    plan = plan_mount(overlay(3), PAGE)
    assert plan.cwd == ""
    assert "lowerdir=/var/lib/containerd/snapshots/0/fs:" in plan.options.data


def test_a_long_overlay_names_its_layers_from_their_directory() -> None:
    """With 128 layers the paths alone are more than a page; relative ones fit."""
    plan = plan_mount(overlay(128), PAGE)
    assert plan.cwd == "/var/lib/containerd/snapshots"
    assert plan.options.data.startswith("workdir=/w/work,upperdir=/w/fs,lowerdir=0/fs:1/fs:")
    assert len(plan.options.data) < PAGE


def test_an_overlay_too_long_even_so_is_an_error() -> None:
    """Shortening is no way around the limit."""
    with pytest.raises(OSError, match="mount options is too long"):
        plan_mount(overlay(2000), PAGE)


@pytest.mark.parametrize(
    "lower",
    [
        "/a/one",  # one layer shares nothing
        "/a/one:/b/two",  # only / is shared
        "/a/one:b/two",  # relative already
        r"/a/o\:/a/ne:/a/two",  # an escaped colon is no separator
        "/a/one::/a/data",  # data-only layers
        "/a/one:/a/x/../two",  # `..` behind a symlink is not what it seems
        "/a:/a/two",  # the shared directory is itself a layer
    ],
)
def test_layers_that_cannot_be_shortened_safely_stay(lower: str) -> None:
    """Whatever is not plainly a list of paths in one directory is passed on untouched."""
    words = ("index=off", f"lowerdir={lower}")
    assert share_lowerdirs(words) == ("", words)


@pytest.mark.parametrize("words", [("index=off",), ("lowerdir=/a/b:/a/c", "lowerdir=/a/d:/a/e")])
def test_without_one_list_of_layers_nothing_is_shortened(words: tuple[str, ...]) -> None:
    """No list, or two of them: the file system has to say what it thinks of that."""
    assert share_lowerdirs(words) == ("", words)


@pytest.mark.parametrize(
    ("link", "target", "inside"),
    [
        ("data", "data/sub", "data/sub"),
        ("data", "../../etc", "etc"),
        ("data", "/data/./x/..", "data"),
        ("/etc", "a/link/passwd", "etc/passwd"),
        ("../../../etc", "a/link", "etc"),
        ("data", "a/link/x", "a/data/x"),
    ],
)
def test_a_target_never_leaves_the_rootfs(tmp_path, link: str, target: str, inside: str) -> None:
    """Symlinks of an image mean what they would mean after a chroot."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to(link)
    assert resolve_below(str(tmp_path), target) == f"{tmp_path}/{inside}"


def test_a_circle_of_symlinks_is_an_error(tmp_path) -> None:
    """It ends with ELOOP, as the kernel's own look-up would."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links") as caught:
        resolve_below(str(tmp_path), "a")
    assert caught.value.errno == errno.ELOOP


def test_a_mount_point_has_one_name(tmp_path) -> None:
    """mountinfo knows no symlinks, so /var/run/x must be looked up as /run/x."""
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    assert canonical(f"{tmp_path}/alias/rootfs/") == f"{tmp_path}/real/rootfs"


@pytest.mark.parametrize("path", ["/", "//", "/tmp/..", "/tmp/."])
def test_the_root_of_the_machine_is_no_rootfs(path: str) -> None:
    """Unmounting everything below it would be the end of the host."""
    with pytest.raises(OSError, match="not a path that a rootfs can have"):
        canonical(path)
