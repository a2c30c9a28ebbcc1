"""How Sphinx makes a site of these pages: `tox -e docs`, where a warning is a failure.

The pages are written for any reader of Markdown; what only Sphinx needs is here.
"""

from __future__ import annotations

from fnmatch import fnmatch
from typing import TYPE_CHECKING

from trioshim import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "trioshim"
author = "the trioshim developers"
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_copy_source = False
smartquotes = False
# Some blocks are excerpts, with "..." where something is left out.
suppress_warnings = ["misc.highlighting_failure"]

myst_heading_anchors = 4  # as a git host makes them

# In docstrings `x` is code; types are short; long signatures get a line for each argument.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False

# Chapters of the site, and their pages; a page that is not named comes under "More".
CHAPTERS = {
    "": ["tutorial"],
    "Guides": ["containers", "cli", "testing", "operations"],
    "Reference": ["api", "reference", "supported"],
    "Background": ["design", "benchmarks", "mutants", "decisions/*"],
}


def chapters_of(pages: set[str]) -> dict[str, list[str]]:
    """The chapters of the site, complete."""
    named = [name for names in CHAPTERS.values() for name in names]
    more = {page for page in pages if not any(fnmatch(page, name) for name in named)}
    return CHAPTERS | ({"More": sorted(more - {"index"})} if more > {"index"} else {})


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the table of contents at the end of the front page, unseen."""
    if page != "index":
        return
    for title, pages in chapters_of(app.env.found_docs).items():
        lines = ["```{toctree}", ":hidden:", ":glob:", f":caption: {title}", "", *pages, "```"]
        source[0] += "\n" + "\n".join(line for line in lines if line != ":caption: ") + "\n"


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_contents)
