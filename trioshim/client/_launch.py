"""Any shim, for as long as a block lasts: started, met and ended as containerd does it.

Promises: whatever happens, and wherever a cancellation strikes, there is no shim, no socket and
no container `id` when the block is over (`_shim_life`).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import trio

from ..bootstrap import check_identifier
from ..ttrpc._shelter import open_shelter
from ._event_sink import EventSink, open_event_sink
from ._launched_shim import LaunchedShim
from ._shim_binary import ShimBinary, find_program
from ._shim_life import ShimLife
from ._shim_log import open_shim_log
from ._shim_process import Mark

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = ["launch"]


@asynccontextmanager
async def launch(
    binary: str | os.PathLike[str],
    bundle: str | os.PathLike[str],
    *,
    id: str,  # noqa: A002 (containerd's word)
    namespace: str = "default",
    events: EventSink | None = None,
    debug: bool = False,
    env: Mapping[str, str] | None = None,
    options: Message | None = None,
    timeout: float = 30.0,
) -> AsyncIterator[LaunchedShim]:
    """Start a shim as containerd does, and end it, with its container, at the end of the block.

    At the end a shim without the container `id` is told to shut down.  Else its verb `delete` is
    run, which kills the container, and the shim is ended by signals.  Other containers that were
    created in it are the caller's to delete.  All this is shielded and has time limits.

    Not in a process that also serves containers with `LinuxKernel`: two would wait for children.

    Args:
        binary: the shim's program, such as `containerd-shim-runc-v2`; a name is looked for in
            PATH and beside our own Python.
        bundle: a directory with config.json and, normally, rootfs.  It must have the name `id`.
        id: the container's; letters and digits, joined by single '.', '_' or '-'.
        namespace: containerd's; the same rule.
        events: takes the shim's events; without it there is a sink for this shim alone.
        debug: pass `-debug` to the shim.
        env: variables on top of our own environment and of those that containerd adds.
        options: what containerd sends to the standard input of `start`: an `Any` with runtime
            options, or a `BootstrapParams`.
        timeout: seconds for `start`.

    Raises:
        ValueError: an id, a namespace or a bundle that cannot be one.
        LaunchError: the program is not found; `start` fails, hangs or answers nonsense; nobody
            listens where it says; or, at the end, the shim or the container cannot be removed.
    """
    check_identifier(id, "id")
    check_identifier(namespace, "namespace")
    path = _checked_bundle(bundle, id)
    program = find_program(binary)
    async with AsyncExitStack() as stack:
        if events is None:
            events = await stack.enter_async_context(open_event_sink())
        mark = Mark()
        environ = _environment(events.address, namespace) | dict(env or {}) | mark.variable
        told = ShimBinary(program, path, id, namespace, events.address, debug, environ)
        log = await stack.enter_async_context(open_shim_log(path, id))
        helpers = await stack.enter_async_context(open_shelter())
        life = ShimLife(told, events, log, mark, helpers)
        failed = True
        try:
            yield await life.begin(options.SerializeToString() if options else b"", timeout)
            failed = False
        finally:
            with trio.CancelScope(shield=True):
                await life.end(failed=failed)


def _checked_bundle(bundle: str | os.PathLike[str], id_: str) -> str:
    path = os.path.realpath(bundle)
    if not os.path.isdir(path):
        raise ValueError(f"bundle {path} is no directory")
    if os.path.basename(path) != id_:
        # containerd-shim-runc-v2 deletes what is in the directory beside with the name of the id.
        raise ValueError(f"bundle {path} must have the name of the container, {id_!r}")
    return path


def _environment(address: str, namespace: str) -> dict[str, str]:
    """Our own, and what containerd 1.7 and later add to theirs."""
    added = {
        "GOMAXPROCS": "2",
        "TTRPC_ADDRESS": address,
        "GRPC_ADDRESS": address,
        "NAMESPACE": namespace,
        "MAX_SHIM_VERSION": "2",
    }
    return dict(os.environ) | added
