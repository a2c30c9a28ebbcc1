"""`open_container`: a container for as long as a block lasts.

Everything stands on the standard protocol: a bundle, the shim's `start`, the 17 methods, its
events, its `delete`; so any shim will do, ours is the default.

    leftovers of programs that were killed are removed
    bundle       made, locked
      events     a socket for what the shim tells
        shim     started
          fifos  the streams of init
            init created, started ... ended, deleted
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Unpack

from ..client import EventSink, LaunchedShim, launch, open_event_sink
from ..proto import task_v2_pb2 as api
from ..proto.types_pb2 import Mount as MountMessage
from ..ttrpc._shelter import open_shelter
from ._container import Container
from ._ending import Deliver, end_process
from ._fifos import open_fifos
from ._leftovers import note_shim, remove_leftovers
from ._options import ContainerOptions, Plan, plan
from ._outputs import DEVNULL, Output, Streams
from ._spec import Terminal
from ._store import STATE_DIR, open_bundle

__all__ = ["SHIM", "open_container"]

SHIM = "containerd-shim-trio-v1"
NAMESPACE = "trioshim"
_SOCKET_PATH = 107  # bytes


@asynccontextmanager
async def open_container(
    args: Sequence[str] = (),
    *,
    stdin: int = DEVNULL,
    stdout: Output = None,
    stderr: Output = None,
    terminal: Terminal = False,
    deliver_cancel: Deliver | None = None,
    events: EventSink | None = None,
    id: str | None = None,  # noqa: A002 (containerd's word)
    namespace: str = NAMESPACE,
    shim: str | os.PathLike[str] = SHIM,
    state_dir: str | os.PathLike[str] = STATE_DIR,
    **options: Unpack[ContainerOptions],
) -> AsyncIterator[Container]:
    """Run a container for the time of the block.

    Leaving the block, by its end, an error or a cancellation, ends and deletes the container:
    SIGTERM, SIGKILL after 5 seconds (at once if init does not catch SIGTERM, for then Linux drops
    it).  That is shielded, and nothing is left.  Of a program that was itself killed with SIGKILL
    the next one removes what it left.

    Args:
        args: the command line; it may be empty where an image or a bundle has one.
        stdin: PIPE: `container.stdin` is a stream; or DEVNULL.
        stdout, stderr: PIPE: `container.stdout` and `stderr` are streams; DEVNULL; None: our own;
            or an open file.
        terminal: one pty for all three; `container.stdin` and `stdout` are its streams.  A pair
            is its size from the beginning: (columns, rows).
        deliver_cancel: how it is asked to end: called with the container; after it has returned
            there are 5 seconds until SIGKILL.
        events: takes what the shim tells, from the creation to the deletion; None: a sink for
            this container alone, which `container.events` reads.
        id: at most 76 letters and digits, joined by single ".", "_" or "-"; None: a new one.
        namespace: containerd's word for a group of containers.
        shim: a shim's program.
        state_dir: where the bundles are; private to root.
        options: where the root comes from, and what the container may do and use: see
            `ContainerOptions`.

    Raises:
        ValueError: what is wrong with an argument, and what to write instead.
        LaunchError: the shim cannot be started.
        ShimError: the runtime cannot start it; the message has what it said.
        OSError: a file or directory that was named is not there, or cannot be made; or its
            output cannot be written where it should go: the block is cancelled then.
    """
    streams = Streams(stdin, stdout, stderr, terminal=bool(terminal))
    await remove_leftovers(namespace, state_dir)
    async with AsyncExitStack() as stack:
        bundle = await stack.enter_async_context(
            open_bundle(id, namespace=namespace, state_dir=state_dir)
        )
        todo = await plan(args, options, terminal=terminal, directory=bundle.path)
        (bundle.path / "config.json").write_text(json.dumps(todo.config), "utf-8")
        if events is None:
            events = await stack.enter_async_context(open_event_sink(_sink_path(bundle.path)))
        note_shim(bundle.path, shim, events.address)
        launched = await stack.enter_async_context(
            launch(shim, bundle.path, id=bundle.id, namespace=namespace, events=events)
        )
        task = await stack.enter_async_context(launched.client())
        helpers = await stack.enter_async_context(open_shelter())
        fifos = stack.enter_context(open_fifos(bundle.path, "init", streams))
        container = Container(task, todo, bundle.id, fifos, bundle.path, events, helpers)
        stack.enter_context(container._attended())  # noqa: SLF001 (same package)
        try:
            request = _create_request(launched, todo, terminal=bool(terminal))
            fifos.put_into(request)
            container.pid = (await task.create(request)).pid
            await container._begin(helpers, streams)  # noqa: SLF001
            yield container
            await container._flush()  # noqa: SLF001
        finally:
            await end_process(container, deliver_cancel)


def _sink_path(directory: Path) -> Path | None:
    """In the bundle, so that it goes with it; None, a directory of its own, if that is too long."""
    path = directory / "events"
    return path if len(os.fsencode(path)) <= _SOCKET_PATH else None


def _create_request(shim: LaunchedShim, todo: Plan, *, terminal: bool) -> api.CreateTaskRequest:
    return api.CreateTaskRequest(
        id=shim.id,
        bundle=shim.bundle,
        terminal=terminal,
        rootfs=[
            MountMessage(
                type=mount.type,
                source=mount.source,
                target=mount.target,
                options=mount.options,
            )
            for mount in todo.mounts
        ],
    )
