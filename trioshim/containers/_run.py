"""`run_container`: to the end of it, as `trio.run_process` runs a process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Unpack

import trio

from ..errors import ShimError
from ..ttrpc._shelter import open_shelter, undisturbed
from ._ending import Deliver
from ._open import NAMESPACE, SHIM, open_container
from ._options import ContainerOptions, StrPath
from ._outputs import DEVNULL, PIPE, Output
from ._process import ContainerProcess
from ._spec import Terminal
from ._store import STATE_DIR

__all__ = ["CompletedContainer", "ContainerFailedError", "run_container"]


@dataclass(frozen=True, slots=True)
class CompletedContainer:
    """How a container, or a process in one, has ended.

    Attributes:
        args: the command line.
        id: of the container.
        returncode: 0 to 255, 128 and the signal's number if a signal ended it.
        stdout, stderr: what it wrote, if that was captured; else None.
    """

    args: list[str]
    id: str
    returncode: int
    stdout: bytes | None = None
    stderr: bytes | None = None

    def check_returncode(self) -> None:
        """Raise ContainerFailedError unless it is 0."""
        if self.returncode:
            raise ContainerFailedError(self)


class ContainerFailedError(Exception):
    """A container ended with a status other than 0.

    Attributes:
        completed: all about its end.
    """

    def __init__(self, completed: CompletedContainer) -> None:
        said = (completed.stderr or b"").decode(errors="replace").strip()[-500:]
        super().__init__(
            f"{' '.join(completed.args)} in container {completed.id} ended with "
            f"{completed.returncode}{_signal(completed.returncode)}{said and f': {said}'}"
        )
        self.completed = completed

    @property
    def returncode(self) -> int:
        """The status that it ended with."""
        return self.completed.returncode


def _signal(returncode: int) -> str:
    return f" (signal {returncode - 128})" if 128 < returncode <= 128 + 64 else ""


async def run_container(
    args: Sequence[str] = (),
    *,
    stdin: bytes | int = b"",
    capture_stdout: bool = False,
    capture_stderr: bool = False,
    check: bool = True,
    stdout: Output = None,
    stderr: Output = None,
    terminal: Terminal = False,
    deliver_cancel: Deliver | None = None,
    id: str | None = None,  # noqa: A002 (containerd's word)
    namespace: str = NAMESPACE,
    shim: StrPath = SHIM,
    state_dir: StrPath = STATE_DIR,
    **options: Unpack[ContainerOptions],
) -> CompletedContainer:
    """Run a container to its end, and delete it.

    Cancelled, it ends the container first: see `open_container`.

    Args:
        args, stdout, stderr, terminal, deliver_cancel, id, namespace, shim, state_dir: see
            `open_container`.
        stdin: what it reads, then its end; or DEVNULL.
        capture_stdout, capture_stderr: keep what it writes, in the result.
        check: raise if it ends with another status than 0.
        options: see `ContainerOptions`.

    Raises:
        ContainerFailedError: with `check`: it has ended with another status than 0.
        ValueError, OSError, LaunchError, ShimError: see `open_container`.
    """
    container = open_container(
        args,
        stdin=_kind(stdin),
        stdout=_captured(stdout, capture_stdout, "stdout"),
        stderr=_captured(stderr, capture_stderr, "stderr"),
        terminal=terminal,
        deliver_cancel=deliver_cancel,
        id=id,
        namespace=namespace,
        shim=shim,
        state_dir=state_dir,
        **options,
    )
    completed = await run_to_its_end(container, stdin)
    if check:
        completed.check_returncode()
    return completed


def _kind(stdin: bytes | int) -> int:
    if isinstance(stdin, int):
        if stdin != DEVNULL:
            raise ValueError(f"stdin={stdin}: give bytes or DEVNULL; PIPE is for open_container")
        return stdin
    return PIPE if stdin else DEVNULL


def _captured(output: Output, capture: bool, name: str) -> Output:
    if not capture:
        if output == PIPE:
            raise ValueError(f"{name}=PIPE is for open_container: say capture_{name}=True")
        return output
    if output is not None:
        raise ValueError(f"{name} and capture_{name}: only one of them")
    return PIPE


async def run_to_its_end(
    process: AbstractAsyncContextManager[ContainerProcess], stdin: bytes | int
) -> CompletedContainer:
    """Open a process, feed it, read it, and say how it has ended."""
    out, err = bytearray(), bytearray()
    async with process as running, open_shelter() as helpers:
        captured = running.stdout is not None, running.stderr is not None
        if running.stdin is not None and stdin != DEVNULL:
            data = stdin if isinstance(stdin, bytes) else b""
            helpers.start_soon(_feed, running.stdin, data)
        all_read = [
            _read_soon(helpers, stream, kept)
            for stream, kept in ((running.stdout, out), (running.stderr, err))
            if stream is not None
        ]
        returncode = await running.wait()
        for read in all_read:
            await read.wait()
        return CompletedContainer(
            running.args,
            running.id,
            returncode,
            bytes(out) if captured[0] else None,
            bytes(err) if captured[1] else None,
        )


@undisturbed
async def _feed(stream: trio.abc.SendStream, data: bytes) -> None:
    # It has ended, or reads no more: as with trio.run_process, that is its business.
    with suppress(trio.BrokenResourceError):
        await stream.send_all(data)
    with suppress(ShimError):  # whoever waits for it hears of that
        await stream.aclose()


def _read_soon(
    helpers: trio.Nursery, stream: trio.abc.ReceiveStream, into: bytearray
) -> trio.Event:
    """Read it to its end; the event says that it has come."""
    done = trio.Event()
    helpers.start_soon(_read, stream, into, done)
    return done


@undisturbed
async def _read(stream: trio.abc.ReceiveStream, into: bytearray, done: trio.Event) -> None:
    async for chunk in stream:
        into += chunk
    done.set()
