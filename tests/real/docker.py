"""A dockerd on a private containerd, and the `docker` that belongs to it.

Like its containerd it keeps to one directory, one namespace and one cgroup, and it leaves the
host's network alone: no bridge, no firewall rule, no forwarding.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from .poll import eventually
from .releases import ReleasedDaemon
from .requirements import TRIO

IMAGE = "trioshim-test:1"
RUN_FLAGS = ("--network", "none", "--runtime", TRIO)

# The only thing that dockerd makes outside of its own directories, and does not remove.
PLUGINS = Path("/run/docker/plugins")


class Docker:
    """One dockerd; its directory is below that of its containerd, and goes with it."""

    def __init__(self, daemon: ReleasedDaemon) -> None:
        self._programs = daemon.programs
        self._base = daemon.base / "docker"
        self._base.mkdir()
        self._socket = self._base / "d.sock"
        self._log = self._base / "dockerd.log"
        self._adds = [path for path in (PLUGINS, PLUGINS.parent) if not path.exists()]
        self._config = self._base / "daemon.json"
        self._config.write_text(
            json.dumps(_configuration(daemon, self._base, self._socket)), "utf-8"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._programs / "dockerd"), "--config-file", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                start_new_session=True,
            )
        eventually(self._answers, "dockerd's socket")

    def close(self) -> None:
        """Remove its containers and end it."""
        if self._process is None:
            return
        try:
            self.remove_all()
        finally:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
            for path in self._adds:
                with suppress(OSError):  # another dockerd may have come
                    path.rmdir()

    def load(self, rootfs: Path) -> None:
        """Make `IMAGE` of a root file system."""
        with subprocess.Popen(
            ["tar", "-C", str(rootfs), "-c", "."], stdout=subprocess.PIPE
        ) as archive:
            argv = self.argv("import", "--change", "ENV PATH=/bin", "-", IMAGE)
            subprocess.run(argv, stdin=archive.stdout, check=True, capture_output=True, timeout=60)

    def argv(self, *args: str) -> list[str]:
        """For whoever has to run docker in a terminal."""
        # A person's own configuration might name another host.
        home = f"DOCKER_CONFIG={self._base}/client"
        return ["env", home, str(self._programs / "docker"), "-H", f"unix://{self._socket}", *args]

    def __call__(
        self, *args: str, status: int | None = 0, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run docker and insist on its exit status (None: any)."""
        done = subprocess.run(
            self.argv(*args), input=stdin, capture_output=True, text=True, timeout=20, check=False
        )
        if status is not None:
            assert done.returncode == status, f"docker {args}: {done}\n{self.log_tail()}"
        return done

    def run_detached(self, *command: str, flags: tuple[str, ...] = ()) -> str:
        """Start a container of our runtime, without a network; returns its id."""
        return self(*("run", "--detach", *RUN_FLAGS, *flags, IMAGE, *command)).stdout.strip()

    def inspect(self, container: str, what: str) -> str:
        """A field, as in `.State.ExitCode`."""
        return self("inspect", "--format", "{{" + what + "}}", container).stdout.strip()

    def remove_all(self) -> None:
        if containers := self("ps", "--all", "--quiet").stdout.split():
            self("rm", "--force", *containers)

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-lines:])

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"dockerd ended: {self.log_tail()}"
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._socket)) == 0

    def _environment(self) -> dict[str, str]:
        path = f"{self._programs}:{os.environ.get('PATH', os.defpath)}"  # docker-init is there
        return {**os.environ, "PATH": path, "TMPDIR": str(self._base)}


def _configuration(daemon: ReleasedDaemon, base: Path, address: Path) -> dict[str, object]:
    return {
        "hosts": [f"unix://{address}"],
        "data-root": str(base / "root"),
        "exec-root": str(base / "exec"),
        "pidfile": str(base / "dockerd.pid"),
        "containerd": str(daemon.address),
        "containerd-namespace": daemon.namespace,
        "containerd-plugins-namespace": f"{daemon.namespace}-plugins",
        "cgroup-parent": f"/{daemon.namespace}",
        "bridge": "none",
        "iptables": False,
        "ip6tables": False,
        "ip-forward": False,
        "userland-proxy": False,
    }
