"""The plain data that crosses the ports: what was asked for, and how a process ended.

Frozen, comparable, free of tasks and file descriptors.  Public as names of `trioshim.abc`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "CheckpointSpec",
    "ContainerSpec",
    "ExecSpec",
    "Exit",
    "Mount",
    "Options",
    "StdioSpec",
]


@dataclass(frozen=True, slots=True)
class Exit:
    """How and when a process ended.

    Attributes:
        status: 0 to 255; 128 + the signal's number when a signal ended it.
        at: wall clock, nanoseconds since 1970; taken when the exit was collected.
    """

    status: int
    at: int


@dataclass(frozen=True, slots=True)
class Mount:
    """One entry of Create's rootfs, as containerd sends it."""

    type: str
    source: str
    target: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """Runtime options as they came: opaque to everybody but the runtime."""

    type_url: str = ""
    value: bytes = b""


@dataclass(frozen=True, slots=True)
class StdioSpec:
    """Where the standard streams of one process go.

    Attributes:
        id: the process's id: the container's, or the exec's.  A logger gets it as CONTAINER_ID.
        namespace: containerd's namespace.
        stdin, stdout, stderr: "", the path of a fifo, or a URL (`fifo`, `file`, `binary`,
            `binary-v2`); the scheme of `stdout` decides for all three.
        terminal: one pty for all three instead of pipes.
        uid, gid: owner of the container's ends of the pipes (runc's io_uid and io_gid).
    """

    id: str = ""
    namespace: str = ""
    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What Create asks for.

    Attributes:
        id: containerd's id, already checked to be an identifier.
        bundle: absolute path of the bundle directory.
        rootfs: mounts to make on `<bundle>/rootfs`, in order.
        io: the streams of init.
        checkpoint: path of an image to restore from; "" to create afresh.
        options: the runtime's own options.
    """

    id: str
    bundle: str
    rootfs: tuple[Mount, ...] = ()
    io: StdioSpec = field(default_factory=StdioSpec)
    checkpoint: str = ""
    options: Options = field(default_factory=Options)


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """One more process for a container: an OCI `process` object as JSON text, and its streams."""

    id: str
    process: bytes
    io: StdioSpec = field(default_factory=StdioSpec)


@dataclass(frozen=True, slots=True)
class CheckpointSpec:
    """What Checkpoint asks for: where to, and the runtime's own options."""

    path: str
    options: Options = field(default_factory=Options)
