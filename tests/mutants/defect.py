"""What a deliberate defect is: one edit of one file, and the tests that must see it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Defect", "Kind"]


class Kind(Enum):
    """What sort of mistake it is.  The value is what the table shows."""

    ORDER = "wrong order"
    DROPPED = "dropped event"
    SHIELD = "missing shield"
    WAIT = "swapped wait"
    WAKE_UP = "lost wake-up"
    CLOSE = "forgotten close"
    STATUS = "wrong status"
    CHECK = "missing check"
    LEAK = "leaked task"


@dataclass(frozen=True)
class Defect:
    """One edit that a programmer could have made by mistake.

    Attributes:
        name: the promise that is broken, as a sentence.
        kind: what sort of mistake.
        file: below `trioshim`.
        old: the text to be edited; it occurs once in the file.
        new: what stands there instead.
        caught_by: the tests that are run; one of them must fail.
        hangs: it is seen by a test that never ends, so a hang counts.
    """

    name: str
    kind: Kind
    file: str
    old: str
    new: str
    caught_by: tuple[str, ...]
    hangs: bool = False
