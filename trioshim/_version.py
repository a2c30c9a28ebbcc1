"""The version, as a constant: `-v` must not pay for reading package metadata."""

from __future__ import annotations

__version__ = "0.1.0"
