"""What a server notes about itself while it serves: samples of its time, or counts of its calls.

Both write a pstats file.  Samples tell where the time goes and change it little; cProfile counts
every call, and makes each dearer than it is.
"""

from __future__ import annotations

import cProfile
import marshal
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

__all__ = ["COUNTS", "SAMPLES", "recorder"]

COUNTS, SAMPLES = ".counts", ".samples"  # how the names of the files end
_EACH = 0.001  # seconds of the processor between two samples


def recorder(file: str) -> AbstractContextManager[None]:
    """Note what happens in the block, in the file of that name; "": nothing."""
    how: Callable[[str], AbstractContextManager[None]] = _nothing
    if file:
        how = _samples if file.endswith(SAMPLES) else _counts
    return how(file)


@contextmanager
def _nothing(_file: str) -> Iterator[None]:
    yield


@contextmanager
def _counts(file: str) -> Iterator[None]:
    with cProfile.Profile() as profiler:
        yield
    profiler.dump_stats(file)


@contextmanager
def _samples(file: str) -> Iterator[None]:
    found: Counter[tuple[str, int, str]] = Counter()

    def note(_signum: int, frame: FrameType | None) -> None:
        if frame is not None:
            code = frame.f_code
            found[code.co_filename, code.co_firstlineno, code.co_name] += 1

    signal.signal(signal.SIGPROF, note)
    signal.setitimer(signal.ITIMER_PROF, _EACH, _EACH)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    with open(file, "wb") as stats:
        marshal.dump({key: (n, n, float(n), float(n), {}) for key, n in found.items()}, stats)
