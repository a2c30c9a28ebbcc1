"""A shim's program, run as containerd runs it: `start` and `delete`.

A program runs in a process group of its own, which ends at the time limit.  Not for the process
of a shim: there every child has one waiter, the kernel port.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import trio
from google.protobuf.message import DecodeError

from ..errors import ShimError
from ..proto.task_v2_pb2 import DeleteResponse
from ._shim_answer import Answer, read_answer

__all__ = ["LaunchError", "ShimBinary", "find_program"]

_DELETE_SECONDS = 10.0  # containerd has 5, before it kills
_SAID = 2000  # bytes of its output that go into an error


class LaunchError(ShimError):
    """A shim could not be started, met or ended.

    Attributes:
        argv: the command line, if it was a verb of the program that failed.
        status: its exit status, negative for a signal; None: it had not ended.
        said: what it wrote, or its log, shortened.
    """

    def __init__(
        self,
        message: str,
        *,
        argv: tuple[str, ...] = (),
        status: int | None = None,
        said: str = "",
    ) -> None:
        super().__init__(f"{message}: {said}" if said else message)
        self.argv = argv
        self.status = status
        self.said = said


def find_program(binary: str | os.PathLike[str]) -> str:
    """The absolute path of a shim's program: in PATH, else beside our own Python.

    Raises:
        LaunchError: it is not there, or may not be executed.
    """
    own = os.path.dirname(sys.executable)
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), own])
    found = shutil.which(binary, path=path)
    if found is None:
        raise LaunchError(f"no program {os.fspath(binary)!r} in PATH or in {own}")
    return os.path.abspath(found)


def shorten(output: bytes) -> str:
    """The end of what a program said: that is where the error is."""
    return output[-_SAID:].decode("utf-8", "replace").strip()


@dataclass(frozen=True, slots=True)
class ShimBinary:
    """What the verbs of one shim have in common.

    Attributes:
        program: absolute path.
        bundle: absolute path; the working directory of both verbs.
        id, namespace: of the container.
        address: for `-address`.
        debug: pass `-debug` to `start`; containerd 1.6 never does to `delete`.
        environ: the whole environment.
    """

    program: str
    bundle: str
    id: str
    namespace: str
    address: str
    debug: bool
    environ: Mapping[str, str]

    async def start(self, options: bytes, *, seconds: float) -> Answer:
        """Run `start`, and understand what it says.

        Args:
            options: for its standard input.
            seconds: how long it has.

        Raises:
            LaunchError: it cannot be run, fails, takes too long, or says nonsense.
        """
        debug = ["-debug"] if self.debug else []
        argv = [*self._flags(), *debug, "start"]
        said = await self._run(argv, options, seconds)
        try:
            return read_answer(said)
        except ValueError as error:
            message = f"{self.program} start answered nonsense: {error}"
            raise LaunchError(message, argv=tuple(argv), status=0) from None

    async def delete(self) -> DeleteResponse:
        """Run `delete`, which kills the container if it is there, and unmounts its rootfs.

        Raises:
            LaunchError: it cannot be run, fails, takes longer than 10 seconds, or says nonsense.
        """
        argv = [*self._flags(), "-bundle", self.bundle, "delete"]
        said = await self._run(argv, b"", _DELETE_SECONDS)
        try:
            return DeleteResponse.FromString(said)
        except DecodeError as error:
            message = f"{self.program} delete answered nonsense: {error}"
            raise LaunchError(message, argv=tuple(argv), status=0) from None

    def _flags(self) -> list[str]:
        flags = ["-namespace", self.namespace, "-address", self.address]
        return [self.program, *flags, "-publish-binary", "containerd", "-id", self.id]

    async def _run(self, argv: list[str], stdin: bytes, seconds: float) -> bytes:
        name = f"{self.program} {argv[-1]}"
        try:
            with trio.fail_after(seconds):
                done = await trio.run_process(
                    argv,
                    stdin=stdin,
                    cwd=self.bundle,
                    env=self.environ,
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                    process_group=0,
                    deliver_cancel=_kill_group,
                )
        except trio.TooSlowError:
            message = (
                f"{name} did not end in {seconds:g} seconds,"
                " or what it left behind keeps its output open"
            )
            raise LaunchError(message, argv=tuple(argv)) from None
        except OSError as error:
            raise LaunchError(f"cannot run {name}: {error}", argv=tuple(argv)) from error
        if done.returncode:
            message, said = f"{name} ended with status {done.returncode}", done.stdout + done.stderr
            raise LaunchError(message, argv=tuple(argv), status=done.returncode, said=shorten(said))
        return done.stdout


async def _kill_group(process: trio.Process) -> None:
    if process.poll() is None:  # else the group's number may be another's by now
        os.killpg(process.pid, signal.SIGKILL)
    await trio.lowlevel.checkpoint()
