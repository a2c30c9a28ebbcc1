"""config.json for containers: safe by default, and clear about what it cannot be."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from trioshim.containers._checks import size_in_bytes
from trioshim.containers._mounts import Tmpfs
from trioshim.containers._spec import DEFAULT_CAPABILITIES, oci_config, oci_process
from trioshim.containers._users import User, resolve_user

PASSWD = """root:x:0:0:root:/root:/bin/sh
app:x:1000:1001::/home/app:/bin/sh
broken line
odd:x:many:1::/:/bin/sh
"""
GROUP = """root:x:0:
app:x:1001:
staff:x:50:app,root
audio:x:29:app
"""


@pytest.fixture
def rootfs(tmp_path: Path) -> str:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text(PASSWD)
    (tmp_path / "etc" / "group").write_text(GROUP)
    return str(tmp_path)


def config(*args: str, **options: Any) -> Any:
    return oci_config(args or ["sh"], seccomp="", **options)


def destinations(made: Any) -> list[str]:
    return [mount["destination"] for mount in made["mounts"]]


def env_of(process: Any) -> dict[str, str]:
    return dict(line.split("=", 1) for line in process["env"])


# ---------------------------------------------------------------- the defaults


def test_a_container_is_on_its_own() -> None:
    """Each kind of namespace is new, and joins nobody's."""
    namespaces = config(cgroup_v2=True)["linux"]["namespaces"]
    kinds = {"pid", "mount", "ipc", "uts", "network", "cgroup"}
    assert {entry["type"] for entry in namespaces} == kinds
    assert all(set(entry) == {"type"} for entry in namespaces)


def test_a_cgroup_namespace_only_where_cgroups_are_of_version_2() -> None:
    """With version 1 it would hide what the mount of /sys/fs/cgroup shows."""
    assert {"type": "cgroup"} not in config(cgroup_v2=False)["linux"]["namespaces"]


def test_the_network_of_the_host_is_taken_only_on_request() -> None:
    """And then the files that names are looked up with come along, read-only."""
    own, hosts = config(), config(network="host")
    assert {"type": "network"} in own["linux"]["namespaces"]
    assert {"type": "network"} not in hosts["linux"]["namespaces"]
    assert "/etc/hosts" not in destinations(own)
    found = {mount["destination"]: mount["options"] for mount in hosts["mounts"]}
    assert "ro" in found["/etc/hosts"]
    assert "/etc/resolv.conf" in found


def test_root_has_few_capabilities_and_others_none() -> None:
    """Others may still get those of a file; without inheritable ones, as the kernel's exec says."""
    root = config()["process"]["capabilities"]
    other = config(user="1000")["process"]["capabilities"]
    assert root["effective"] == root["permitted"] == root["bounding"]
    assert root["bounding"] == sorted(DEFAULT_CAPABILITIES)
    assert "CAP_SYS_ADMIN" not in root["bounding"]
    assert (other["effective"], other["permitted"]) == ([], [])
    assert other["bounding"] == root["bounding"]
    assert "inheritable" not in root


