"""A shim of one's own: a container is a plain process of this machine, without namespaces.

    python examples/plain_process.py /tmp/plain.sock

serves containerd's Task API there and prints each event.  A bundle is a directory with a
config.json, of which `process.args`, `process.cwd` and `process.env` count.
"""
# ruff: noqa: A002, ARG002 (the port names the arguments)

import json
import os
import socket
import sys
from contextlib import suppress
from typing import Any

import trio

import trioshim
from trioshim.abc import Cgroup, Child, ContainerSpec, ExecSpec, Publisher, Runtime, Stdio
from trioshim.errors import InvalidArgumentError, NotFoundError, UnimplementedError
from trioshim.linux import LinuxKernel, PrivateListener
from trioshim.proto.types_pb2 import Envelope
from trioshim.testing import unpack

# Waits at a gate, fd 3, for a line; without one (the shim has gone) the program never runs.
WAIT = 'read -r go <&3 && cd "$1" && shift && exec "$@" 3<&-'


class PlainProcesses(Runtime):
    def __init__(self, kernel: LinuxKernel) -> None:
        self._kernel = kernel
        self._gates: dict[str, int] = {}  # of containers that are created and not started

    async def create(self, spec: ContainerSpec, stdio: Stdio) -> Child:
        config = await trio.Path(spec.bundle, "config.json").read_bytes()
        init, self._gates[spec.id] = self._spawn(json.loads(config).get("process", {}), stdio)
        return init

    async def start(self, spec: ContainerSpec) -> None:
        self._open(self._gates.pop(spec.id))

    async def kill(self, spec: ContainerSpec, init: Child, signum: int, *, all: bool) -> None:
        with suppress(ProcessLookupError):
            return init.signal(signum)
        raise NotFoundError("process already finished")

    async def delete(self, spec: ContainerSpec, *, force: bool = False) -> None:
        if spec.id in self._gates:  # never started: a gate that closes ends it
            os.close(self._gates.pop(spec.id))

    async def exec(self, spec: ContainerSpec, process: ExecSpec, stdio: Stdio) -> Child:
        child, gate = self._spawn(json.loads(process.process), stdio)
        self._open(gate)
        return child

    def _spawn(self, process: dict[str, Any], stdio: Stdio) -> tuple[Child, int]:
        if stdio.console_socket:
            raise UnimplementedError("a terminal")
        if not process.get("args"):
            raise InvalidArgumentError("process.args is empty: nothing to run")
        argv = ["/bin/sh", "-c", WAIT, "sh", process.get("cwd", "/"), *process["args"]]
        env = dict(pair.split("=", 1) for pair in process.get("env", []))
        theirs, gate = os.pipe()
        try:
            return self._kernel.spawn(argv, fds={**stdio.fds, 3: theirs}, env=env), gate
        except BaseException:
            os.close(gate)
            raise
        finally:
            os.close(theirs)

    def _open(self, gate: int) -> None:
        with suppress(BrokenPipeError), open(gate, "wb") as file:  # it may have been killed
            file.write(b"go\n")


class PlainKernel(LinuxKernel):
    def cgroup(self, pid: int) -> Cgroup:
        raise OSError("a plain process has no cgroup of its own")


class Printer(Publisher):
    async def publish(self, envelope: Envelope) -> None:
        print(envelope.topic, str(unpack(envelope)).replace("\n", " "), flush=True)

    async def aclose(self) -> None: ...


async def main(path: str) -> None:
    kernel, sock = PlainKernel(), socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    listener, runtime = PrivateListener(sock), PlainProcesses(kernel)
    await trioshim.serve(listener, runtime=runtime, kernel=kernel, publisher=Printer())
    os.unlink(path)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
