"""The deliberate defects, all of them: each is one mistake, and some test must see it."""

from __future__ import annotations

from .in_groups import IN_GROUPS
from .in_linux import IN_LINUX
from .in_new_parts import IN_NEW_PARTS
from .in_rpc import IN_RPC
from .in_task import IN_CONTAINERS, IN_EVENTS_AND_ANSWERS, IN_EXECS
from .in_ttrpc import IN_TTRPC

__all__ = ["DEFECTS"]

DEFECTS = [
    *IN_CONTAINERS,
    *IN_EXECS,
    *IN_EVENTS_AND_ANSWERS,
    *IN_TTRPC,
    *IN_RPC,
    *IN_LINUX,
    *IN_NEW_PARTS,
    *IN_GROUPS,
]
