"""The rule for ids and namespaces: what may become part of a path or of a command line.  Pure."""

from __future__ import annotations

MAX_LENGTH = 76


def check_identifier(text: str, what: str = "identifier") -> None:
    """Refuse what containerd would not take as the name of a container, exec or namespace.

    A valid one is made of ASCII letters and digits, in parts joined by single `.`, `_` or `-`.
    So it is never a path, never `..` and never looks like a flag.

    Args:
        text: the name.
        what: what it names, for the error's text.

    Raises:
        ValueError: it is empty, longer than 76 characters, or has other characters.
    """
    if not text:
        raise ValueError(f"{what} is empty")
    if len(text) > MAX_LENGTH:
        raise ValueError(
            f"{what} {text[:16]!r}... has {len(text)} characters, at most {MAX_LENGTH}"
        )
    parts = text.replace("_", ".").replace("-", ".").split(".")
    if not all(part.isascii() and part.isalnum() for part in parts):
        raise ValueError(
            f"{what} {text!r} is not valid: letters and digits, joined by single '.', '_' or '-'"
        )
