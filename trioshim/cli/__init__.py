"""The command `trioshim`: containers for people at a terminal."""

from ._entry import main as main
