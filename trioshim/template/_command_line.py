"""What others see of a process: its command line and its environment in /proc."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence

from ._likeness import stat_fields

__all__ = ["show"]

_PR_SET_MM, _PR_SET_MM_MAP = 35, 14
# struct prctl_mm_map: eleven addresses, the auxiliary vector (none) and an executable (none).
_MAP = struct.Struct("11QQIi")
_START_CODE, _START_STACK, _START_DATA = 26, 28, 45  # fields of /proc/PID/stat, from 1


def show(argv: Sequence[bytes], environ: Sequence[bytes]) -> object:
    """Have the kernel take these texts for our command line and our environment.

    Returns:
        What must be kept for as long as the process lives.

    Raises:
        OSError: this kernel does not let us.
    """
    words, variables = (b"".join(item + b"\0" for item in items) for items in (argv, environ))
    buffer = ctypes.create_string_buffer(words + variables, len(words) + len(variables) or 1)
    at = ctypes.addressof(buffer)
    middle, end = at + len(words), at + len(words) + len(variables)
    fields = stat_fields(os.getpid())

    def field(number: int) -> int:
        return int(fields[number - 3])

    libc = ctypes.CDLL(None, use_errno=True)
    libc.sbrk.restype = ctypes.c_void_p
    memory_map = _MAP.pack(
        *(field(_START_CODE), field(_START_CODE + 1)),
        *(field(_START_DATA), field(_START_DATA + 1), field(_START_DATA + 2)),
        *(libc.sbrk(ctypes.c_long(0)), field(_START_STACK)),
        *(at, middle, middle, end),
        *(0, 0, -1),
    )
    zero, size = ctypes.c_ulong(0), ctypes.c_ulong(len(memory_map))
    if libc.prctl(_PR_SET_MM, ctypes.c_ulong(_PR_SET_MM_MAP), memory_map, size, zero) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot set the command line: {os.strerror(number)}")
    return buffer
