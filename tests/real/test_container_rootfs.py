"""What `trioshim.containers` makes, given to a real shim and runc: they take it, and it holds."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import any_pb2

from trioshim._mountinfo import mounts_below
from trioshim.abc import Mount
from trioshim.containers._image import unpack_image
from trioshim.containers._mounts import (
    Bind,
    Tmpfs,
    host_root_mounts,
    host_root_tmpfs,
    overlay_mount,
)
from trioshim.containers._spec import oci_config, oci_process
from trioshim.proto import task_v2_pb2 as api
from trioshim.proto import types_pb2

from .shim_world import BOX, Shim, ShimWorld

SELF = "cat /proc/self/status"


@pytest.fixture
async def shim(world: ShimWorld) -> Shim:
    return await world.start(BOX)


def write_config(shim: Shim, name: str, args: Sequence[str], **options: Any) -> Any:
    """A bundle with what `oci_config` makes; `leaks` knows its processes by a variable."""
    bundle = shim.world.base / name
    bundle.mkdir(exist_ok=True)
    env = {"WORLD": str(shim.world.base), **options.pop("env", {})}
    group = f"/{shim.world.namespace}/{name}"
    config = oci_config(args, env=env, cgroup_path=group, **options)
    (bundle / "config.json").write_text(json.dumps(config))
    return config


async def create(shim: Shim, name: str, mounts: Sequence[Mount]) -> Path:
    """Create it from its bundle; returns where its output goes."""
    out = shim.world.base / f"{name}.out"
    rootfs = [
        types_pb2.Mount(type=m.type, source=m.source, target=m.target, options=m.options)
        for m in mounts
    ]
    urls = dict.fromkeys(("stdout", "stderr"), f"file://{out}")
    await shim.create(name, bundle=shim.world.base / name, rootfs=rootfs, **urls)
    return out


async def run(
    shim: Shim, name: str, rootfs: Sequence[Mount], *args: str, **options: Any
) -> tuple[int, str]:
    """Run a container to its end: its exit status, and what it said."""
    write_config(shim, name, args, **options)
    out = await create(shim, name, rootfs)
    await shim.start(name)
    status = await shim.wait(name)
    await shim.remove(name)
    return status, out.read_text()


async def on_host(shim: Shim, script: str, **options: Any) -> str:
    """What a shell script says on the host's own root; it has to succeed."""
    options = {"read_only": True, "mounts": host_root_tmpfs()} | options
    status, said = await run(shim, "host", host_root_mounts(), "sh", "-euc", script, **options)
    assert status == 0, said
    return said


def exists(path: str | Path) -> bool:
    return Path(path).exists()


def text(path: str | Path) -> str:
    return Path(path).read_text()


def overlay(shim: Shim, lower: str, name: str) -> list[Mount]:
    """A rootfs on top of an unpacked image, with fresh directories for its changes."""
    upper, work = (shim.world.base / f"{name}.{part}" for part in ("upper", "work"))
    upper.mkdir()
    work.mkdir()
    return [overlay_mount(lower, str(upper), str(work))]


# ---------------------------------------------------------------- the host's root


async def test_a_program_of_the_host_runs_without_an_image(shim: Shim) -> None:
    """runc refuses / itself; a bind of it will do."""
    assert await on_host(shim, "echo hello") == "hello\n"


async def test_the_hosts_root_cannot_be_written_to(shim: Shim) -> None:
    """Nothing but /tmp and its like; and those are empty and not the host's."""
    script = """
        for path in /x /etc/x /usr/x /root/x; do
            if touch $path; then echo wrote $path; fi
        done 2>/dev/null
        ls -A /tmp /run /var/tmp
        touch /tmp/x /run/x
    """
    listed = "".join((await on_host(shim, script)).split())
    # Where /var/tmp is a symlink there is no listing of it.
    assert listed in {"/run:/tmp:/var/tmp:", "/tmp:/run:/var/tmp:"}
    assert not exists("/tmp/x")
    assert not exists("/run/x")


async def test_only_its_own_processes_are_seen(shim: Shim) -> None:
    """/proc is that of its own pid namespace."""
    said = await on_host(shim, "echo $$; cd /proc; echo [0-9]*")
    assert said.split() == ["1", "1"]


async def test_the_hosts_mounts_are_as_before(shim: Shim) -> None:
    """A mount below the bind of / is not seen on the host's own /, also where that is shared."""

    def outside() -> list[str]:
        points = mounts_below(Path("/proc/self/mountinfo").read_bytes(), "/")
        return [point for point in points if not point.startswith(str(shim.world.base))]

    before = outside()
    write_config(shim, "host", ["sleep", "100"], mounts=host_root_tmpfs(), read_only=True)
    await create(shim, "host", [*host_root_mounts(), Mount("tmpfs", "tmpfs", "/mnt")])
    await shim.start("host")
    assert outside() == before
    await shim.remove("host")


# ---------------------------------------------------------------- the defaults hold


async def test_the_process_is_confined(shim: Shim) -> None:
    """Few capabilities, no new ones, and a filter of system calls if the profile is there."""
    config = write_config(shim, "host", ["true"])
    lines = (await on_host(shim, SELF)).splitlines()
    said = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert said["CapEff"] == said["CapBnd"] == "00000000a80425fb"
    assert int(said["CapInh"], 16) == 0
    assert said["NoNewPrivs"] == "1"
    assert said["Seccomp"] == ("2" if "seccomp" in config["linux"] else "0")


