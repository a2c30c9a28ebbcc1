"""Which containers share one shim: what the daemon and `config.json` say, and what follows.  Pure.

A group is a name: "" for a container that is alone, `WHOLE_NAMESPACE`, or what an annotation says.
The annotations are looked for as plain bytes first, because `start` runs once for each container
and parsing takes longer than all the rest of it; every writer of JSON leaves these names as they
are.
"""

from __future__ import annotations

from posixpath import normpath

from .._version import __version__
from . import _dialects
from ._identifiers import check_identifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ._arguments import Arguments

CONFIG_LIMIT = 16 << 20  # bytes; Create takes no more either
WHOLE_NAMESPACE = "*"  # no identifier, so no annotation can say it

# The first that a container has counts.
ANNOTATIONS = (
    "io.containerd.trio.v1.group",
    "io.containerd.runc.v2.group",
    "io.kubernetes.cri.sandbox-id",
)
_WORDS = ("off", "pod", "namespace")
_USUAL = "pod"
# The first containerd that asks a shim of version 3 to end, and clears up after one that was
# killed, for each container of a pod (#11916, #13309, #13958).
_SAFE_WITH_VERSION_3 = (2, 4)


def find_group(environ: Mapping[str, str], read_config: Callable[[], bytes]) -> str:
    """The group of a container; "" if it is alone.

    Args:
        environ: TRIOSHIM_GROUP in it says who shares a shim: `off` nobody, `pod` those whose
            annotations say so, `namespace` all.
        read_config: gives config.json, b"" if there is none; called if it matters.

    Raises:
        ValueError: the variable, the annotation or config.json is wrong.
    """
    word = environ.get("TRIOSHIM_GROUP", "") or _USUAL
    if word not in _WORDS:
        raise ValueError(f"TRIOSHIM_GROUP={word!r} is not known: choose off, pod or namespace")
    if word == "namespace":
        if environ.get("SCHED_CORE"):
            raise ValueError(
                "SCHED_CORE keeps containers of different shims apart, and with"
                " TRIOSHIM_GROUP=namespace all have the same: take out one of them"
            )
        return WHOLE_NAMESPACE
    return annotated_group(read_config()) if word == "pod" else ""


def annotated_group(config: bytes) -> str:
    """The group that a config.json names; "" for none.

    Raises:
        ValueError: it is too long or no JSON, or the name is no identifier.
    """
    if not any(name.encode() in config for name in ANNOTATIONS):
        return ""
    if len(config) > CONFIG_LIMIT:
        raise ValueError(f"config.json is longer than {CONFIG_LIMIT} bytes")
    import json

    try:
        found = json.loads(config)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"config.json is no JSON, so its group is not known: {error}") from None
    annotations = found.get("annotations") if isinstance(found, dict) else None
    if not isinstance(annotations, dict):
        return ""
    for name in ANNOTATIONS:
        if name in annotations:
            return _checked(name, annotations[name])
    return ""


def _checked(annotation: str, group: object) -> str:
    try:
        if not isinstance(group, str):
            raise ValueError(f"it is {group!r:.40}, not a text")
        check_identifier(group, "the group")
    except ValueError as error:
        raise ValueError(
            f"annotation {annotation}: {error}; correct it, or set TRIOSHIM_GROUP=off"
        ) from None
    return group


def check_group(group: str) -> None:
    """Refuse what `find_group` would not say.

    Raises:
        ValueError: it is no identifier and does not stand for the namespace.
    """
    if group and group != WHOLE_NAMESPACE:
        check_identifier(group, "shim group (-group)")


def shim_address(arguments: Arguments, directory: str) -> str:
    """Where the shim for a container listens: its own, or that of its group.

    The hash of a group is over a text with "//" in it.  No container's has that, nor has any of
    containerd's own shims, which clean theirs as a path: a Go shim of the same pod is never met.
    After an update the next container gets a shim of the new version, whatever its group.

    Args:
        arguments: the command line, with the daemon's address and the group.
        directory: see `socket_address`.

    Raises:
        ValueError: see `socket_address`.
    """
    address, namespace = arguments.address, arguments.namespace
    if not arguments.group:
        return _dialects.socket_address(address, namespace, arguments.id, directory)
    key = f"{normpath(address)}//{namespace}//{arguments.group}//{__version__}"
    return _dialects.hashed_address(key, directory)


def promises_several(group: str, daemon_version: str) -> bool:
    """Whether `start` may announce version 3: then containers of a pod come without a `start`.

    Only daemons since 2.3 tell their version, those before 2.0 refuse the announcement, and those
    before 2.4 neither tell a container's exit when such a shim was killed nor ask it to end.

    Args:
        group: of the container.
        daemon_version: as BootstrapParams has it; "" if it is not known.
    """
    if not group:
        return False
    major, _, rest = daemon_version.removeprefix("v").partition(".")
    minor = rest.partition(".")[0].partition("-")[0]
    if not (major.isdecimal() and minor.isdecimal()):
        return False
    return (int(major), int(minor)) >= _SAFE_WITH_VERSION_3
