"""From a fork of the template to a shim: what a spawned one is, this one becomes.

Rules: nothing of the template's is left (files, handlers, session); until `start` has said its last
word the listener is not touched; whatever goes wrong before is told to `start`, and this process
ends.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence

from .._compose import serve_forever
from ..bootstrap import Arguments, Verb, check_arguments, parse_arguments
from ..bootstrap._start import LISTENER_FD
from ..bootstrap._template import ASK
from ._likeness import Traits, begun, parent_of
from ._request import OUT_OF_THE_WAY, RefusalError, agree, compare, move, receive, stand_in

__all__ = ["adopters", "become_shim", "server_arguments"]


def become_shim(connection: int, news: int, traits: Traits, known: frozenset[str]) -> int:
    """Ask `start` what it wants, become that, and serve.

    Args:
        connection: to `start`.
        news: a socket for the name of a process whose orphans are adopted as we are.
        traits: those of the template.
        known: such names.

    Returns:
        The exit status; 0 too if `start` has thought better of it.
    """
    start_fd, news = (move(fd) for fd in (connection, news))
    # First of all: while we wait, the template's lock and socket are not to seem alive.
    os.closerange(LISTENER_FD, OUT_OF_THE_WAY)
    arguments: list[Arguments] = []
    with socket.socket(fileno=start_fd) as start:
        if not agree(start, lambda pid: arguments.append(_become(start, pid, news, traits, known))):
            return 0
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    serve_forever(*arguments)
    return 0


def _become(
    start: socket.socket, pid: int, news: int, traits: Traits, known: frozenset[str]
) -> Arguments:
    compare(pid, traits)
    argv, environ, fds = receive(start, 2)
    listener, here = (move(fd) for fd in fds)
    os.dup2(listener, LISTENER_FD)
    os.fchdir(here)
    _check_adopter(start, pid, news, known)
    os.closerange(LISTENER_FD + 1, OUT_OF_THE_WAY)
    for fd in (listener, here, news):
        os.close(fd)
    arguments = server_arguments(argv)
    stand_in(pid, argv, environ, traits)
    sys.argv[1:] = [os.fsdecode(word) for word in argv[4:]]
    return arguments


def _check_adopter(start: socket.socket, pid: int, news: int, known: frozenset[str]) -> None:
    """Whether an orphan of `start` gets the parent that we have got."""
    name = adopters(pid)
    if name in known:
        return
    start.sendall(ASK)
    if int(start.recv(32) or b"0") != os.getppid():
        raise RefusalError("another process adopts its orphans")
    os.write(news, name.encode())


def adopters(pid: int) -> str:
    """Who adopts the orphans of a process, and ours: a name for the one and the other."""
    above = parent_of(pid)
    return f"{above} {begun(above)} {os.getppid()}"


def server_arguments(argv: Sequence[bytes]) -> Arguments:
    """What a server is to do, from its command line.

    Raises:
        RefusalError, ValueError: it is no server's.
    """
    words = [os.fsdecode(word) for word in argv]
    if words[:4] != [sys.executable, "-I", "-m", "trioshim"]:
        raise RefusalError("another command line than a server's")
    arguments = parse_arguments(words[4:])
    check_arguments(arguments)
    if arguments.verb is not Verb.SERVE:
        raise RefusalError("no server is wanted")
    return arguments
