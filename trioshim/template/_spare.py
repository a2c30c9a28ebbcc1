"""The spare: ready, waiting, and then what is wanted.

Rules:

* a spare ends with the template;
* whoever comes first has it, by a connection or at the hatch, and the other way is shut before;
* the code on disk is looked at before anything is done.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass

from . import _code, _command_line
from ._hatch import Hatch
from ._likeness import Traits

__all__ = ["STALE", "TAKEN", "USED", "Kind", "Spare", "Visit"]

# What a spare says to the template.
TAKEN, USED, STALE = b"taken", b"used", b"stale"


@dataclass(frozen=True, slots=True)
class Visit:
    """A shell that asks.

    Attributes:
        pid: its number.
        executable: the program that it has to be.
        hatch: at which it waits.
        take: tells the template that this spare is none any more.
    """

    pid: int
    executable: str
    hatch: Hatch
    take: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a template turns into.

    Attributes:
        warm_up: called once, with the path of a socket that it may make for a moment.
        run_once: called with the same in each spare.
        become: called with a connection, a socket for news of the machine, the template's traits
            and the news so far; returns the exit status when all is over.
        answer_shell: called with a shell's visit, the traits and the news; the exit status when
            all is over, None: it is a spare as before.
    """

    warm_up: Callable[[str], None]
    run_once: Callable[[str], None]
    become: Callable[[int, int, Traits, frozenset[str]], int]
    answer_shell: Callable[[Visit, Traits, frozenset[str]], int | None] | None = None


@dataclass(frozen=True, slots=True)
class Spare:
    """What all spares of a template have in common.

    Attributes:
        kind: what it is for.
        traits: the template's.
        listener: where connections come.
        files: those of the code, and the listener's.
        code: their fingerprint.
        warm: for `run_once`.
        executable: the program whose shell may ask at the hatch.
        door: the hatch's file; "": there is none.
    """

    kind: Kind
    traits: Traits
    listener: socket.socket
    files: list[str]
    code: object
    warm: str
    executable: str
    door: str

    def is_fresh(self) -> bool:
        """Neither the code on disk nor our socket is another's."""
        return _code.fingerprint(self.files) == self.code

    def live(self, template: socket.socket, known: frozenset[str]) -> int:
        """Get ready, wait, and become what is wanted.

        Args:
            template: to tell it what becomes of us; it ends with the template.
            known: news of the machine.

        Returns:
            The exit status.
        """
        kept = _command_line.show([b"trioshim-spare", os.fsencode(self.files[0])], [])
        self.kind.run_once(self.warm)
        hatch = Hatch(self.door) if self.door else None
        try:
            status = self._wait(template, hatch, known)
        finally:
            if hatch:
                hatch.close()
        del kept
        return status

    def _wait(self, template: socket.socket, hatch: Hatch | None, known: frozenset[str]) -> int:
        while True:
            if hatch and not hatch.is_open:
                hatch.open()
            sources: list[socket.socket | Hatch] = [template, self.listener]
            if hatch:
                sources.append(hatch)
            ready = select.select(sources, [], [])[0]
            if template in ready:
                return 0
            if not self.is_fresh():
                template.send(STALE)
                return 0
            if hatch and (hatch in ready or not hatch.shut()):
                status = self._answer_shell(hatch, template, known)
            else:
                status = self._answer_connection(hatch, template, known)
            if status is not None:
                return status

    def _answer_connection(
        self, hatch: Hatch | None, template: socket.socket, known: frozenset[str]
    ) -> int | None:
        if hatch:
            hatch.close()
        try:
            connection = self.listener.accept()[0].detach()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        template.send(TAKEN)
        return self.kind.become(connection, template.fileno(), self.traits, known)

    def _answer_shell(
        self, hatch: Hatch, template: socket.socket, known: frozenset[str]
    ) -> int | None:
        assert self.kind.answer_shell is not None
        pid = hatch.hear()
        if not pid:
            return 0  # it may come yet, and must not find somebody else here
        status = self.kind.answer_shell(
            Visit(pid, self.executable, hatch, lambda: template.send(TAKEN)), self.traits, known
        )
        hatch.close()
        if status is None:
            template.send(USED)
        return status
