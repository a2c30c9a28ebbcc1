"""Which system calls a container may make: a distribution's profile, turned into OCI's words.

Such profiles (docker and podman use the same format) have conditions: a rule holds for some
capabilities, architectures or kernels only.  They are decided here; runc knows nothing of them.
There is no profile of our own: what to allow is a matter for people who follow the kernel.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Collection, Mapping

# Debian: golang-github-containers-common; Fedora: containers-common.
DISTRIBUTION_PROFILE = "/usr/share/containers/seccomp.json"
_LIMIT = 4 * 1024 * 1024
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "x86", "armv7l": "arm"}
_COPIED = ("defaultAction", "defaultErrnoRet")


def read_profile(path: str, capabilities: Collection[str]) -> dict[str, object]:
    """`linux.seccomp` for a container with these capabilities on this machine.

    Raises:
        ValueError: the file cannot be read or is no profile.
    """
    try:
        with open(path, "rb") as file:
            profile = json.loads(file.read(_LIMIT))
        return to_oci(profile, capabilities)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"seccomp profile {path} cannot be used ({error}): give another one, or '' for none"
        ) from None


def to_oci(
    profile: Mapping[str, object],
    capabilities: Collection[str],
    *,
    machine: str = "",
    kernel: str = "",
) -> dict[str, object]:
    """A profile with its conditions decided.

    Args:
        profile: in the format of docker's default profile.
        capabilities: what the container has ("CAP_..."); they decide which rules are taken.
        machine, kernel: as uname tells them; "": of this machine.

    Raises:
        ValueError: it has no defaultAction and syscalls.
    """
    rules = profile.get("syscalls")
    if "defaultAction" not in profile or not isinstance(rules, list):
        raise ValueError("it has no defaultAction and syscalls")
    machine = machine or platform.machine()
    facts = (
        set(capabilities),
        _ARCHITECTURES.get(machine, machine),
        _version(kernel or os.uname().release),
    )
    oci: dict[str, object] = {name: profile[name] for name in _COPIED if name in profile}
    architectures = _architectures(profile.get("archMap"), machine)
    if architectures:
        oci["architectures"] = architectures
    oci["syscalls"] = [_rule(rule) for rule in rules if _holds(rule, *facts)]
    return oci


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def _architectures(known: object, machine: str) -> list[str]:
    wanted = f"SCMP_ARCH_{machine.upper()}"
    for entry in known if isinstance(known, list) else []:
        if entry["architecture"] == wanted:
            return [wanted, *(entry.get("subArchitectures") or [])]
    return []


def _holds(
    rule: Mapping[str, Mapping[str, list[str]]],
    capabilities: set[str],
    architecture: str,
    kernel: tuple[int, ...],
) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    least = includes.get("minKernel")
    return (
        set(includes.get("caps") or ()) <= capabilities
        and not set(excludes.get("caps") or ()) & capabilities
        and architecture in (includes.get("arches") or [architecture])
        and architecture not in (excludes.get("arches") or [])
        and (not least or kernel >= _version(str(least)))
    )


def _rule(rule: Mapping[str, object]) -> dict[str, object]:
    names = rule.get("names") or [rule["name"]]
    taken = {"names": names, "action": rule["action"]}
    return taken | {key: rule[key] for key in ("args", "errnoRet") if rule.get(key)}
