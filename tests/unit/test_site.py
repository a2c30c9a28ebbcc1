"""The site has every page and every public name; that it can be built is `tox -e docs`' to say."""

from __future__ import annotations

import re
import runpy
from fnmatch import fnmatch

import pytest

from .test_docs import ROOT
from .test_exports import NAMES

DOCS = ROOT / "docs"
API = (DOCS / "api.md").read_text("utf-8")
# What they mean is said in the guide, or where they come from.
ELSEWHERE = {
    "trioshim": {*NAMES["trioshim"]} - {"serve"},
    "trioshim.containers": {"LaunchError"},
}


@pytest.mark.parametrize("module", NAMES)
def test_a_public_name_is_in_the_reference(module: str) -> None:
    """Each once, and nothing that has gone."""
    told = re.findall(rf"^\.\. auto(?!module)\w+:: {re.escape(module)}\.(\w+)$", API, re.MULTILINE)
    modules = set(re.findall(r"^\.\. automodule:: trioshim\.(\w+)$", API, re.MULTILINE))
    assert sorted(told) == sorted(NAMES[module] - ELSEWHERE.get(module, set()))
    assert modules == {"abc", "errors"}


def test_every_page_has_a_chapter() -> None:
    """The contents that docs/conf.py makes leave none out, and name none that is not there."""
    pages = {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md")}
    chapters = runpy.run_path(str(DOCS / "conf.py"))["chapters_of"](pages | {"new"})
    listed = [name for names in chapters.values() for name in names]
    assert {page for page in pages if not any(fnmatch(page, name) for name in listed)} == {"index"}
    assert [name for name in listed if not any(fnmatch(page, name) for page in pages)] == ["new"]
