"""Runtime options: from the messages that containerd's clients send to one dataclass.

A shim that is not called runc gets any of four messages (docs of the daemon: which one depends
on its version and on the client), so all four are understood, told apart by the part of the type
URL after the last "/".  A type that nobody here knows means defaults and a note for the log, never
a failure: the Go shims crash on it.  Only a known message that cannot be decoded is an error.

Pure, but for one thing: `runtimeoptions.v1.Options` may name a file instead of carrying its text.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from ..abc import Options
from ..errors import InvalidArgumentError
from ..proto import runc_options_pb2
from ._files import read_file

MAX_TOML = 1024 * 1024

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class RuncOptions:
    """How runc is to be used for one container.  Names and order are those of the message.

    Attributes:
        no_pivot_root: `--no-pivot`, for a rootfs on a ramdisk.
        no_new_keyring: `--no-new-keyring`.
        shim_cgroup: cgroup for the shim itself; read by whoever starts it.
        io_uid, io_gid: owner of the container's ends of the pipes.
        binary_name: program to run; "": runc.
        root: where runc keeps its state, without the namespace; "": the default.
        criu_path: the criu to use (runc before 1.2).
        systemd_cgroup: cgroups are made through systemd.
        criu_image_path, criu_work_path: where criu's files go; only the second is runc's.
        notes: what could not be used, for the log.
    """

    no_pivot_root: bool = False
    no_new_keyring: bool = False
    shim_cgroup: str = ""
    io_uid: int = 0
    io_gid: int = 0
    binary_name: str = ""
    root: str = ""
    criu_path: str = ""
    systemd_cgroup: bool = False
    criu_image_path: str = ""
    criu_work_path: str = ""
    notes: tuple[str, ...] = field(default=(), compare=False)

    def to_json(self) -> bytes:
        """The text of options.json, as Go writes it: snake_case, defaults left out."""
        known = asdict(self)
        del known["notes"]
        filled = {name: value for name, value in known.items() if value}
        return json.dumps(filled, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class CheckpointOptions:
    """How a checkpoint is to be taken.  Names are those of the message.

    Attributes:
        exit: the container ends with it; else it runs on.
        open_tcp, external_unix_sockets, terminal, file_locks: what criu may meet in it.
        empty_namespaces: kinds of namespaces to make but not to fill.
        work_path: where criu keeps its log; "": below the bundle, and removed afterwards.
        parent_path: an earlier image to build upon, relative to the image.
        notes: what could not be used, for the log.
    """

    exit: bool = False
    open_tcp: bool = False
    external_unix_sockets: bool = False
    terminal: bool = False
    file_locks: bool = False
    empty_namespaces: tuple[str, ...] = ()
    work_path: str = ""
    parent_path: str = ""
    notes: tuple[str, ...] = field(default=(), compare=False)


def parse_options(options: Options) -> RuncOptions:
    """Runtime options as containerd sent them.

    Raises:
        InvalidArgumentError: a known message that cannot be decoded.
    """
    parse = _PARSERS.get(_type_name(options))
    if not options.value:
        return RuncOptions()
    if parse is None:
        return RuncOptions(notes=(_unknown(options),))
    return parse(options)


def parse_checkpoint_options(options: Options) -> CheckpointOptions:
    """`containerd.runc.v1.CheckpointOptions`; other types mean defaults.

    Raises:
        InvalidArgumentError: it cannot be decoded.
    """
    if not options.value:
        return CheckpointOptions()
    if _type_name(options) != "containerd.runc.v1.CheckpointOptions":
        return CheckpointOptions(notes=(_unknown(options),))
    message = _decode(runc_options_pb2.CheckpointOptions(), options)
    values = _common(CheckpointOptions, message)
    return CheckpointOptions(**values | {"empty_namespaces": tuple(values["empty_namespaces"])})


def _type_name(options: Options) -> str:
    return options.type_url.rpartition("/")[2]


def _unknown(options: Options) -> str:
    return f"options of type {_type_name(options) or '(none)'} are not known here and are ignored"


def _decode(message: M, options: Options) -> M:
    try:
        message.ParseFromString(options.value)
    except DecodeError as error:
        raise InvalidArgumentError(
            f"runtime options: the value is no {_type_name(options)} message ({error})"
        ) from None
    return message


def _common(cls: type[RuncOptions | CheckpointOptions], message: Message) -> dict[str, Any]:
    """The fields that a message and a dataclass have in common."""
    there = message.DESCRIPTOR.fields_by_name
    return {f.name: getattr(message, f.name) for f in fields(cls) if f.name in there}


def _from_runc(options: Options) -> RuncOptions:
    message = _decode(runc_options_pb2.Options(), options)
    return RuncOptions(**_common(RuncOptions, message))


def _from_linux_runc(options: Options) -> RuncOptions:
    from ..proto.linux_runc_pb2 import CreateOptions  # rarely needed, as the two below

    message = _decode(CreateOptions(), options)
    return RuncOptions(**_common(RuncOptions, message))


def _from_runtime(options: Options) -> RuncOptions:
    from ..proto import runtime_options_pb2

    message = _decode(runtime_options_pb2.Options(), options)
    return _from_config(message.config_path, message.config_body)


def _from_cri(options: Options) -> RuncOptions:
    from ..proto import cri_runtime_options_pb2

    message = _decode(cri_runtime_options_pb2.Options(), options)
    return _from_config(message.config_path, b"")


_PARSERS: dict[str, Callable[[Options], RuncOptions]] = {
    "containerd.runc.v1.Options": _from_runc,
    "containerd.linux.runc.CreateOptions": _from_linux_runc,
    "runtimeoptions.v1.Options": _from_runtime,
    "cri.runtimeoptions.v1.Options": _from_cri,
}


def _from_config(path: str, body: bytes) -> RuncOptions:
    """Options in TOML: the text itself (containerd 1.7 and later), else a file of it."""
    if not path and not body:
        return RuncOptions()
    import tomllib  # rarely needed, and every cold shim would wait for it

    where = "config_body" if body else path
    try:
        text = (body or read_file(path, MAX_TOML)).decode()
        table = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        return RuncOptions(notes=(f"runtime options in {where} are ignored: {error}",))
    return _from_table(table, where)


def _from_table(table: dict[str, Any], where: str) -> RuncOptions:
    options, notes = RuncOptions(), []
    kinds = {f.name.replace("_", ""): f.name for f in fields(RuncOptions) if f.name != "notes"}
    for key, value in table.items():
        plain = key.replace("_", "").lower()
        name = kinds.get(plain)
        if name is None:
            if plain not in _NOT_RUNC:
                notes.append(f"runtime option {key} in {where} is not known here and is ignored")
        elif not _fits(getattr(options, name), value):
            notes.append(f"runtime option {key} in {where} has a wrong value and is ignored")
        else:
            options = replace(options, **{name: value})
    return replace(options, notes=tuple(notes))


# The keys of the message itself: CRI sends them along in the text.
_NOT_RUNC = frozenset({"typeurl", "configpath", "configbody"})


def _fits(default: object, value: object) -> bool:
    if type(value) is not type(default):
        return False
    return not isinstance(value, int) or 0 <= value < 2**32
