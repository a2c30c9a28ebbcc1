"""What containerd says when it runs this binary, and what follows from it.  Pure.

Every daemon from 1.3 to 2.4 is understood: the flags never changed, the standard input of `start`
did (2.3), and one answer fits all: a plain `unix://` address, which means ttrpc.  gRPC is announced
on request only.  Here is what is decided; `_start`, `_delete` and `_info` do it.  Nothing here
imports trio, protobuf, dataclasses or typing: `start` and `delete` run once for each container, and
every import is paid each time.
"""

from __future__ import annotations

from posixpath import join, normpath

from .._plain import Choice, Record
from ._wire import Fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import ClassVar

    from ._arguments import Arguments

NAME = "containerd-shim-trio-v1"
SOCKET_DIRECTORY = "/run/containerd/s"
STDIN_LIMIT = 10 << 20

# sockaddr_un holds 108 bytes with the final NUL.  containerd 2.3 allows a socket_dir of 42
# characters, which with "/" and 64 digits is exactly this.
_SOCKET_PATH_LIMIT = 107
_LOG_LEVEL_DEBUG = -4
_SWITCH = {"on": True, "1": True, "off": False, "0": False}
_TEMPLATE_DEFAULT = "on"

_RUNC_OPTIONS = "containerd.runc.v1.Options"
# Which field holds `shim_cgroup` in the option messages that have one.
_SHIM_CGROUP_FIELD = {_RUNC_OPTIONS: 3, "containerd.linux.runc.CreateOptions": 9}
_BINARY_NAME_FIELD = {_RUNC_OPTIONS: 6}


class Wire(Choice):
    """What the daemon is to speak to the shim, which understands both."""

    __slots__ = ()
    TTRPC: ClassVar[Wire]
    GRPC: ClassVar[Wire]


Wire.TTRPC = Wire("ttrpc")
Wire.GRPC = Wire("grpc")


class Bootstrap(Record):
    """What `start` is told on its standard input; immutable.

    Attributes:
        options: pairs of type name (without the part up to the last "/") and serialized message.
        socket_dir: where to make the socket; "" for the default.
        debug: the log level is debug or trace.
        address: the daemon's gRPC socket; "" before 2.3.
        ttrpc_address: the daemon's ttrpc socket; "" before 2.3.
        daemon_version: "" before 2.3.
    """

    __slots__ = ("address", "daemon_version", "debug", "options", "socket_dir", "ttrpc_address")
    options: tuple[tuple[str, bytes], ...]
    socket_dir: str
    debug: bool
    address: str
    ttrpc_address: str
    daemon_version: str

    def __init__(
        self,
        options: tuple[tuple[str, bytes], ...] = (),
        socket_dir: str = "",
        debug: bool = False,
        address: str = "",
        ttrpc_address: str = "",
        daemon_version: str = "",
    ) -> None:
        self._set(
            options=options,
            socket_dir=socket_dir,
            debug=debug,
            address=address,
            ttrpc_address=ttrpc_address,
            daemon_version=daemon_version,
        )


# ---------------------------------------------------------------- standard input


def read_bootstrap(data: bytes, id: str, namespace: str) -> Bootstrap:  # noqa: A002 (the flag)
    """Understand the standard input of `start`.

    Up to containerd 2.2 it is empty or an Any with the runtime options, since 2.3 it is a
    BootstrapParams.  Either can be decoded as the other, so it is BootstrapParams only if it
    repeats the id and the namespace of the command line.  What is neither counts as no options:
    the daemons since 1.7 do not fail a start for that.

    Args:
        data: all of it.
        id: `-id`.
        namespace: `-namespace`.
    """
    try:
        fields = Fields(data)
        if _text(fields, 1) == id and _text(fields, 2) == namespace:
            return _read_params(fields)
        return Bootstrap(options=_read_any(data))
    except ValueError:
        return Bootstrap()


def _text(fields: Fields, number: int) -> str:
    return fields.block(number).decode("utf-8", "replace")


def _read_params(fields: Fields) -> Bootstrap:
    extensions = [Fields(extension).block(1) for extension in fields.all(8)]
    return Bootstrap(
        options=tuple(option for extension in extensions for option in _read_any(extension)),
        socket_dir=fields.text(9),
        debug=fields.integer(3) <= _LOG_LEVEL_DEBUG,
        address=fields.text(6),
        ttrpc_address=fields.text(5),
        daemon_version=fields.text(4),
    )


