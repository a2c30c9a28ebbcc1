"""The command line of the shim binary.  Pure.

The flags are those of every containerd since 1.3, read the way Go's `flag` package reads them.
"""

from __future__ import annotations

from .._plain import Choice, Record
from ._group import check_group
from ._identifiers import check_identifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import ClassVar


class Verb(Choice):
    """What this run of the binary is to do."""

    __slots__ = ()
    SERVE: ClassVar[Verb]
    START: ClassVar[Verb]
    DELETE: ClassVar[Verb]
    INFO: ClassVar[Verb]
    VERSION: ClassVar[Verb]


Verb.SERVE = Verb("")
Verb.START = Verb("start")
Verb.DELETE = Verb("delete")
Verb.INFO = Verb("-info")
Verb.VERSION = Verb("-v")


class Arguments(Record):
    """The command line, parsed; immutable.

    Attributes:
        verb: what to do.
        namespace: containerd's namespace.
        id: the container's id, which is also the shim's.
        address: the daemon's gRPC socket, as given (normally a plain path).
        publish_binary: the daemon's executable.
        bundle: the bundle directory, for `delete`; "" means the working directory.
        group: what the server's containers have in common: see `_group`; "": it has one.
        socket: serve on this path instead of file descriptor 3.
        debug_socket: accepted for the sake of containerd 2.0; not used.
        debug: the daemon logs at level debug or trace.
        unknown: flags that this version does not know; for the log.
    """

    __slots__ = (
        *("verb", "namespace", "id", "address", "publish_binary", "bundle"),
        *("group", "socket", "debug_socket", "debug", "unknown"),
    )
    verb: Verb
    namespace: str
    id: str
    address: str
    publish_binary: str
    bundle: str
    group: str
    socket: str
    debug_socket: str
    debug: bool
    unknown: tuple[str, ...]

    def __init__(
        self,
        verb: Verb = Verb.SERVE,
        namespace: str = "",
        id: str = "",  # noqa: A002 (the flag)
        address: str = "",
        publish_binary: str = "",
        bundle: str = "",
        group: str = "",
        socket: str = "",
        debug_socket: str = "",
        debug: bool = False,
        unknown: tuple[str, ...] = (),
    ) -> None:
        self._set(
            verb=verb,
            namespace=namespace,
            id=id,
            address=address,
            publish_binary=publish_binary,
            bundle=bundle,
            group=group,
            socket=socket,
            debug_socket=debug_socket,
            debug=debug,
            unknown=unknown,
        )


_TEXTS = {
    "namespace": "namespace",
    "id": "id",
    "address": "address",
    "publish-binary": "publish_binary",
    "bundle": "bundle",
    "group": "group",
    "socket": "socket",
    "debug-socket": "debug_socket",
}
_SWITCHES = {"debug", "v", "version", "info"}
_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False"}
_ACTIONS = {"start": Verb.START, "delete": Verb.DELETE}


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Read flags as Go's `flag` package does, forgiving those that are not known.

    `-flag value`, `-flag=value` and two dashes are the same; the first word that is no flag is
    the action.  An unknown flag takes the next word as its value, unless that is a flag or an
    action: a later daemon may send one, and that must not stop containers from starting.

    Args:
        argv: the words after the program's name.

    Raises:
        ValueError: a flag lacks its value or has a wrong one, or the action is not known.
    """
    words = list(argv)
    values: dict[str, str | bool] = {}
    unknown: list[str] = []
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word == "--":
            break
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        if not name or name.startswith("-"):
            raise ValueError(f"bad flag syntax: {word}")
        if name in _SWITCHES:
            values[name] = _boolean(name, value) if equals else True
        elif name in _TEXTS:
            values[_TEXTS[name]] = value if equals else _next(name, words)
        else:
            unknown.append(word)
            if not equals and words and not words[0].startswith("-") and words[0] not in _ACTIONS:
                unknown.append(words.pop(0))
    verb = _verb(values, words)
    fields = {key: value for key, value in values.items() if key in Arguments.__slots__}
    return Arguments().replace(verb=verb, unknown=tuple(unknown), **fields)


def _boolean(name: str, text: str) -> bool:
    if text not in _TRUE | _FALSE:
        raise ValueError(f"flag -{name} is true or false, not {text!r}")
    return text in _TRUE


def _next(name: str, words: list[str]) -> str:
    if not words:
        raise ValueError(f"flag -{name} needs a value")
    return words.pop(0)


def _verb(values: Mapping[str, str | bool], words: list[str]) -> Verb:
    if values.get("v") or values.get("version"):
        return Verb.VERSION
    if values.get("info"):
        return Verb.INFO
    if not words:
        return Verb.SERVE
    if words[0] not in _ACTIONS:
        raise ValueError(f"unknown action {words[0]!r}: start, delete, or none to serve")
    return _ACTIONS[words[0]]


def check_arguments(arguments: Arguments) -> None:
    """Refuse a namespace, an id or a group that cannot be one.

    `-v` and `-info` need neither; serving needs no id.

    Raises:
        ValueError: which of them is wrong, and why.
    """
    if arguments.verb in (Verb.VERSION, Verb.INFO):
        return
    check_identifier(arguments.namespace, "shim namespace (-namespace)")
    if arguments.id or arguments.verb is not Verb.SERVE:
        check_identifier(arguments.id, "shim id (-id)")
    check_group(arguments.group)
