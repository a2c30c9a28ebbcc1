"""Mounts and system call filters of containers: docker's words, safe paths, no conditions left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from trioshim._specs import Mount
from trioshim.containers._mounts import (
    Bind,
    Tmpfs,
    host_root_mounts,
    host_root_tmpfs,
    overlay_mount,
    parse_mount,
)
from trioshim.containers._seccomp import DISTRIBUTION_PROFILE, read_profile, to_oci
from trioshim.containers._spec import oci_config


def config(*args: str, **options: Any) -> Any:
    return oci_config(args or ["sh"], seccomp="", **options)


def destinations(made: Any) -> list[str]:
    return [mount["destination"] for mount in made["mounts"]]


def test_a_mount_is_written_as_dockers(tmp_path: Path) -> None:
    """source:target, with :ro or :rw."""
    assert parse_mount("/a:/b") == Bind("/a", "/b")
    assert parse_mount("/a:/b:rw") == Bind("/a", "/b")
    assert parse_mount("/a:/b:ro") == Bind("/a", "/b", read_only=True)
    made = config(mounts=[f"{tmp_path}:/data:ro", Tmpfs("/cache", "1m")])
    found = {mount["destination"]: mount for mount in made["mounts"]}
    assert found["/data"]["source"] == str(tmp_path)
    assert found["/data"]["options"] == ["rbind", "rprivate", "ro"]
    assert found["/cache"]["options"] == ["nosuid", "nodev", "mode=1777", "size=1048576"]


def test_what_lies_deeper_is_mounted_later(tmp_path: Path) -> None:
    """Or it would be hidden by what lies above it."""
    made = config(network="host", mounts=[f"{tmp_path}:/dev/x/y", Tmpfs("/etc"), Tmpfs("/run")])
    order = destinations(made)
    assert order.index("/dev") < order.index("/dev/shm") < order.index("/dev/x/y")
    assert order.index("/etc") < order.index("/etc/hosts")


def test_a_mount_of_the_users_replaces_ours() -> None:
    """Somebody who wants a larger /dev/shm gets that one and no other."""
    made = config(mounts=[Tmpfs("/dev/shm", "1g")])
    assert destinations(made).count("/dev/shm") == 1
    (found,) = [mount for mount in made["mounts"] if mount["destination"] == "/dev/shm"]
    assert "size=1073741824" in found["options"]


def test_an_overlay_is_a_mount_of_the_shims() -> None:
    """Type, source and options are those that containerd's overlay snapshotter would send."""
    assert overlay_mount("/l", "/u", "/w/") == Mount(
        "overlay", "overlay", options=("lowerdir=/l", "upperdir=/u", "workdir=/w")
    )


@pytest.mark.parametrize("path", ["relative", "/a:b", "/a,b", "/a\\b"])
def test_paths_that_overlayfs_would_misread_are_refused(path: str) -> None:
    """A ":" would make two layers of one."""
    with pytest.raises(ValueError, match="lowerdir"):
        overlay_mount(path, "/u", "/w")


def test_the_hosts_root_brings_its_programs_and_nothing_else() -> None:
    """A /usr of its own is shown; /home, /proc and /run are not."""
    points = ("/", "/proc", "/usr", "/usr/local", "/home", "/run", "/usrlocal")
    mountinfo = "\n".join(f"1 1 0:1 / {point} rw - ext4 /dev/x rw" for point in points).encode()
    mounts = host_root_mounts(mountinfo)
    assert [(mount.source, mount.target) for mount in mounts] == [
        ("/", ""),
        ("/usr", "/usr"),
        ("/usr/local", "/usr/local"),
    ]
    # Not private, a mount below it would show on the host's own /.
    assert {mount.options for mount in mounts} == {("bind", "ro", "private")}


def test_the_hosts_sockets_are_hidden() -> None:
    """A read-only socket can be connected to, so /run is empty; /tmp is for everybody."""
    found = {tmpfs.target: tmpfs.mode for tmpfs in host_root_tmpfs()}
    assert found["/run"] == 0o755
    assert found["/tmp"] == 0o1777


# ---------------------------------------------------------------- seccomp

PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_S390X", "subArchitectures": None},
    ],
    "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "x"},
        {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {
            "names": ["bpf"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 1,
            "excludes": {"caps": ["CAP_SYS_ADMIN"]},
        },
        {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
    ],
}


def names_of(seccomp: Any) -> list[tuple[str, str]]:
    return [(rule["names"][0], rule["action"][9:]) for rule in seccomp["syscalls"]]


def test_conditions_of_a_profile_are_decided() -> None:
    """Capabilities, architecture and kernel choose the rules; runc gets no conditions."""
    plain = to_oci(PROFILE, [], machine="x86_64", kernel="4.10.1-amd64")
    assert names_of(plain) == [
        ("read", "ALLOW"),
        ("bpf", "ERRNO"),
        ("arch_prctl", "ALLOW"),
        ("ptrace", "ALLOW"),
    ]
    assert plain["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert (plain["defaultAction"], plain["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 38)
    admin = to_oci(PROFILE, ["CAP_SYS_ADMIN"], machine="s390x", kernel="4.4")
    assert names_of(admin) == [("read", "ALLOW"), ("bpf", "ALLOW")]
    assert admin["architectures"] == ["SCMP_ARCH_S390X"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"defaultAction": "x", "syscalls": [1]}'])
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, text: str) -> None:
    """The error names the file; a container is never started without the filter that was asked."""
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"profile\.json cannot be used"):
        read_profile(str(path), [])


@pytest.mark.skipif(
    not os.path.exists(DISTRIBUTION_PROFILE),
    reason=f"no {DISTRIBUTION_PROFILE}: install golang-github-containers-common",
)
def test_the_distributions_profile_is_the_default() -> None:
    """Where it is installed, containers get it."""
    seccomp: Any = oci_config(["sh"])["linux"]
    assert seccomp["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert len(seccomp["seccomp"]["syscalls"]) > 5