def test_dangerous_files_are_hidden_and_devices_denied() -> None:
    """Memory and keys of the kernel cannot be read, its settings not changed."""
    made = config()
    assert {"/proc/kcore", "/proc/keys", "/sys/firmware"} <= set(made["linux"]["maskedPaths"])
    assert {"/proc/sys", "/proc/sysrq-trigger"} <= set(made["linux"]["readonlyPaths"])
    assert made["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert made["process"]["noNewPrivileges"] is True
    options = {mount["destination"]: mount["options"] for mount in made["mounts"]}
    assert "ro" in options["/sys"]
    assert "ro" in options["/sys/fs/cgroup"]


def test_a_config_is_json_and_has_what_was_asked_for() -> None:
    """Every argument is found where OCI has it."""
    made = config(
        "echo",
        "hi",
        env={"A": "b=c"},
        cwd="/srv//x/",
        user="7:8",
        hostname="box",
        terminal=True,
        memory="64m",
        cpus=0.5,
        pids=10,
        read_only=True,
        cgroup_path="/a/b",
        rlimits={"nofile": (10, 20), "RLIMIT_CORE": 0},
    )
    assert json.loads(json.dumps(made)) == made
    process, linux = made["process"], made["linux"]
    assert (process["args"], process["cwd"], process["terminal"]) == (
        ["echo", "hi"],
        "/srv/x",
        True,
    )
    assert process["user"] == {"uid": 7, "gid": 8}
    assert {"A": "b=c", "HOSTNAME": "box", "TERM": "xterm"}.items() <= env_of(process).items()
    assert process["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    resources = linux["resources"]
    assert resources["memory"] == {"limit": 64 * 2**20}
    assert resources["cpu"] == {"quota": 50_000, "period": 100_000}
    assert resources["pids"] == {"limit": 10}
    assert (linux["cgroupsPath"], made["hostname"]) == ("/a/b", "box")
    assert made["root"] == {"path": "rootfs", "readonly": True}


def test_what_is_not_asked_for_is_not_there() -> None:
    """No limits, no hostname, no cgroup path, no HOME (runc finds that in passwd)."""
    made = config()
    assert set(made["linux"]["resources"]) == {"devices"}
    assert "hostname" not in made
    assert "cgroupsPath" not in made["linux"]
    assert set(env_of(made["process"])) == {"PATH"}


def test_variables_beat_the_defaults() -> None:
    """PATH is only filled in."""
    assert env_of(config(env={"PATH": "/x"})["process"]) == {"PATH": "/x"}


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"args": []}, "names no program"),
        ({"args": [""]}, "names no program"),
        ({"args": "echo hi"}, "give a list of words"),
        ({"args": ["a", 5]}, r"args\[1\] is 5, of type int"),
        ({"args": ["a\0b"]}, "NUL"),
        ({"args": ["\udcff"]}, "UTF-8"),
        ({"env": {"A=B": "c"}}, "no name of a variable"),
        ({"env": {"": "c"}}, "no name of a variable"),
        ({"env": {"A": 1}}, "the value of A in env is 1"),
        ({"env": {"A": "\0"}}, "NUL"),
        ({"cwd": "srv"}, "'srv' is relative"),
        ({"cwd": "/a/../b"}, r"has '\.\.'"),
        ({"cgroup_path": "a"}, "cgroup_path 'a' is relative"),
        ({"hostname": "a b"}, "letters, digits"),
        ({"hostname": "a" * 65}, "more than 64"),
        ({"memory": "64q"}, "'64q' is no size.*'64m'"),
        ({"memory": True}, "True is no size"),
        ({"memory": -1}, "no size"),
        ({"memory": 1.5}, "no size"),
        ({"memory": "1m"}, "too little.*'6m'"),
        ({"cpus": 0}, "no number of processors"),
        ({"cpus": float("nan")}, "no number of processors"),
        ({"cpus": "2"}, "no number of processors"),
        ({"pids": 0}, "whole number from 1"),
        ({"pids": 1.5}, "whole number from 1"),
        ({"network": "bridge"}, "'bridge' is not known: write 'none' or 'host'"),
        ({"capabilities": ["NET_RAW"]}, "such as 'CAP_NET_RAW'"),
        ({"rlimits": {"nofile": (2, 1)}}, "soft <= hard"),
        ({"user": "nobody-here"}, "no rootfs to look it up in.*number"),
        ({"user": ":5"}, "half a user"),
        ({"user": "5:"}, "half a user"),
        ({"user": str(2**32 - 1)}, "too large"),
        ({"mounts": "/a:/b"}, "give a list"),
        ({"mounts": ["/a"]}, "is not understood"),
        ({"mounts": ["/a:/b:rx"]}, "is not understood"),
        ({"mounts": ["data:/b"]}, "no named volumes"),
        ({"mounts": ["/:b"]}, "'b' is relative"),
        ({"mounts": ["/:/"]}, "nothing can be mounted on /"),
        ({"mounts": ["/:/proc/sys"]}, "nothing can be mounted on /proc/sys"),
        ({"mounts": ["/not/there:/b"]}, "no /not/there on the host"),
        ({"mounts": ["/:/b", Tmpfs("/b/")]}, "two mounts on /b"),
        ({"mounts": [Tmpfs("/b", size="big")]}, "'big' is no size"),
        ({"seccomp": "/not/there"}, "seccomp profile /not/there cannot be used"),
    ],
)
def test_what_is_wrong_is_told(options: dict[str, Any], why: str) -> None:
    """A ValueError that names the argument and says what to write."""
    args = options.pop("args", ["sh"])
    with pytest.raises(ValueError, match=why):
        oci_config(args, **({"seccomp": ""} | options))


@pytest.mark.parametrize(
    ("size", "count"),
    [
        (5, 5),
        ("5", 5),
        ("5b", 5),
        ("1k", 1024),
        ("1.5K", 1536),
        ("2MiB", 2 << 20),
        ("2 mb", 2 << 20),
        ("1g", 1 << 30),
        ("1t", 1 << 40),
    ],
)
def test_sizes_are_read_as_docker_reads_them(size: int | str, count: int) -> None:
    """Units are powers of 1024."""
    assert size_in_bytes(size, "x") == count


# ---------------------------------------------------------------- users


