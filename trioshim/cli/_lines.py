"""The exact lines that make containerd, docker and Kubernetes use this shim.  Pure."""

from __future__ import annotations

from enum import Enum

__all__ = ["Daemon", "lines_for"]

RUNTIME = "io.containerd.trio.v1"
NAME = "trio"

_CRI = """\
[plugins."{plugin}".containerd.runtimes.{name}]
  runtime_type = "{runtime}"
"""


class Daemon(Enum):
    """Who is to be told about the shim."""

    CONTAINERD = "containerd"
    DOCKER = "docker"
    KUBERNETES = "kubernetes"


def lines_for(daemon: Daemon, *, shim: str, containerd: tuple[int, ...] | None) -> str:
    """What to write where, as text with comments.

    Args:
        daemon: who is asked about.
        shim: absolute path of `containerd-shim-trio-v1`.
        containerd: its version on this machine; None: not known, then as for 1.7.
    """
    if daemon is Daemon.DOCKER:
        return _docker(shim)
    lines = _containerd(shim, new=containerd is not None and containerd >= (2, 0))
    return lines if daemon is Daemon.CONTAINERD else lines + _KUBERNETES.format(name=NAME)


def _containerd(shim: str, *, new: bool) -> str:
    plugin = "io.containerd.cri.v1.runtime" if new else "io.containerd.grpc.v1.cri"
    version = 3 if new else 2
    return (
        f"# containerd finds the shim in its PATH:\n"
        f"#   ln -s {shim} /usr/local/bin/\n"
        f"# That is all for ctr: ctr run --runtime {RUNTIME} ...\n"
        "\n"
        f"# For pods, /etc/containerd/config.toml (containerd {'2' if new else '1.6 and 1.7'});\n"
        "# then: systemctl restart containerd\n"
        f"version = {version}\n" + _CRI.format(plugin=plugin, name=NAME, runtime=RUNTIME)
    )


def _docker(shim: str) -> str:
    # JSON has no comments, so what is said about it stands on lines of its own.
    return (
        "# /etc/docker/daemon.json (docker newer than 20.10); then: systemctl restart docker\n"
        f'{{"runtimes": {{"{NAME}": {{"runtimeType": "{shim}"}}}}}}\n'
        f"# docker run --runtime {NAME} ...\n"
    )


_KUBERNETES = """\

# kubectl apply -f -   (a pod then says: runtimeClassName: {name})
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata:
  name: {name}
handler: {name}
"""
