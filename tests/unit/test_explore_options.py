"""`--schedules` and `--seed` are ours only where nobody else has them; the long names always."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.test_explore import ALONE, COUNTED, HASTY, WITHOUT_OTHERS, pytest_says
from trioshim.testing import _pytest_options as options

# A project with options of its own, as pytest-randomly's or numpy's users have them.
ITS_SEED = """
def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=4)
def pytest_report_header(config):
    return f"its seed is {config.getoption('--seed')}"
"""
ITS_SCHEDULES = """
def pytest_addoption(parser):
    parser.getgroup("theirs").addoption("--schedules", action="store_true")
def pytest_report_header(config):
    return f"its schedules: {config.getoption('--schedules')}"
"""


def with_conftest(directory: Path, text: str) -> Path:
    (directory / "conftest.py").write_text(text, "utf-8")
    return directory


def test_the_long_names_are_always_there(tmp_path: Path) -> None:
    """Both forms of an option, in a project with nothing of its own."""
    said = pytest_says(tmp_path, COUNTED, "--explore-schedules", "3", "--explore-seed=5")
    assert "6 runs, 3 draws" in said


def test_a_conftest_has_its_seed(tmp_path: Path) -> None:
    """Its option means what it meant; ours are the long one and the other short one."""
    project = with_conftest(tmp_path, ITS_SEED)
    said = pytest_says(project, HASTY, "--seed", "99", "--schedules", "150", "--explore-seed=1")
    assert "its seed is 99" in said
    assert "'test_it.py::test_hasty[hello world]' --schedules 1 --explore-seed 18" in said
    assert "its seed is 4" in pytest_says(project, COUNTED)


def test_a_conftest_has_its_schedules(tmp_path: Path) -> None:
    """A flag takes no number from us."""
    project = with_conftest(tmp_path, ITS_SCHEDULES)
    said = pytest_says(project, COUNTED, "--schedules", "--explore-schedules=2", "--seed", "1")
    assert "its schedules: True" in said
    assert "4 runs, 2 draws" in said
    assert "--explore-schedules 1 --seed 18" in pytest_says(project, HASTY)


def test_a_plugin_has_its_seed(tmp_path: Path) -> None:
    """It is loaded after ours, by a conftest."""
    (tmp_path / "theirs.py").write_text(ITS_SEED, "utf-8")
    project = with_conftest(tmp_path, "pytest_plugins = ['theirs']")
    said = pytest_says(project, COUNTED, "--seed=7", PYTHONPATH=str(tmp_path))
    assert "its seed is 7" in said
    assert "14 runs, 7 draws" in said


def test_a_conftest_that_is_found_late_does_no_harm(tmp_path: Path) -> None:
    """pytest reads it while it collects, when all options are parsed already."""
    deep = tmp_path / "src" / "package"
    deep.mkdir(parents=True)
    with_conftest(deep, ITS_SEED)
    (deep / "test_deep.py").write_text(
        "def test_it(pytestconfig): assert pytestconfig.getoption('--seed') == 4", "utf-8"
    )
    said = pytest_says(tmp_path, COUNTED)
    assert "2 passed" in said
    assert "2 passed" in pytest_says(tmp_path, COUNTED, "--seed", "3")


def test_a_number_is_not_taken_for_a_file(tmp_path: Path) -> None:
    """`--seed 5` leaves the project's testpaths, and the options of a conftest there."""
    deep = tmp_path / "src" / "package"
    deep.mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = src/package", "utf-8")
    with_conftest(deep, "def pytest_addoption(parser): parser.addoption('--theirs')")
    (deep / "test_deep.py").write_text("def test_it(): pass", "utf-8")
    assert "1 passed" in pytest_says(tmp_path, "", "--seed", "5", "--theirs=x")


def test_options_in_the_configuration(tmp_path: Path) -> None:
    """addopts and PYTEST_ADDOPTS are as good as the command line, and after it they count less."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --schedules=2", "utf-8")
    assert "4 runs, 2 draws" in pytest_says(tmp_path, COUNTED)
    assert "6 runs, 3 draws" in pytest_says(tmp_path, COUNTED, "--schedules=3")
    assert "8 runs, 4 draws" in pytest_says(tmp_path, COUNTED, PYTEST_ADDOPTS="--schedules 4")


@pytest.mark.parametrize("text", ["", ITS_SEED])
def test_help_and_absence(text: str, tmp_path: Path) -> None:
    """`--help` has the long names, beside others' short ones; without the plugin there are none."""
    project = with_conftest(tmp_path, text)
    told = pytest_says(project, "", "--help")
    assert "--explore-seed" in told
    assert "--explore-schedules" in told
    absent = pytest_says(project, "def test_it(): pass", "-p", "no:trioshim", "--help")
    assert "--explore" not in absent
    assert "1 passed" in pytest_says(project, "def test_it(): pass", "-p", "no:trioshim")


def test_help_in_spite_of_a_broken_conftest(tmp_path: Path) -> None:
    """pytest shows its help then; we do not stand in the way."""
    project = with_conftest(tmp_path, "1 / 0")
    assert "--explore-seed" in pytest_says(project, "", "--help", "-W", "default")


def test_no_other_plugin_is_needed(tmp_path: Path) -> None:
    """Loaded by its name, as where plugins are not loaded by themselves."""
    project = with_conftest(tmp_path, ITS_SEED)
    said = pytest_says(project, HASTY, *ALONE, "--seed", "3", **WITHOUT_OTHERS)
    assert "its seed is 3" in said
    assert "--schedules 1 --explore-seed" in said


def test_only_whole_arguments_are_ours() -> None:
    """Values, longer names and what follows `--` stay as they are."""
    args = ["--seed=1", "--seedling", "-k--seed", "--schedules", "2", "--", "--seed"]
    assert options.lengthened(args, {"--seed", "--schedules"}) == [
        *("--explore-seed=1", "--seedling", "-k--seed", "--explore-schedules", "2", "--", "--seed")
    ]
    assert options.lengthened(args, ()) == args


def test_a_pytest_that_does_not_tell_keeps_the_short_names() -> None:
    """Whose options they are cannot be seen in a parser of another make: then not ours."""
    assert options.free(object()) == frozenset()  # type: ignore[arg-type]
