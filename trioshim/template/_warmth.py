"""Everything that a shim loads, and lives without a container, so that forks share more.

What is warm is frozen, for a collection in a child would copy every page that has an object on it.
"""

from __future__ import annotations

import gc
import warnings

from .. import _compose  # noqa: F401 (all that a server loads)
from ._rehearsal import rehearse
from ._start_rehearsal import rehearse_start

# Python rewrites the code of a function in its first calls; after these it mostly stays as it is.
_LIVES = 10


def warm_up(path: str) -> None:
    """Load, live a few times, and freeze.

    Args:
        path: of a directory that is there for a moment.
    """
    warnings.simplefilter("ignore")  # as the server does
    for _ in range(_LIVES):
        live_once(path)
    gc.collect()
    gc.freeze()


def live_once(path: str) -> None:
    """From `start` to the end.

    Args:
        path: of a directory that is there for a moment.
    """
    rehearse_start(path)
    rehearse(path)
