"""Why a task of a shim waits, in words, by the function that it waits in.  A table and a look."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["REASONS", "Reason", "reason_for"]


@dataclass(frozen=True, slots=True)
class Reason:
    """What a task waits for.

    Attributes:
        text: ends the sentence "It ...".
        usual: a healthy shim has such a task; others are where to look if something hangs.
    """

    text: str
    usual: bool = True


# The file and the function of a line that a task stands in.
REASONS: dict[tuple[str, str], Reason] = {
    # Somebody outside is slow, or stuck.
    ("_command.py", "_wait"): Reason("waits for a command of runc to end", usual=False),
    ("_command.py", "_kill"): Reason("kills a command of runc that took too long", usual=False),
    ("_fifo.py", "_open_writer"): Reason(
        "waits for the client to open its end of a fifo", usual=False
    ),
    ("_logger.py", "_wait_ready"): Reason("waits for a logger to get ready", usual=False),
    ("_console.py", "receive"): Reason("waits for runc to send the terminal", usual=False),
    ("_pump.py", "drain"): Reason("waits for the rest of the output, to delete", usual=False),
    ("_mounts.py", "unmount_all"): Reason("waits for a busy mount", usual=False),
    ("_events.py", "_deliver"): Reason("waits for the daemon to take an event", usual=False),
    ("_container.py", "_wait_for_exit"): Reason(
        "waits for the first process to end after SIGKILL", usual=False
    ),
    # What every shim does.
    ("_container.py", "_run"): Reason("waits for the first process to exit"),
    ("_container.py", "_watch_oom"): Reason("waits for the kernel to kill for memory"),
    ("_execs.py", "_run"): Reason("waits for the exec to exit"),
    ("_execs.py", "_live"): Reason("waits for the exec to be deleted"),
    ("_pump.py", "_wait_for"): Reason("waits for bytes to copy"),
    ("_service.py", "wait"): Reason("answers when the process exits"),
    ("_events.py", "_forward"): Reason("waits for an event to tell"),
    ("publisher.py", "_hold"): Reason("holds the connection to the daemon"),
    ("_client.py", "_read"): Reason("waits for the daemon's answers"),
    ("_kernel.py", "reap_strangers"): Reason("waits for orphans of containers"),
    ("_kernel.py", "_wake_for"): Reason("waits for a child to change"),
    ("_listener.py", "accept"): Reason("waits for a connection"),
    ("_listener.py", "_accept"): Reason("serves connections"),
    ("_listener.py", "no_clients_for"): Reason("watches whether anybody needs this shim"),
    ("_server.py", "read"): Reason("waits for a client's request"),
    ("shim.py", "serve"): Reason("waits for Shutdown"),
    ("_compose.py", "_obey_signals_until_done"): Reason("waits for Shutdown"),
    ("_compose.py", "_obey_signals"): Reason("obeys signals: it has made this list"),
    ("_shelter.py", "stand"): Reason("keeps its tasks from being cancelled"),
}


def reason_for(places: Iterable[tuple[str, str]]) -> Reason | None:
    """Why a task waits; None: it is not in the table.

    Args:
        places: file and function of its lines, the innermost last.
    """
    known = [REASONS[place] for place in places if place in REASONS]
    return known[-1] if known else None