async def test_a_user_has_no_capabilities(shim: Shim) -> None:
    """Those of root are not given to others."""
    said = await on_host(shim, f"id -u; id -g; {SELF}", user="1234:4321")
    assert said.split()[:2] == ["1234", "4321"]
    assert "CapEff:\t0000000000000000" in said


async def test_there_is_no_network_but_loopback(shim: Shim) -> None:
    """And that is up; with "host" it is the host's."""
    script = "cut -d: -f1 -s /proc/net/dev | tr -d ' '; cat /sys/class/net/lo/flags"
    assert (await on_host(shim, script)).split() == ["lo", "0x9"]
    own = os.readlink("/proc/self/ns/net")
    assert (await on_host(shim, "readlink /proc/self/ns/net")).strip() != own
    hosts = await on_host(
        shim, "readlink /proc/self/ns/net; cat /etc/hosts", network="host", hostname="box"
    )
    assert own in hosts
    assert text("/etc/hosts") in hosts


async def test_kernel_settings_and_memory_are_out_of_reach(shim: Shim) -> None:
    """Read-only or hidden, for root too; devices cannot be opened."""
    script = """
        for path in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/kernel/uevent_helper; do
            if echo x > $path; then echo wrote $path; fi
        done 2>/dev/null
        cat /proc/kcore /proc/keys /proc/timer_list 2> /dev/null | wc -c; ls /sys/firmware
        mknod /tmp/disk b 254 0 && if head -c1 /tmp/disk; then echo read; fi 2>/dev/null
        echo x > /dev/null; head -c1 /dev/zero | wc -c
    """
    assert (await on_host(shim, script)).split() == ["0", "1"]


async def test_limits_are_those_of_the_cgroup(shim: Shim) -> None:
    """Memory, processor time and number of processes, in version 1 and 2."""
    script = """
        cd /sys/fs/cgroup
        cat memory.max memory/memory.limit_in_bytes
        cat pids.max pids/pids.max
        cat cpu.max cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us
    """
    said = await on_host(shim, f"({script}) 2>/dev/null || true", memory="64m", cpus=0.5, pids=17)
    assert said.split() == [str(64 << 20), "17", "50000", "100000"]


async def test_mounts_are_where_they_were_asked_for(shim: Shim, tmp_path: Path) -> None:
    """A bind, one that is read-only, and a tmpfs of limited size."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("precious")
    binds = [f"{tmp_path}/in:/tmp/rw", Bind(str(tmp_path / "in"), "/tmp/ro", read_only=True)]
    script = """
        cat /tmp/ro/file; echo
        if touch /tmp/ro/x 2>/dev/null; then echo wrote; fi
        echo out > /tmp/rw/out
        head -c 2m /dev/zero > /tmp/small/x 2>/dev/null || stat -c %s /tmp/small/x
    """
    mounts = [*host_root_tmpfs(), *binds, Tmpfs("/tmp/small", "1m")]
    said = await on_host(shim, script, mounts=mounts)
    assert said.split() == ["precious", str(1 << 20)]
    assert (tmp_path / "in" / "out").read_text() == "out\n"


# ---------------------------------------------------------------- images


@pytest.fixture
async def image(image_tar: Path, tmp_path: Path, give_up: Callable[[str], None]) -> str:
    give_up("" if shutil.which("umoci") else "not installed: umoci (scripts/setup installs it)")
    return (await unpack_image(image_tar, cache=tmp_path / "cache")).rootfs


async def test_an_image_is_changed_by_nobody(shim: Shim, image: str) -> None:
    """What a container writes is in its own upper directory; the next one starts afresh."""
    script = "cat /etc/x /bin/new; echo more > /etc/x; ln -s sh /bin/new; rm /etc/passwd"
    for name in ("one", "two"):
        _, said = await run(shim, name, overlay(shim, image, name), "/bin/sh", "-c", script)
        assert said.count("No such file") == 2, said
        assert text(shim.world.base / f"{name}.upper/etc/x") == "more\n"
    assert exists(f"{image}/etc/passwd")
    assert not exists(f"{image}/etc/x")


async def test_an_exec_runs_as_it_was_asked(shim: Shim, image: str) -> None:
    """`oci_process` gives what `runc exec` wants: another user, directory and variable."""
    config = write_config(shim, "box", ["sleep", "100"], rootfs=image)
    await create(shim, "box", overlay(shim, image, "box"))
    await shim.start("box")
    script = 'id -u; pwd; echo "$A"; grep CapEff /proc/self/status'
    process = oci_process(["sh", "-c", script], config, user="7:8", cwd="/tmp", env={"A": "b c"})
    out = shim.world.base / "exec.out"
    spec = any_pb2.Any(value=json.dumps(process).encode())
    await shim.client.exec(
        api.ExecProcessRequest(id="box", exec_id="e", spec=spec, stdout=f"file://{out}")
    )
    await shim.start("box", "e")
    assert await shim.wait("box", "e") == 0
    await shim.delete("box", "e")
    await shim.remove("box")
    assert out.read_text() == "7\n/tmp\nb c\nCapEff:\t0000000000000000\n"
