"""The composition root: the real world behind the ports, and the life of the process.

Only here do the adapters meet the rings.  When `serve_forever` is called, `start` has answered
already: the socket listens on fd 3, and daemons wait in its backlog.
"""

from __future__ import annotations

import logging
import math
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import trio

from ._atomic import write_file
from ._door import SocketDoor
from ._dump import task_tree
from ._place import ShimLog, stay_in_a_bundle
from ._version import __version__
from .bootstrap import Arguments, ttrpc_address
from .bootstrap._sockets import remove_dead_socket
from .linux import (
    LinuxKernel,
    PrivateListener,
    become_subreaper,
    keep_fds,
    open_listener,
)
from .publisher import open_publisher
from .runc import Runc, Timeouts
from .shim import serve
from .task import TaskService

__all__ = ["serve_forever"]

log = logging.getLogger("trioshim")

_LISTENER = 3
LINGER = 60.0  # seconds
TASKS_FILE = "tasks.txt"  # in the bundle, our working directory


def serve_forever(arguments: Arguments) -> None:
    """Serve until Shutdown, SIGTERM or SIGINT.

    Raises:
        OSError: there is no socket to serve on.
    """
    with _logging(arguments) as shim_log, _listening() as listener:
        keep_fds()
        become_subreaper()
        if arguments.unknown:
            log.warning("unknown flags: %s", " ".join(arguments.unknown))
        log.info("shim %s of %s serves, pid %d", __version__, arguments.id, os.getpid())
        main = partial(_serve, arguments, listener, shim_log)
        try:
            trio.run(main, restrict_keyboard_interrupt_to_checkpoints=True)
        except BaseException:
            log.critical("the shim ends in disorder", exc_info=True)
            raise
        log.info("shim of %s ends", arguments.id)


async def _serve(arguments: Arguments, listener: PrivateListener, shim_log: ShimLog) -> None:
    kernel = LinuxKernel()
    daemon = ttrpc_address(os.environ, arguments)
    async with open_publisher(daemon) as publisher, trio.open_nursery() as nursery:
        service = await nursery.start(
            partial(
                serve,
                listener,
                runtime=Runc(kernel, arguments.namespace, timeouts=_timeouts(os.environ)),
                kernel=kernel,
                publisher=publisher,
                namespace=arguments.namespace,
                linger=LINGER,
                door=SocketDoor(listener.path, arguments.id) if arguments.group else None,
            )
        )
        async with trio.open_nursery() as beside:
            if arguments.group:
                beside.start_soon(stay_in_a_bundle, service, shim_log)
            await _obey_signals_until_done(service)
            beside.cancel_scope.cancel()


def _timeouts(environ: Mapping[str, str]) -> Timeouts:
    """How long runc may take; TRIOSHIM_RUNC_TIMEOUT says it for a create, in seconds.

    The others keep their proportion to it: a machine that is slow is slow in everything.
    """
    usual = Timeouts()
    text = environ.get("TRIOSHIM_RUNC_TIMEOUT", "")
    try:
        create = float(text) if text else usual.create
    except ValueError:
        create = math.nan
    if not 0 < create < math.inf:
        log.warning(
            "TRIOSHIM_RUNC_TIMEOUT=%r is no number of seconds, %g it is", text, usual.create
        )
        return usual
    scale = create / usual.create
    return Timeouts(create=create, kill=usual.kill * scale, other=usual.other * scale)


async def _obey_signals_until_done(service: TaskService) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(_obey_signals, service)
        await service.shutdown_requested.wait()
        nursery.cancel_scope.cancel()


async def _obey_signals(
    service: TaskService, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """SIGTERM and SIGINT end the shim, not its containers; SIGUSR1 tells what everybody does."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1) as signals:
        task_status.started()
        async for signum in signals:
            if signum == signal.SIGUSR1:
                _write_tasks()
            else:
                log.warning("signal %d: the shim ends", signum)
                service.shutdown_requested.set()


def _write_tasks() -> None:
    tree = task_tree()
    log.warning("tasks:\n%s", tree)
    try:
        write_file(TASKS_FILE, tree.encode() + b"\n")
    except OSError as error:
        log.warning("cannot write %s: %s", TASKS_FILE, error)


@contextmanager
def _listening() -> Iterator[PrivateListener]:
    """The socket that `start` left us; its path is free again at the end."""
    listener = open_listener(_LISTENER)
    try:
        yield listener
    finally:
        listener.close()
        remove_dead_socket(listener.path)


@contextmanager
def _logging(arguments: Arguments) -> Iterator[ShimLog]:
    shim_log = ShimLog(arguments)
    shim_log.open()
    logging.getLogger().setLevel(logging.DEBUG if arguments.debug else logging.INFO)
    logging.getLogger("hpack").setLevel(logging.INFO)  # it would tell every header's every byte
    try:
        yield shim_log
    finally:
        shim_log.close()
