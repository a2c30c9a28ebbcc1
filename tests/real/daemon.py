"""A containerd of one's own: own root, state, socket and namespace, nothing of the host's touched.

Two things are shared by every containerd of a host all the same: the shims' sockets in
/run/containerd/s and runc's state in /run/containerd/runc/<namespace>.  So each daemon here has
a namespace that nobody else has.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from . import leaks
from .events import EventStream
from .images import IMAGE
from .poll import eventually

# The CRI plugin wants a network and capabilities; `opt` makes directories in /opt.
_CONFIG = """\
version = 2
root = "{base}/root"
state = "{base}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{base}/c.sock"
[debug]
level = "{level}"
"""

# PID 1 ignores signals that it has no handler for; this one ends at TERM with 42.
OBEDIENT = ("sh", "-c", "trap 'exit 42' TERM; echo ready; while :; do sleep 0.1; done")


class Daemon:
    """A private containerd and its `ctr`.

    Attributes:
        base: the directory that holds everything; short, for a socket's path ends at 107 bytes.
        namespace: the one namespace of all its containers.
        events: what `ctr events` has printed; goes on over restarts.
        excused: containers whose events need not keep the laws (their shim was killed).
    """

    def __init__(
        self, *, path: Sequence[str] = (), home: str | None = None, debug: bool = False
    ) -> None:
        """Make its directory; nothing runs yet.

        Args:
            path: comes first in the PATH of containerd, its shims and runc.
            home: their HOME.
            debug: containerd and its shims log all they can.
        """
        # Not mkdtemp: its names may hold what a namespace may not.
        self.namespace = f"trs-{secrets.token_hex(4)}"
        self.base = Path("/tmp", self.namespace)
        self.base.mkdir(mode=0o700)
        self.address = self.base / "c.sock"
        self.log = self.base / "containerd.log"
        self.excused: set[str] = set()
        self.events = EventStream(self._argv("events"), self._touch)
        self._config = self.base / "config.toml"
        self._config.write_text(
            _CONFIG.format(base=self.base, level="debug" if debug else "info"), "utf-8"
        )
        self._environment = _environment(path, home)
        temporary = self.base / "tmp"  # ctr leaves its checkpoints there
        temporary.mkdir()
        self._environment["TMPDIR"] = str(temporary)
        self._process: subprocess.Popen[bytes] | None = None
        self._ids = 0

    # ------------------------------------------------------------ its life

    @property
    def own_pids(self) -> set[int]:
        """containerd itself and our listener."""
        return {self._process.pid if self._process else 0, self.events.pid}

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["containerd", "--config", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        eventually(self._answers, "containerd's socket")
        self.events.open()

    def kill(self) -> None:
        """SIGKILL, as the OOM killer would; shims and containers go on."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, as systemd would; shims and containers go on."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Kill it and start it anew on the same state."""
        self.kill()
        self.start()

    def close(self) -> None:
        """End everything and remove every trace."""
        try:
            if self._process is not None:
                self.remove_all()
            self.stop()
        finally:
            leaks.sweep(self.base, self.namespace, self.events.containers())
            shutil.rmtree(self.base, ignore_errors=True)

    def forwarded(self) -> list[str]:
        """The tasks' events that containerd has taken from shims, in all its lives (debug only)."""
        return re.findall(r"event forwarded.* topic=/tasks/(\S+)", self.log.read_text("utf-8"))

    def log_tail(self, lines: int = 60) -> str:
        text = self.log.read_text("utf-8", "replace") if self.log.exists() else ""
        told = [line for line in text.splitlines() if "loading plugin" not in line]
        return "\n".join(told[-lines:])

    # ------------------------------------------------------------ its client

    def ctr(
        self, *args: str, status: int | None = 0, within: float = 60.0, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run ctr and insist on its exit status (None: any)."""
        done = subprocess.run(
            self._argv(*args),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )
        if status is not None:
            assert done.returncode == status, f"ctr {args}: {done}\n{self.log_tail(20)}"
        return done

    def ctr_argv(self, *args: str) -> list[str]:
        """For whoever has to run ctr in a way of his own: in a terminal, in the background."""
        return self._argv(*args)

    def new_id(self, stem: str) -> str:
        self._ids += 1
        return f"{stem}-{self._ids}"

    def run_detached(self, runtime: str, *command: str, flags: tuple[str, ...] = ()) -> str:
        """Start a container that sleeps, or runs `command`; returns its id."""
        container = self.new_id("box")
        self.ctr(
            *("run", "--detach", "--fifo-dir", str(self.base / "fifo"), "--runtime", runtime),
            *(*flags, IMAGE, container, *(command or ("sleep", "1000"))),
        )
        return container

    def status(self, container: str) -> str:
        """RUNNING, STOPPED, PAUSED, CREATED; "" when there is no such task."""
        return next((row[2] for row in self.tasks() if row[0] == container), "")

    def init_pid(self, container: str) -> int:
        return next(int(row[1]) for row in self.tasks() if row[0] == container)

    def shim_pid(self, container: str) -> int:
        """The parent of init: whatever its command line looks like, that is the shim."""
        stat = Path(f"/proc/{self.init_pid(container)}/stat").read_text("utf-8")
        return int(stat.rpartition(")")[2].split()[1])

    def tasks(self) -> list[list[str]]:
        """Rows of id, pid and status."""
        return [line.split() for line in self.ctr("task", "ls").stdout.splitlines()[1:]]

    def bundle(self, container: str) -> Path:
        return self.base / "state/io.containerd.runtime.v2.task" / self.namespace / container

    def remove(self, container: str) -> None:
        """Remove a container, whatever state it is in."""
        self.ctr("task", "rm", "--force", container, status=None)
        self.ctr("container", "rm", container, status=None)

    def remove_all(self) -> None:
        for row in self.tasks():
            if row[2] == "PAUSED":
                self.ctr("task", "resume", row[0], status=None)
        for container in self.ctr("container", "ls", "-q").stdout.split():
            self.remove(container)

    # ------------------------------------------------------------ inside

    def _argv(self, *args: str) -> list[str]:
        return ["ctr", "--address", str(self.address), "--namespace", self.namespace, *args]

    def _touch(self, mark: str) -> None:
        # An update of a namespace that is not there fails without an event.
        self.ctr("namespace", "create", self.namespace, status=None)
        self.ctr("namespace", "label", self.namespace, f"mark={mark}")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"containerd ended: {self.log_tail()}"
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.address)) == 0

    def _end(self, signum: signal.Signals) -> None:
        self.events.close()
        if self._process is None:
            return
        self._process.send_signal(signum)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(15)
        self._process.kill()
        self._process.wait()
        self._process = None


def _environment(path: Sequence[str], home: str | None) -> dict[str, str]:
    own = str(Path(sys.executable).parent)  # where containerd-shim-trio-v1 is
    environment = dict(os.environ)
    environment["PATH"] = ":".join([*path, own, environment.get("PATH", os.defpath)])
    if home is not None:
        environment["HOME"] = home
    # Without .pyc files a Python shim takes three times as long to start.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def watch(daemon: Daemon) -> Callable[[], list[str]]:
    """Look at the world now; the function that is returned says what has been left behind since."""

    def look() -> set[str]:
        return leaks.look(daemon.base, daemon.namespace, daemon.events.containers())

    before = look()

    def left() -> list[str]:
        own = tuple(f"process {pid}:" for pid in daemon.own_pids)
        return sorted(trace for trace in look() - before if not trace.startswith(own))

    return left
