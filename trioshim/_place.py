"""The bundle that a server works in: its working directory, and the fifo that it logs to.

With one container that is the container's, from the beginning to the end.  In a group the bundle
may go before the shim does.
"""

from __future__ import annotations

import logging
import os

from .bootstrap import Arguments
from .linux import FifoHandler
from .task import TaskService

__all__ = ["ShimLog", "stay_in_a_bundle"]

log = logging.getLogger("trioshim")


class ShimLog:
    """The log of the bundle that we are in."""

    def __init__(self, arguments: Arguments) -> None:
        self._fields = {"id": arguments.id, "namespace": arguments.namespace}
        self._handler: FifoHandler | None = None

    def open(self) -> None:
        """Log here from now on."""
        self.close()
        self._handler = FifoHandler("log", **self._fields)
        logging.getLogger().addHandler(self._handler)

    def close(self) -> None:
        if self._handler is not None:
            logging.getLogger().removeHandler(self._handler)
            self._handler.close()


async def stay_in_a_bundle(service: TaskService, shim_log: ShimLog) -> None:
    """In a group a bundle may go before the shim does: work, and log, in one that is there."""
    here = os.getcwd()
    while True:
        bundles = service.bundles
        if here not in bundles:
            here = next((bundle for bundle in bundles if _enter(bundle, shim_log)), here)
        await service.containers_changed()


def _enter(bundle: str, shim_log: ShimLog) -> bool:
    try:
        os.chdir(bundle)
    except OSError as error:
        log.warning("cannot work in %s: %s", bundle, error)
        return False
    shim_log.open()
    log.info("the shim goes on in %s", bundle)
    return True
