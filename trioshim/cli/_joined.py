"""A container that another program holds, as `open_container` would have given it to us."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from ..client import open_event_sink
from ..containers import Container
from ..containers._fifos import Fifos
from ..containers._options import Plan
from ..proto.task_v2_pb2 import StateRequest
from ..ttrpc._shelter import open_shelter
from ._found import Place, open_task, read_command, read_config

__all__ = ["open_joined"]


@asynccontextmanager
async def open_joined(place: Place) -> AsyncIterator[Container]:
    """For `exec`, `stats` and signals: it goes on when the block is over.

    Nothing is written to its bundle: the fifos of execs are in a directory of our own.

    Raises:
        CliError: its shim does not listen.
        ShimError: the shim does not have it.
    """
    with TemporaryDirectory(prefix="trioshim-exec-") as fifos:  # 0700
        async with open_task(place) as task, open_event_sink() as sink, open_shelter() as helpers:
            pid = (await task.state(StateRequest(id=place.id))).pid
            # Names of users are looked up in its own files.
            config, rootfs = read_config(place.bundle), f"/proc/{pid}/root"
            plan = Plan(read_command(place.bundle), config, [], rootfs)
            nothing = Fifos("", "", "", None, None)
            container = Container(task, plan, place.id, nothing, Path(fifos), sink, helpers)
            # Its holder counts its own from 1.
            container._execs = count(secrets.randbits(48))  # noqa: SLF001 (not to be opened twice)
            yield container
