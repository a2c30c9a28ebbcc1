"""Options that several commands have, so that they mean the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

__all__ = ["json_option", "namespace_option", "no_abbreviation", "state_dirs_option"]

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# For commands that end with words of another program: those are not read as options.
no_abbreviation = {"allow_interspersed_args": False, "help_option_names": ["--help"]}

namespace_option: Decorator = click.option(
    "-n", "--namespace", default="", metavar="NAME", help="Only there; default: everywhere."
)
state_dirs_option: Decorator = click.option(
    "--state-dir",
    "state_dirs",
    multiple=True,
    metavar="DIR",
    help="Where bundles are, DIR/NAMESPACE/ID; default: trioshim's own, containerd's, docker's.",
)
json_option: Decorator = click.option("--json", "as_json", is_flag=True, help="One JSON a line.")
