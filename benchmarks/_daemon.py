"""The daemon's part of a benchmark: whoever takes the events, and notes when an exit came.

Promises: a moment is taken when the bytes are there, before they are answered or read.

Rules of this file:

* blocking threads, one for each connection, which sleep in the kernel: what they add to a figure is
  one wake-up, the same for every shim;
* whoever takes a moment is `prompt`, or it would be told late, by a machine that is busy with what
  is measured.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from trioshim.proto import events_pb2, ttrpc_pb2
from trioshim.proto.events_service_pb2 import ForwardRequest

__all__ = ["Daemon", "Exit", "open_daemon", "prompt"]

_HEADER = struct.Struct(">IIBB")  # length, stream id, type, flags
_RESPONSE = 2
_PATIENCE = 20  # seconds for an exit to come
_EXIT = "/tasks/exit"
_TURN = 5e-4  # seconds


@contextmanager
def prompt() -> Iterator[None]:
    """In the block this thread runs as soon as it can; what it starts does not inherit that.

    Where that is not allowed, it runs as ever.
    """
    ordinary = os.sched_param(0)
    with suppress(PermissionError):
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, ordinary)


@dataclass(frozen=True, slots=True)
class Exit:
    """A TaskExit that has come.

    Attributes:
        container, process: whose it is; they are the same for init.
        at: when, in nanoseconds of `time.perf_counter_ns`.
    """

    container: str
    process: str
    at: int


class Daemon:
    """Takes events at a socket.  See `open_daemon`.

    Attributes:
        path: of the socket.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._exits: SimpleQueue[Exit] = SimpleQueue()
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(128)
        self._threads = [Thread(target=self._accept)]
        self._threads[0].start()

    def exit_of(self, container: str) -> Exit:
        """The exit of a container's init; what came before it is forgotten.

        Raises:
            TimeoutError: it does not come.
        """
        try:
            while True:
                found = self._exits.get(timeout=_PATIENCE)
                if found.container == found.process == container:
                    return found
        except Empty:
            raise TimeoutError(f"no exit of {container} in {_PATIENCE} s") from None

    def close(self) -> None:
        """End the connections and the threads."""
        for sock in (self._listener, *self._open):
            with suppress(OSError):  # its peer has left
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                sock, _ = self._listener.accept()
                self._open.append(sock)
                self._threads.append(Thread(target=self._serve, args=[sock]))
                self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError), prompt():
            buffer = b""
            while data := sock.recv(65536):
                at = time.perf_counter_ns()
                buffer += data
                while (end := _end_of(buffer)) and end <= len(buffer):
                    stream_id = int.from_bytes(buffer[4:8], "big")
                    sock.sendall(_HEADER.pack(0, stream_id, _RESPONSE, 0))
                    self._note(buffer[_HEADER.size : end], at)
                    buffer = buffer[end:]

    def _note(self, body: bytes, at: int) -> None:
        payload = ttrpc_pb2.Request.FromString(body).payload
        envelope = ForwardRequest.FromString(payload).envelope
        if envelope.topic == _EXIT:
            told = events_pb2.TaskExit.FromString(envelope.event.value)
            self._exits.put(Exit(told.container_id, told.id, at))


def _end_of(buffer: bytes) -> int:
    """Where the first frame ends; 0 if that cannot be said yet."""
    if len(buffer) < _HEADER.size:
        return 0
    return _HEADER.size + int.from_bytes(buffer[:4], "big")


@contextmanager
def open_daemon(path: Path) -> Iterator[Daemon]:
    """Events are taken at `path` during the block."""
    daemon = Daemon(path)
    # Else who asks and who takes events may wait 5 ms for each other, and not for the shim.
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_TURN)
    try:
        yield daemon
    finally:
        sys.setswitchinterval(usual)
        daemon.close()
