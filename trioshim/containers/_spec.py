"""What runc is told: a whole config.json for a container, and a process for an exec.

The defaults are docker's: own namespaces, few capabilities, the dangerous files of /proc and /sys
hidden, devices denied but for the harmless ones.  Stricter than docker's in two: no network but
loopback, and no way to more privileges through set-uid programs.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ._checks import (
    CPU_PERIOD,
    check_args,
    check_env,
    check_hostname,
    check_path,
    check_pids,
    cpu_quota,
    memory_limit,
    rlimit,
)
from ._mounts import Bind, Tmpfs, mounts_to_json
from ._seccomp import DISTRIBUTION_PROFILE, read_profile
from ._users import User, resolve_user

Network = Literal["none", "host"]
Terminal = bool | tuple[int, int]  # columns and rows

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_RLIMITS: Mapping[str, int | tuple[int, int]] = {"nofile": 1024}
DEFAULT_CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
# What is mounted in every container: destination, type, options.
_MOUNTS = (
    ("/proc", "proc", ("nosuid", "noexec", "nodev")),
    ("/dev", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    (
        "/dev/pts",
        "devpts",
        ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    ("/dev/mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ("/dev/shm", "tmpfs", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")),
    ("/sys", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    ("/sys/fs/cgroup", "cgroup", ("nosuid", "noexec", "nodev", "relatime", "ro")),
)
# Of the host's network, what programs ask for names.
_RESOLVER = ("/etc/hosts", "/etc/resolv.conf")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container may use at most; None: no limit.

    Attributes:
        memory: bytes, or such as "64m".
        cpus: processors' worth of time, such as 0.5.
        pids: processes and threads.
    """

    memory: int | str | None = None
    cpus: float | None = None
    pids: int | None = None

    def to_json(self) -> dict[str, object]:
        """`linux.resources`: the limits, and no devices but those that runc adds itself."""
        resources: dict[str, object] = {"devices": [{"allow": False, "access": "rwm"}]}
        if self.memory is not None:
            resources["memory"] = {"limit": memory_limit(self.memory)}
        if self.cpus is not None:
            resources["cpu"] = {"quota": cpu_quota(self.cpus), "period": CPU_PERIOD}
        if self.pids is not None:
            resources["pids"] = {"limit": check_pids(self.pids)}
        return resources


def oci_config(
    args: Sequence[str],
    *,
    rootfs: str = "",
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
    user: str = "",
    hostname: str = "",
    terminal: Terminal = False,
    mounts: Sequence[Bind | Tmpfs | str] = (),
    memory: int | str | None = None,
    cpus: float | None = None,
    pids: int | None = None,
    network: Network = "none",
    read_only: bool = False,
    cgroup_path: str = "",
    capabilities: Collection[str] = DEFAULT_CAPABILITIES,
    rlimits: Mapping[str, int | tuple[int, int]] = DEFAULT_RLIMITS,
    no_new_privileges: bool = True,
    seccomp: str | None = None,
    cgroup_v2: bool | None = None,
) -> dict[str, object]:
    """A whole config.json (OCI runtime 1.0.2), for a bundle whose rootfs is at `rootfs`.

    Args:
        args: the command line.
        rootfs: where the names of users are looked up, on the host; "": only numbers are known.
        env: variables; PATH (and TERM with a terminal) are set if they are not in it.
        cwd: directory to start in.  runc makes it if it is missing.
        user: "uid", "uid:gid", or names from the rootfs; "" is root.
        hostname: of the container; "": the host's.
        terminal: the process gets a pty; (columns, rows): of this size from the beginning.
        mounts: `Bind`, `Tmpfs`, or "source:target[:ro]".
        memory, cpus, pids: limits, as in `Limits`.
        network: "none" is a network with only loopback; "host" is the host's, with its names.
        read_only: the rootfs cannot be written to.
        cgroup_path: its cgroup, from the root of the hierarchies; "": runc chooses.
        capabilities: names with "CAP_"; only root has them, others may get them by set-uid.
        rlimits: such as {"nofile": 1024} or {"nofile": (1024, 4096)}.
        no_new_privileges: set-uid programs do not work.
        seccomp: path of a profile in docker's format; "": none; None: the distribution's, if it
            is installed (`DISTRIBUTION_PROFILE`), else none.
        cgroup_v2: whether only cgroup version 2 is there; None: as on this machine.

    Raises:
        ValueError: what is wrong, and what to write instead.
    """
    if network not in ("none", "host"):
        raise ValueError(f"network {network!r} is not known: write 'none' or 'host'")
    who = resolve_user(user, rootfs)
    process = {
        **console(terminal),
        "user": who.to_json(),
        "args": check_args(args),
        "env": _environment(env or {}, hostname, terminal=bool(terminal)),
        "cwd": check_path(cwd, "cwd"),
        "capabilities": _capabilities(capabilities, who),
        "rlimits": [rlimit(name, limit) for name, limit in rlimits.items()],
        "noNewPrivileges": no_new_privileges,
    }
    config: dict[str, object] = {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": "rootfs", "readonly": read_only},
        "mounts": _mounts(mounts, network),
        "linux": {
            "namespaces": _namespaces(network, _only_v2() if cgroup_v2 is None else cgroup_v2),
            "resources": Limits(memory, cpus, pids).to_json(),
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
            **_seccomp(seccomp, capabilities),
            **({"cgroupsPath": check_path(cgroup_path, "cgroup_path")} if cgroup_path else {}),
        },
    }
    return config | {"hostname": check_hostname(hostname)} if hostname else config


