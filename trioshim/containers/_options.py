"""What to run: the options of `open_container`, made into a bundle's config and rootfs.

Where the root comes from, in order: a bundle, a folder, an image, or, when nothing is said, the
host's own root, read-only and with an empty /tmp.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

from .._specs import Mount
from ._image import unpack_image
from ._mounts import Bind, Tmpfs, host_root_mounts, host_root_tmpfs, overlay_mount
from ._spec import Network, Terminal, console, oci_config

__all__ = ["ContainerOptions", "Plan", "plan"]

StrPath = str | os.PathLike[str]


class ConfigOptions(TypedDict, total=False):
    """What a container may do and use.

    Attributes:
        env, cwd, user, hostname, mounts, network, read_only: see `oci_config`.  An image has
            its own env, cwd and user, and these come on top.
        memory: bytes, or "64m".
        cpus: processors, 0.5 is half of one.
        pids: processes and threads.
        capabilities, rlimits, no_new_privileges, seccomp, cgroup_path: see `oci_config`.
    """

    env: Mapping[str, str]
    cwd: str
    user: str
    hostname: str
    mounts: Sequence[Bind | Tmpfs | str]
    memory: int | str | None
    cpus: float | None
    pids: int | None
    network: Network
    read_only: bool
    cgroup_path: str
    capabilities: Collection[str]
    rlimits: Mapping[str, int | tuple[int, int]]
    no_new_privileges: bool
    seccomp: str | None


class ContainerOptions(ConfigOptions, total=False):
    """What `open_container` and `run_container` take beside the command line.

    Attributes:
        bundle: directory with a config.json of its own, which says all the rest; `args` replace
            those of the config if there are any.
        rootfs: directory that is the container's root, and can be written to.
        image: OCI layout (directory or tar) or docker archive.  What the container changes is
            kept apart, in memory, and gone at the end.
    """

    bundle: StrPath
    rootfs: StrPath
    image: StrPath


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes into the bundle and into Create.

    Attributes:
        args: the command line.
        config: config.json.
        mounts: the rootfs, for Create.
        rootfs: where users' names are looked up, on the host.
    """

    args: list[str]
    config: dict[str, object]
    mounts: list[Mount]
    rootfs: str


_SOURCES = ("bundle", "rootfs", "image")


async def plan(
    args: Sequence[str], options: ContainerOptions, *, terminal: Terminal, directory: Path
) -> Plan:
    """Decide what to run.

    Args:
        args: the command line; empty: that of the bundle or of the image.
        options: see `ContainerOptions`.
        terminal: the process gets a pty, perhaps of a size.
        directory: the bundle-to-be.

    Raises:
        ValueError: what is wrong with an option, and what to write instead.
        OSError: something that was named is not there.
    """
    given = [name for name in _SOURCES if name in options]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)}: only one of them can be the container's root")
    if "bundle" in options:
        return _of_bundle(args, options, terminal=terminal)
    # runc's own choice is the id alone, which two namespaces may both have; none has an "@".
    options = options.copy()
    options.setdefault("cgroup_path", f"/{directory.parent.name}@{directory.name}")
    if "image" in options:
        return await _of_image(args, options, terminal=terminal, directory=directory)
    return _of_directory(args, options, terminal=terminal)


def _of_bundle(args: Sequence[str], options: ContainerOptions, *, terminal: Terminal) -> Plan:
    if more := sorted(options.keys() - {"bundle"}):
        raise ValueError(f"{', '.join(more)}: a bundle's config.json says that already")
    bundle = Path(options["bundle"]).resolve()
    config = json.loads((bundle / "config.json").read_bytes())
    try:
        root, process = config["root"], config["process"]
        root["path"] = str(bundle / root["path"])
        process["args"] = list(args) or process["args"]
        process.pop("consoleSize", None)
        process |= console(terminal)
        return Plan(process["args"], config, [], root["path"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{bundle}/config.json is no OCI config: {error!r} is missing") from None


def _of_directory(args: Sequence[str], options: ContainerOptions, *, terminal: Terminal) -> Plan:
    rest = _without_sources(options)
    if "rootfs" not in options:
        mounts = [*host_root_tmpfs(), *rest.pop("mounts", ())]
        rest["mounts"], rest["read_only"] = mounts, True
        config = oci_config(args, rootfs="/", terminal=terminal, **rest)
        return Plan(list(args), config, host_root_mounts(), "/")
    rootfs = os.path.realpath(options["rootfs"])
    if not os.path.isdir(rootfs):
        raise NotADirectoryError(f"rootfs {rootfs} is no directory")
    if rootfs == "/":
        raise ValueError("rootfs / is the host's own: leave rootfs out to have it read-only")
    config = oci_config(args, rootfs=rootfs, terminal=terminal, **rest)
    config["root"] = {"path": rootfs, "readonly": rest.get("read_only", False)}
    return Plan(list(args), config, [], rootfs)


async def _of_image(
    args: Sequence[str], options: ContainerOptions, *, terminal: Terminal, directory: Path
) -> Plan:
    image = await unpack_image(options["image"])
    command = image.config.command(args)
    rest = _without_sources(options)
    rest.setdefault("cwd", image.config.working_dir)
    rest.setdefault("user", image.config.user)
    rest["env"] = {**image.config.env, **rest.get("env", {})}
    config = oci_config(command, rootfs=image.rootfs, terminal=terminal, **rest)
    upper, work = directory / "upper", directory / "work"
    upper.mkdir()
    work.mkdir()
    return Plan(command, config, [overlay_mount(image.rootfs, str(upper), str(work))], image.rootfs)


def _without_sources(options: ContainerOptions) -> ConfigOptions:
    return cast(
        ConfigOptions, {name: value for name, value in options.items() if name not in _SOURCES}
    )