def _read_any(data: bytes) -> tuple[tuple[str, bytes], ...]:
    fields = Fields(data)
    name = fields.text(1).rpartition("/")[2]
    return ((name, fields.block(2)),) if name else ()


def _option(options: tuple[tuple[str, bytes], ...], numbers: Mapping[str, int]) -> str:
    """A string out of the first option message that has it; "" too if it cannot be read."""
    for name, value in options:
        try:
            text = Fields(value).text(numbers[name]) if name in numbers else ""
        except ValueError:
            continue
        if text:
            return text
    return ""


def shim_cgroup(bootstrap: Bootstrap) -> str:
    """The cgroup that the server is to live in, relative to the root of each hierarchy, or "".

    Raises:
        ValueError: it would lead out of the hierarchy.
    """
    path = _option(bootstrap.options, _SHIM_CGROUP_FIELD)
    if ".." in path.split("/"):
        raise ValueError(f"shim_cgroup {path!r} must not contain '..'")
    return path.strip("/")


def runtime_binary(options: bytes) -> str:
    """The name of the runtime in a serialized Any of options: `binary_name`, else `runc`.

    Raises:
        ValueError: it is no Any.
    """
    return _option(_read_any(options), _BINARY_NAME_FIELD) or "runc"


# ---------------------------------------------------------------- the answer


def wanted_wire(environ: Mapping[str, str], bootstrap: Bootstrap) -> Wire:
    """What `start` is to announce: ttrpc, unless TRIOSHIM_PROTOCOL says `grpc`.

    Of all the daemons only 1.7 can speak gRPC to a shim: those before it take the answer for the
    name of a socket, those after it hang up on the shim at once.  2.0 to 2.2 cannot be told from
    1.7 here; they refuse the answer themselves.

    Raises:
        ValueError: it says something else, or this daemon cannot do it.
    """
    word = environ.get("TRIOSHIM_PROTOCOL", "") or Wire.TTRPC.value
    choices = {wire.value: wire for wire in (Wire.TTRPC, Wire.GRPC)}
    if word not in choices:
        raise ValueError(f"TRIOSHIM_PROTOCOL={word!r} is not known: choose {' or '.join(choices)}")
    if choices[word] is Wire.GRPC:
        _check_daemon_speaks_grpc(environ, bootstrap)
    return choices[word]


def _check_daemon_speaks_grpc(environ: Mapping[str, str], bootstrap: Bootstrap) -> None:
    # 1.7 was the first that told its gRPC address, 2.3 the first that told its version.
    if environ.get("GRPC_ADDRESS") and not bootstrap.daemon_version:
        return
    version = bootstrap.daemon_version or "older"
    raise ValueError(
        f"TRIOSHIM_PROTOCOL=grpc works with containerd 1.7 only, and this one is {version}:"
        " take it out of containerd's environment"
    )


def announcement(address: str, wire: Wire, *, several: bool = False) -> str:
    """What `start` answers, and the bundle's `address` keeps for a daemon that comes back.

    Args:
        address: `unix://` and a path.
        wire: gRPC takes JSON, in which 1.7 wants the bare path: it dials it as it stands.
        several: tell the daemon that it may create more containers there unasked (version 3).
            Not for the file `address`: an older daemon could not read it.
    """
    if wire is Wire.TTRPC and not several:
        return address
    import json  # takes as long as all the rest of `start`: for those who asked

    version, where = (3, address) if wire is Wire.TTRPC else (2, plain_path(address))
    answer = {"version": version, "address": where, "protocol": wire.value}
    return json.dumps(answer, ensure_ascii=False)


def announced_path(text: str) -> str:
    """The path of the socket in an announcement, of this shim or of another one.

    Raises:
        ValueError: it looks like JSON and is none, or has no address.
    """
    if not text.startswith("{"):
        return plain_path(text)
    import json

    address = json.loads(text).get("address")
    if not isinstance(address, str):
        raise ValueError(f"no address in {text[:200]!r}")
    return plain_path(address)


