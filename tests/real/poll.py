"""Waiting for processes that are not ours to await.

`eventually` is the one place of this suite that sleeps: containerd, ctr and shims are other
programs, and not all that they do is announced by an event.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(probe: Callable[[], T], what: str, *, within: float = 15.0) -> T:
    """Ask until the answer is true, and return that answer.

    Args:
        probe: asked about fifty times a second; cheap and without side effects.
        what: ends the sentence "gave up waiting for ...".
        within: seconds.

    Raises:
        TimeoutError: it never became true.
    """
    deadline = time.monotonic() + within
    while True:
        if answer := probe():
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"gave up waiting for {what} after {within} s")
        time.sleep(0.02)
