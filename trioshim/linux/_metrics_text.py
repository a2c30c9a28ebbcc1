"""The text of cgroup files, taken apart.  Pure: text in, numbers out.

What a file does not say, or says in a way that nobody knows, is left out: the kernel adds keys
with every release, and a parser that insists breaks `stats` on the next one (containerd#3951).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.message import Message

UINT64_MAX = 2**64 - 1
UINT32_MAX = 2**32 - 1

Read = Callable[[str], str | None]
"""A file's name to its text; None if it is not there."""


def number(text: str | None, *, max_is: int = UINT64_MAX) -> int:
    """A uint64; `max_is` for "max"; 0 for nothing, nonsense and negative numbers."""
    word = (text or "").strip()
    if word == "max":
        return max_is
    try:
        return min(max(int(word), 0), UINT64_MAX)
    except ValueError:
        return 0


def pairs(text: str | None) -> Iterator[tuple[str, int]]:
    """The lines "key number"; other lines are left out."""
    for line in (text or "").splitlines():
        match line.split():
            case [key, value] if value.isdecimal():
                yield key, number(value)


def set_counters(message: Message, values: Iterable[tuple[str, int]]) -> None:
    """Set the uint64 fields that the values are named after; leave out the other values."""
    fields = message.DESCRIPTOR.fields_by_name
    for name, value in values:
        field = fields.get(name)
        if field is not None and field.type == field.TYPE_UINT64:
            setattr(message, name, value)


def rdma_devices(text: str | None) -> Iterator[tuple[str, int, int]]:
    """The lines "device hca_handle=N hca_object=N" as (device, handles, objects)."""
    for line in (text or "").splitlines():
        device, *words = line.split() or [""]
        values = dict(word.partition("=")[::2] for word in words)
        if device and values:
            yield device, _uint32(values.get("hca_handle")), _uint32(values.get("hca_object"))


def _uint32(text: str | None) -> int:
    return min(number(text, max_is=UINT32_MAX), UINT32_MAX)


def page_sizes(names: Iterable[str]) -> list[str]:
    """The sizes in file names like "hugetlb.2MB.max", each once."""
    return sorted({name.split(".")[1] for name in names if name.startswith("hugetlb.")})