@pytest.mark.parametrize(
    ("user", "found"),
    [
        ("", User(0, 0, (50,))),
        ("app", User(1000, 1001, (29, 50))),
        ("1000", User(1000, 1001, (29, 50))),
        ("app:staff", User(1000, 50)),
        ("app:7", User(1000, 7)),
        ("4242", User(4242, 0)),
        ("4242:4343", User(4242, 4343)),
    ],
)
def test_users_are_found_in_the_rootfs(rootfs: str, user: str, found: User) -> None:
    """Names and numbers, with the groups that passwd and group give them."""
    assert resolve_user(user, rootfs) == found


@pytest.mark.parametrize("user", ["ghost", "app:ghosts", "odd", "-1"])
def test_a_user_that_is_not_there_is_an_error(rootfs: str, user: str) -> None:
    """It tells where it was looked for, and that numbers always work."""
    with pytest.raises(ValueError, match=r"of .*: write a number instead"):
        resolve_user(user, rootfs)


def test_no_passwd_means_numbers_only(tmp_path: Path) -> None:
    """An image from scratch has none, and runs as root all the same."""
    assert resolve_user("", str(tmp_path)) == User()
    assert resolve_user("5:6", str(tmp_path)) == User(5, 6)


def test_a_symlink_in_the_rootfs_does_not_lead_to_the_host(tmp_path: Path, rootfs: str) -> None:
    """/etc/passwd of an image may be anything; the host's is not read instead."""
    passwd = Path(rootfs, "etc", "passwd")
    passwd.unlink()
    passwd.symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="name the user by numbers"):
        resolve_user("daemon", rootfs)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "etc").symlink_to("/etc")
    with pytest.raises(ValueError, match="name the user by numbers"):
        resolve_user("daemon", str(tmp_path / "other"))


def test_a_fifo_for_passwd_keeps_nobody(rootfs: str) -> None:
    """Opening it does not wait for a writer."""
    passwd = Path(rootfs, "etc", "passwd")
    passwd.unlink()
    os.mkfifo(passwd)
    assert resolve_user("7", rootfs) == User(7, 0)


# ---------------------------------------------------------------- execs


def test_an_exec_is_as_its_container() -> None:
    """Capabilities, user, directory and variables are the container's, if nothing else is said."""
    base = config("sleep", user="5:6", env={"A": "1", "B": "2"}, cwd="/srv", terminal=True)
    made: Any = oci_process(["ls"], base, env={"B": "3"})
    assert made["args"] == ["ls"]
    assert made["terminal"] is False
    assert {"A": "1", "B": "3"}.items() <= env_of(made).items()
    assert "TERM" not in env_of(made)
    for same in ("user", "cwd", "capabilities", "rlimits", "noNewPrivileges"):
        assert made[same] == base["process"][same]


def test_an_exec_may_be_somebody_else(rootfs: str) -> None:
    """Then the capabilities are those of the new user: an exec as root in a user's container."""
    base = config(user="app", rootfs=rootfs)
    root: Any = oci_process(["id"], base, user="0:0", cwd="/tmp", terminal=True)
    assert (root["user"], root["cwd"]) == ({"uid": 0, "gid": 0}, "/tmp")
    assert root["capabilities"]["effective"] == sorted(DEFAULT_CAPABILITIES)
    assert env_of(root)["TERM"] == "xterm"
    again: Any = oci_process(["id"], base, user="app:staff", rootfs=rootfs)
    assert again["user"] == {"uid": 1000, "gid": 50}
    assert again["capabilities"]["effective"] == []


def test_an_exec_is_checked_as_a_container_is() -> None:
    """And a config that is none is told."""
    with pytest.raises(ValueError, match="names no program"):
        oci_process([], config())
    with pytest.raises(ValueError, match="relative"):
        oci_process(["a"], config(), cwd="x")
    with pytest.raises(ValueError, match="base_config has no process"):
        oci_process(["a"], {})


def test_a_terminal_may_have_a_size() -> None:
    """From its first moment on; an exec has its own, or none."""
    base: Any = config("sh", terminal=(132, 50))
    assert base["process"]["terminal"] is True
    assert base["process"]["consoleSize"] == {"width": 132, "height": 50}
    assert "consoleSize" not in config("sh", terminal=True)["process"]
    assert "consoleSize" not in oci_process(["id"], base)
    assert "consoleSize" not in oci_process(["id"], base, terminal=True)
    made: Any = oci_process(["id"], base, terminal=(80, 24))
    assert made["consoleSize"] == {"width": 80, "height": 24}


@pytest.mark.parametrize("size", [(0, 24), (80, 0), (1 << 16, 24)])
def test_a_terminal_has_a_size_that_can_be(size: tuple[int, int]) -> None:
    """The kernel has 16 bits for each."""
    with pytest.raises(ValueError, match=r"it is True, False or \(columns, rows\)"):
        config("sh", terminal=size)
