"""Everything that a shim loads, and lives without a container, so that forks share more.

Rules: no thread is started, no child made, nothing is left open; what is warm is frozen, for a
collection in a child would copy every page that has an object on it.
"""

from __future__ import annotations

import gc
import os
import socket
import warnings
from contextlib import suppress
from functools import cache

import trio

from .. import _compose  # noqa: F401 (all that a server loads)
from ..abc import Publisher
from ..linux import LinuxKernel, PrivateListener
from ..proto import task_v2_pb2 as api
from ..proto.types_pb2 import Envelope
from ..runc import Runc
from ..shim import serve
from ..ttrpc import Connection, Request, Role

_SERVICE = "containerd.task.v2.Task"
# Python rewrites the code of a function in its first calls; after these it mostly stays as it is.
_LIVES = 10


def warm_up(path: str) -> None:
    """Load, live a few times, and freeze.

    Args:
        path: of a socket that is there for a moment.
    """
    warnings.simplefilter("ignore")  # as the server does
    for _ in range(_LIVES):
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
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        try:
            listener.listen()
            client.connect(path)
            client.sendall(_questions())
            trio.run(_live, listener.dup(), restrict_keyboard_interrupt_to_checkpoints=True)
        finally:
            os.unlink(path)


@cache
def _questions() -> bytes:
    """What a client sends.  Made in the template: a spare that ran a client would copy more."""
    client = Connection(Role.CLIENT)
    state = api.StateRequest(id="x").SerializeToString()
    calls = (("State", state), ("Connect", b""), ("Shutdown", b""))
    return b"".join(
        client.send(Request(client.next_stream_id, _SERVICE, method, payload))
        for method, payload in calls
    )


class _Nowhere(Publisher):
    async def publish(self, envelope: Envelope) -> None:
        raise NotImplementedError  # without a container there is no event

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def _live(listener: socket.socket) -> None:
    listener.setblocking(False)
    kernel = LinuxKernel()
    await serve(
        PrivateListener(listener),
        runtime=Runc(kernel, "template"),
        kernel=kernel,
        publisher=_Nowhere(),
        linger=60,
    )
