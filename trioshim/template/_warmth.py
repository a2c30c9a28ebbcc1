"""Everything that a shim loads, and one life without a container, so that forks share more.

Rules: no thread is started, no child made, nothing is left open; what is warm is frozen, for a
collection in a child would copy every page that has an object on it.
"""

from __future__ import annotations

import gc
import os
import socket
import warnings
from contextlib import suppress
from functools import partial

import trio

from .. import _compose  # noqa: F401 (all that a server loads)
from ..abc import Publisher
from ..errors import NotFoundError
from ..linux import LinuxKernel, PrivateListener
from ..proto import task_v2_pb2 as api
from ..proto.types_pb2 import Envelope
from ..runc import Runc
from ..shim import serve
from ..ttrpc import open_client

_SERVICE = "containerd.task.v2.Task"


def warm_up(path: str) -> None:
    """Load, live once, and freeze.

    Args:
        path: of a socket that is there for a moment.
    """
    warnings.simplefilter("ignore")  # as the server does
    run_once(path)
    gc.collect()
    gc.freeze()


def run_once(path: str) -> None:
    """The life of a shim that nobody needs.

    Args:
        path: of a socket that is there for a moment.
    """
    with suppress(FileNotFoundError):
        os.unlink(path)  # of one that was killed
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        try:
            listener.listen()
            trio.run(_live, listener.dup(), restrict_keyboard_interrupt_to_checkpoints=True)
        finally:
            os.unlink(path)


class _Nowhere(Publisher):
    async def publish(self, envelope: Envelope) -> None:
        raise NotImplementedError  # without a container there is no event

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def _live(listener: socket.socket) -> None:
    listener.setblocking(False)
    path = listener.getsockname()
    kernel = LinuxKernel()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(
                serve,
                PrivateListener(listener),
                runtime=Runc(kernel, "template"),
                kernel=kernel,
                publisher=_Nowhere(),
                linger=60,
            )
        )
        async with open_client(await trio.open_unix_socket(path)) as client:
            try:
                await client.call(_SERVICE, "State", api.StateRequest(id="x").SerializeToString())
            except NotFoundError:
                await client.call(_SERVICE, "Connect", b"")
            await client.call(_SERVICE, "Shutdown", b"")
