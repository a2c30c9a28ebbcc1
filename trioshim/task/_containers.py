"""All containers of one shim: a map, and the nursery that their lives run in (ring 2).

Each life runs alone: whatever goes wrong in one is logged and ends that one (law 9).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ..abc import ContainerSpec, Kernel, Runtime
from ..errors import AlreadyExistsError, NotFoundError
from ._container import Container
from ._events import Emit
from ._process import Ended

__all__ = ["Containers", "open_containers"]

log = logging.getLogger("trioshim.containers")

RESERVED = 60.0  # seconds that a container which was announced has to come
REMEMBERED = 1024  # deleted containers whose Delete can be asked again


class Containers:
    """The containers of this shim by id."""

    def __init__(self, lives: trio.Nursery, runtime: Runtime, kernel: Kernel, emit: Emit) -> None:
        self._lives = lives
        self._runtime = runtime
        self._kernel = kernel
        self._emit = emit
        self._all: dict[str, Container] = {}  # those that are being created too
        self._expected: dict[str, float] = {}  # and until when
        self._deleted: dict[str, Ended] = {}
        self._emptied = trio.Event()
        self._changed = trio.Event()

    def expect(self, id_: str) -> None:
        """One will be created soon: until then, or until its time is over, this is not idle."""
        self._expected[id_] = trio.current_time() + RESERVED

    def expect_no_more(self, id_: str) -> None:
        """It has come, or its Create is refused."""
        if self._expected.pop(id_, None) is not None:
            self._tell()

    @property
    def idle(self) -> bool:
        """There is none, none is being created, and none is expected."""
        now = trio.current_time()
        self._expected = {id_: end for id_, end in self._expected.items() if end > now}
        return not self._all and not self._expected

    async def wait_until_idle(self) -> None:
        while not self.idle:
            if self._all:
                await self.wait_until_empty()
            else:
                with trio.move_on_at(min(self._expected.values())):
                    await self._emptied.wait()

    async def wait_until_empty(self) -> None:
        """Return when there is none, not even one that is being created."""
        while self._all:
            await self._emptied.wait()

    @property
    def bundles(self) -> list[str]:
        """Of those that are there or being created, the oldest first."""
        return [container.spec.bundle for container in self._all.values()]

    async def changed(self) -> None:
        """Return when one has come or gone."""
        await self._changed.wait()

    def __len__(self) -> int:
        """How many there are, with those that are being created."""
        return len(self._all)

    def find(self, id_: str) -> Container | None:
        """One that is created and not deleted, if there is one."""
        container = self._all.get(id_)
        return container if container is not None and container.created else None

    def get(self, id_: str) -> Container:
        """The same.

        Raises:
            NotFoundError: it was never created, its Create is under way, or it was deleted.
        """
        container = self.find(id_)
        if container is None:
            raise NotFoundError("container not created")
        return container

    async def create(self, spec: ContainerSpec) -> int:
        """Create one; answers init's pid, 0 for one that Start will restore.

        Raises:
            AlreadyExistsError: the id is taken.
        """
        if spec.id in self._all:
            raise AlreadyExistsError(f"container {spec.id}")
        container = Container(spec, runtime=self._runtime, kernel=self._kernel, emit=self._emit)
        self._all[spec.id] = container
        self._deleted.pop(spec.id, None)
        self._tell()
        pid: int = await self._lives.start(self._live_alone, container)
        return pid

    async def delete(self, id_: str) -> Ended:
        """Remove one.  Asked again, also while the first is under way: the same answer (P14)."""
        if id_ in self._deleted:
            return self._deleted[id_]
        container = self.get(id_)
        try:
            ended = await container.delete()
        except NotFoundError:  # another Delete was quicker
            if id_ not in self._deleted:
                raise
            return self._deleted[id_]
        self._forget(container)
        self._remember(id_, ended)
        return ended

    async def _live_alone(
        self, container: Container, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        try:
            await container.live(task_status=task_status)
        except Exception:
            if not container.created:  # Create answers with this
                raise
            log.exception("container %s failed and is removed", container.spec.id)
            await container.give_up()
        finally:
            self._forget(container)
            container.init.exited.set()  # whoever waits, waits for nothing

    def _forget(self, container: Container) -> None:
        if self._all.get(container.spec.id) is container:  # not a later one of that name
            del self._all[container.spec.id]
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
        if not self._all:
            self._emptied.set()
            self._emptied = trio.Event()

    def _remember(self, id_: str, ended: Ended) -> None:
        self._deleted[id_] = ended
        while len(self._deleted) > REMEMBERED:
            del self._deleted[next(iter(self._deleted))]


@asynccontextmanager
async def open_containers(
    runtime: Runtime, kernel: Kernel, emit: Emit
) -> AsyncIterator[Containers]:
    """The map and its nursery.  Leaving the block lets go of the containers; they run on."""
    async with trio.open_nursery() as lives:
        yield Containers(lives, runtime, kernel, emit)
        lives.cancel_scope.cancel()
