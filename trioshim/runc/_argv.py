"""What is typed on runc's command line, as data.

Pure: the same arguments give the same words, and nothing is run here.  Two halves: `Program` is
everything in front of the verb, and one function for each verb gives the verb and what follows.
All ids and paths are separate words or follow a flag, so nothing here is ever quoted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._options import CheckpointOptions, RuncOptions

Words = tuple[str, ...]


class Verb(StrEnum):
    """The commands of runc that a shim uses.  Each is the first of its words."""

    CREATE = "create"
    START = "start"
    EXEC = "exec"
    RESTORE = "restore"
    KILL = "kill"
    PAUSE = "pause"
    RESUME = "resume"
    UPDATE = "update"
    CHECKPOINT = "checkpoint"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Program:
    """How runc is called, whatever the verb.

    Attributes:
        binary: name (looked up in PATH) or path of the program.
        root: where it keeps the state of this namespace's containers.
        criu: path of criu; only runc before 1.2 listens to it.
        systemd_cgroup: cgroups are made through systemd.
    """

    binary: str
    root: str
    criu: str = ""
    systemd_cgroup: bool = False

    def argv(self, log: str, words: Words) -> Words:
        """The whole command line; runc writes its log to the file `log`, as JSON lines."""
        return (
            *(self.binary, "--root", self.root, "--log", log, "--log-format", "json"),
            *_option("--criu", self.criu),
            *_flag("--systemd-cgroup", self.systemd_cgroup),
            *words,
        )


def create(
    container: str, options: RuncOptions, *, bundle: str, pid_file: str, console: str = ""
) -> Words:
    return (
        *(Verb.CREATE, "--bundle", bundle, "--pid-file", pid_file),
        *_option("--console-socket", console),
        *_flag("--no-pivot", options.no_pivot_root),
        *_flag("--no-new-keyring", options.no_new_keyring),
        container,
    )


def start(container: str) -> Words:
    return (Verb.START, container)


def exec_(container: str, *, process: str, pid_file: str, console: str = "") -> Words:
    return (
        *(Verb.EXEC, "--process", process),
        *_option("--console-socket", console),
        *("--detach", "--pid-file", pid_file, container),
    )


def restore(
    container: str,
    options: RuncOptions,
    *,
    image: str,
    bundle: str,
    pid_file: str,
    console: str = "",
) -> Words:
    work = options.criu_work_path or f"{bundle}/work"
    return (
        *(Verb.RESTORE, "--image-path", image, "--work-path", work),
        *("--detach", "--pid-file", pid_file),
        *_option("--console-socket", console),
        *_flag("--no-pivot", options.no_pivot_root),
        # The shim is the subreaper: the restored init has to become its child, not runc's.
        *("--no-subreaper", "--bundle", bundle, container),
    )


def kill(container: str, signum: int, *, everyone: bool) -> Words:
    return (Verb.KILL, *_flag("--all", everyone), container, str(signum))


def pause(container: str) -> Words:
    return (Verb.PAUSE, container)


def resume(container: str) -> Words:
    return (Verb.RESUME, container)


def update(container: str) -> Words:
    """The new limits come as JSON on standard input."""
    return (Verb.UPDATE, "--resources=-", container)


def checkpoint(container: str, options: CheckpointOptions, *, image: str, work: str) -> Words:
    return (
        *(Verb.CHECKPOINT, "--image-path", image, "--work-path", work),
        *_option("--parent-path", options.parent_path),
        *_flag("--tcp-established", options.open_tcp),
        *_flag("--ext-unix-sk", options.external_unix_sockets),
        *_flag("--shell-job", options.terminal),
        *_flag("--file-locks", options.file_locks),
        *(word for name in options.empty_namespaces for word in ("--empty-ns", name)),
        *_flag("--leave-running", not options.exit),
        container,
    )


def delete(container: str, *, force: bool) -> Words:
    return (Verb.DELETE, *_flag("--force", force), container)


def _flag(name: str, wanted: bool) -> Words:
    return (name,) if wanted else ()


def _option(name: str, value: str) -> Words:
    return (name, value) if value else ()