def oci_process(
    args: Sequence[str],
    base_config: Mapping[str, object],
    *,
    rootfs: str = "",
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    user: str | None = None,
    terminal: Terminal = False,
) -> dict[str, object]:
    """A process for an exec in a container: as its first one, but for what is said here.

    Args:
        args: the command line.
        base_config: the container's config, from `oci_config`.
        rootfs: where the names of users are looked up.
        env: variables; they are added to the container's, or replace them.
        cwd, user: None: the container's.
        terminal: the process gets a pty; (columns, rows): of this size from the beginning.

    Raises:
        ValueError: what is wrong, and what to write instead.
    """
    base = base_config.get("process")
    if not isinstance(base, dict):
        raise ValueError("base_config has no process: give the config that oci_config made")
    inherited = dict(line.split("=", 1) for line in base["env"])
    if not terminal:
        inherited.pop("TERM", None)
    same = {name: value for name, value in base.items() if name != "consoleSize"}
    process = same | {
        **console(terminal),
        "args": check_args(args),
        "env": _environment(inherited | dict(env or {}), "", terminal=bool(terminal)),
    }
    if cwd is not None:
        process["cwd"] = check_path(cwd, "cwd")
    if user is not None:
        who = resolve_user(user, rootfs)
        process["user"] = who.to_json()
        process["capabilities"] = _capabilities(base["capabilities"]["bounding"], who)
    return process


def console(terminal: Terminal) -> dict[str, object]:
    """What a process's spec says of its pty.

    Raises:
        ValueError: a size that none can have.
    """
    if isinstance(terminal, bool):
        return {"terminal": terminal}
    columns, rows = terminal
    if not (0 < columns < 1 << 16 and 0 < rows < 1 << 16):
        raise ValueError(f"terminal {terminal!r}: it is True, False or (columns, rows)")
    return {"terminal": True, "consoleSize": {"width": columns, "height": rows}}


def _environment(env: Mapping[str, str], hostname: str, *, terminal: bool) -> list[str]:
    """Without HOME: runc finds it in the container's own passwd."""
    filled = {"PATH": DEFAULT_PATH}
    if hostname:
        filled["HOSTNAME"] = hostname
    if terminal:
        filled["TERM"] = "xterm"
    return [f"{name}={value}" for name, value in (filled | check_env(env)).items()]


def _capabilities(names: Collection[str], user: User) -> dict[str, list[str]]:
    """Others than root start without: what they run gets only what its file says."""
    for name in names:
        if not name.startswith("CAP_") or not name.isupper():
            raise ValueError(f"capability {name!r} is not known: names are such as 'CAP_NET_RAW'")
    mine = sorted(names)
    held = mine if user.uid == 0 else []
    return {"bounding": mine, "effective": held, "permitted": held}


def _mounts(mounts: Sequence[Bind | Tmpfs | str], network: Network) -> list[dict[str, object]]:
    asked = mounts_to_json(mounts)
    taken = {str(entry["destination"]) for entry in asked}
    files = [path for path in _RESOLVER if network == "host" and os.path.exists(path)]
    ours: list[dict[str, object]] = [
        {"destination": path, "type": kind, "source": kind, "options": list(options)}
        for path, kind, options in _MOUNTS
    ]
    ours += [Bind(path, path, read_only=True).to_json() for path in files]
    left = [entry for entry in ours if entry["destination"] not in taken]
    # What lies deeper comes later, or it would be hidden.
    return sorted([*left, *asked], key=lambda entry: str(entry["destination"]).count("/"))


def _namespaces(network: Network, only_v2: bool) -> list[dict[str, str]]:
    kinds = ["pid", "mount", "ipc", "uts"]
    kinds += ["network"] if network == "none" else []
    kinds += ["cgroup"] if only_v2 else []
    return [{"type": kind} for kind in kinds]


def _only_v2() -> bool:
    return os.path.exists("/sys/fs/cgroup/cgroup.controllers")


def _seccomp(path: str | None, capabilities: Collection[str]) -> dict[str, object]:
    if path is None:
        path = DISTRIBUTION_PROFILE if os.path.exists(DISTRIBUTION_PROFILE) else ""
    return {"seccomp": read_profile(path, capabilities)} if path else {}
