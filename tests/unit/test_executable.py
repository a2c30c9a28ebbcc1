"""The installed executable: found through links, quick for `start` and `delete`."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
import venv
from pathlib import Path

import pytest

import trioshim

ROOT = Path(__file__).parents[2]
NAME = "containerd-shim-trio-v1"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The executable in an environment with our package and nothing else."""
    place = tmp_path_factory.mktemp("place") / "with space"
    venv.create(place, symlinks=True)
    (packages,) = place.glob("lib/python*/site-packages")
    shutil.copytree(Path(trioshim.__file__).parent, packages / "trioshim")
    return Path(shutil.copy(ROOT / "scripts" / NAME, place / "bin"))


def run(program: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *words],
        env={"PATH": os.environ["PATH"]} | more,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_it_is_what_is_installed() -> None:
    """pip would make a slower one of an entry point."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert f"scripts/{NAME}" in project["tool"]["setuptools"]["script-files"]
    assert NAME not in project["project"]["scripts"]
    assert os.access(ROOT / "scripts" / NAME, os.X_OK)


def test_it_runs_where_it_is(program: Path) -> None:
    """By its path, and by a link from a directory that has no Python."""
    link = program.parents[2] / NAME
    link.symlink_to(program)
    for path in (program, link):
        done = run(str(path), "-v")
        assert (done.returncode, done.stderr) == (0, "")
        assert trioshim.__version__ in done.stdout


@pytest.mark.parametrize("verb", ["start", "delete"])
def test_helpers_do_without_site(program: Path, verb: str) -> None:
    """A broken one is not even looked at; an error is still one line."""
    (packages,) = program.parents[1].glob("lib/python*/site-packages")
    broken = packages / "broken.pth"
    broken.write_text("import os; os.write(2, b'site was here')\n")
    try:
        done = run(str(program), "-namespace", "n", "-id", "../x", verb, PYTHONPATH="/nowhere")
    finally:
        broken.unlink()
    assert done.returncode == 1
    assert done.stderr.startswith(f"{NAME}: shim id (-id) '../x' is not valid")
    assert done.stderr.count("\n") == 1


def test_a_package_that_is_elsewhere_is_found(program: Path) -> None:
    """An editable installation: `site` knows where it is."""
    (packages,) = program.parents[1].glob("lib/python*/site-packages")
    elsewhere = program.parents[2] / "elsewhere"
    elsewhere.mkdir()
    (packages / "trioshim").rename(elsewhere / "trioshim")
    (packages / "elsewhere.pth").write_text(f"{elsewhere}\n")
    try:
        done = run(str(program), "-namespace", "n", "-id", "x", "-bundle", "/nowhere", "delete")
    finally:
        (packages / "elsewhere.pth").unlink()
        (elsewhere / "trioshim").rename(packages / "trioshim")
    assert (done.returncode, done.stderr) == (1, f"{NAME}: no bundle at /nowhere\n")