def wants_template(environ: Mapping[str, str]) -> bool:
    """Whether `start` may have its server forked by a template: unless TRIOSHIM_TEMPLATE is `off`.

    Core scheduling (SCHED_CORE) is for a process group, and a forked shim comes from another one.

    Raises:
        ValueError: it says neither on nor off.
    """
    word = environ.get("TRIOSHIM_TEMPLATE", "") or _TEMPLATE_DEFAULT
    if word not in _SWITCH:
        raise ValueError(f"TRIOSHIM_TEMPLATE={word!r} is not known: choose on or off")
    return _SWITCH[word] and not environ.get("SCHED_CORE")


# ---------------------------------------------------------------- addresses and the server


def socket_address(address: str, namespace: str, id: str, directory: str = "") -> str:  # noqa: A002
    """Where the shim of a container listens: `unix://<directory>/<SHA-256 of all three>`.

    The same rule as containerd's own shims since CVE-2020-15257, so that two daemons, or two
    namespaces, never meet.

    Args:
        address: the daemon's gRPC socket, as given by `-address`.
        namespace: containerd's namespace.
        id: the container's id.
        directory: absolute; "" for `/run/containerd/s`.

    Raises:
        ValueError: the directory is relative, or too long for a unix socket.
    """
    key = normpath("/".join(part for part in (address, namespace, id) if part))
    if key.startswith("//"):  # POSIX keeps two slashes at the front, Go does not
        key = key[1:]
    return hashed_address(key, directory)


def hashed_address(key: str, directory: str) -> str:
    """A socket whose name is the hash of a key; for the rest see `socket_address`."""
    directory = directory or SOCKET_DIRECTORY
    if not directory.startswith("/"):
        raise ValueError(f"socket directory {directory!r} must be an absolute path")
    path = join(normpath(directory), sha256(key.encode("utf-8", "surrogateescape")))
    if (size := len(path.encode("utf-8", "surrogateescape"))) > _SOCKET_PATH_LIMIT:
        raise ValueError(
            f"socket path {path} has {size} bytes, at most {_SOCKET_PATH_LIMIT} are possible:"
            " use a shorter socket directory"
        )
    return "unix://" + path


def sha256(data: bytes) -> str:
    """In hexadecimal."""
    # hashlib loads OpenSSL, which costs more than all the rest of this module; the built-in
    # module has had two names (_sha2 since Python 3.12) and may be left out of a build.
    for name in ("_sha2", "_sha256", "hashlib"):
        try:
            return str(__import__(name).sha256(data).hexdigest())
        except ImportError:
            continue
    raise ImportError("this Python has no SHA-256")


def plain_path(address: str) -> str:
    """A socket's path, with or without `unix://` in front."""
    return address.removeprefix("unix://")


def ttrpc_address(environ: Mapping[str, str], arguments: Arguments) -> str:
    """The path of the daemon's ttrpc socket, where events go; "" if nobody told.

    Args:
        environ: TTRPC_ADDRESS in it comes first.
        arguments: else `<-address>.ttrpc`, the daemon's default.
    """
    told = plain_path(environ.get("TTRPC_ADDRESS", ""))
    address = plain_path(arguments.address)
    return told or (address + ".ttrpc" if address else "")


def server_argv(executable: str, arguments: Arguments) -> list[str]:
    """The command line of the server that `start` leaves behind.

    `-I` keeps PYTHONPATH and its kin, which come with the daemon's environment, out of it.
    """
    argv = [executable, "-I", "-m", "trioshim", "-namespace", arguments.namespace]
    argv += ["-id", arguments.id, "-address", arguments.address]
    argv += ["-group", arguments.group] if arguments.group else []
    return [*argv, "-debug"] if arguments.debug else argv


def server_environment(environ: Mapping[str, str], bootstrap: Bootstrap) -> dict[str, str]:
    """The environment of the server: the daemon's, without systemd's NOTIFY_SOCKET.

    What BootstrapParams says about addresses fills in what a later daemon may leave out.
    """
    told = {"TTRPC_ADDRESS": bootstrap.ttrpc_address, "GRPC_ADDRESS": bootstrap.address}
    kept = {key: value for key, value in environ.items() if key != "NOTIFY_SOCKET"}
    return {key: value for key, value in told.items() if value} | kept
