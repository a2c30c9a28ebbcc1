"""The programs of the pages and of examples/ that need root and runc, run as they stand."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.test_examples import (
    CONTAINERS,
    IN_CONTAINERS,
    README,
    ROOT,
    TUTORIAL,
    program_of_tutorial,
)
from trioshim.containers import unpack_image

from .requirements import GO, TRIO, missing_shim, shim_program

BUNDLES = Path("/run/trioshim")
LIMIT = 120  # seconds; only against a hanging test run
# Where an argument of a page stands for something of the machine.
IMAGE, ROOTFS = "/images/alpine", "/path/to/rootfs"


@pytest.fixture(autouse=True)
def ready(machine: None, give_up: Callable[[str], None]) -> None:
    give_up(missing_shim(TRIO))


def run(program: Path, *args: str) -> tuple[int, str]:
    """Exit status and output; afterwards there is no bundle of this program."""
    argv = [sys.executable, str(program), *args]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=program.parent
    ) as process:
        try:
            said, _ = process.communicate(timeout=LIMIT)
        except BaseException:
            process.kill()
            raise
    assert bundles_of(process.pid) == []
    return process.returncode, without_log(said)


def bundles_of(pid: int) -> list[Path]:
    """What this process has left; others may run containers at the same time."""
    return [path.parent for path in BUNDLES.glob("*/*/.owner") if owner(path) == str(pid)]


def owner(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except FileNotFoundError:
        return ""


def without_log(said: str) -> str:
    """What a program found left over by another is none of its own output."""
    return "".join(
        line
        for line in said.splitlines(keepends=True)
        if not re.match(r"container \S+ (was left over|cannot be removed)|the shim of ", line)
    )


def shown(name: str, page: Path) -> tuple[str, str]:
    """The arguments and the output that a page shows for one of its programs."""
    found = re.search(
        rf"^# (?:\S*/)?python {re.escape(name)} ?(.*)\n((?:.*\n)*?)```$",
        page.read_text("utf-8"),
        re.MULTILINE,
    )
    assert found, f"{page.name} does not show what {name} says"
    return found[1].partition("  #")[0], found[2]


@pytest.mark.parametrize("name", [name for name in IN_CONTAINERS if not shown(name, CONTAINERS)[0]])
def test_a_program_of_the_page_about_containers(name: str, tmp_path: Path) -> None:
    """It says what the page says, and leaves nothing."""
    assert run(program_of_tutorial(name, tmp_path, CONTAINERS)) == (0, shown(name, CONTAINERS)[1])


@pytest.mark.parametrize(("name", "page"), [("hello.py", README), ("first.py", TUTORIAL)])
def test_the_first_program_of_a_page(name: str, page: Path, tmp_path: Path) -> None:
    """A container ends with its block."""
    assert run(program_of_tutorial(name, tmp_path, page)) == (0, shown(name, page)[1])


def test_the_command_of_the_readme() -> None:
    """`trioshim run` with the words of the README says what it says there."""
    found = re.search(r"^# trioshim (run .*)\n(.*\n)```$", README.read_text("utf-8"), re.MULTILINE)
    assert found
    argv = [sys.executable, "-m", "trioshim.cli", *shlex.split(found[1])]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=LIMIT)
    assert (done.returncode, done.stdout) == (0, found[2]), done.stderr


async def test_an_image_stays_as_it_is(
    image_tar: Path, tmp_path: Path, give_up: Callable[[str], None]
) -> None:
    """fresh.py: what the first container removes is there for the second."""
    give_up("" if shutil.which("umoci") else "not installed: umoci (scripts/setup installs it)")
    program = program_of_tutorial("fresh.py", tmp_path, CONTAINERS)
    args, said = shown("fresh.py", CONTAINERS)
    assert args == IMAGE
    image = await unpack_image(image_tar)  # in the cache of the machine, where programs look
    try:
        assert run(program, str(image_tar)) == (0, said)
    finally:
        shutil.rmtree(image.rootfs)


@pytest.mark.parametrize("runtime", [TRIO, GO], indirect=True)
def test_any_shim_is_driven(runtime: str, rootfs: Path, tmp_path: Path) -> None:
    """any_shim.py with ours and with containerd's."""
    program = program_of_tutorial("any_shim.py", tmp_path, CONTAINERS)
    args, said = shown("any_shim.py", CONTAINERS)
    assert args.split()[1] == ROOTFS
    assert run(program, str(shim_program(runtime)), str(rootfs)) == (0, said)


# ---------------------------------------------------------------- examples/


def example(name: str, *args: str) -> tuple[int, str]:
    return run(ROOT / "examples" / name, *args)


def test_a_command_in_a_container() -> None:
    """run_container.py: the status is that of the command, and so is the output."""
    assert example("run_container.py", "sh", "-c", "echo I am $$; exit 7") == (7, "I am 1\n")


def test_events_are_told() -> None:
    """watch_events.py says what the page says; an OOM may come anywhere before init's exit."""
    status, said = example("watch_events.py")
    _, wanted = shown("examples/watch_events.py", CONTAINERS)
    oom = "/tasks/oom           busy\n"
    assert status == 0
    assert said.replace(oom, "") == wanted.replace(oom, "")
    assert 0 < said.find(oom) < said.find("/tasks/exit          busy")


def test_jobs_go_to_a_pool() -> None:
    """container_pool.py: three containers, and every square is right."""
    status, said = example("container_pool.py")
    assert status == 0
    assert re.fullmatch(r"(ready: [\w-]+\n){3}True\n", said)


def test_a_sandbox_holds() -> None:
    """sandbox_untrusted_code.py: each snippet meets the limit that it is about."""
    status, said = example("sandbox_untrusted_code.py")
    assert status == 0
    verdicts = dict(re.findall(r"^(\w+(?: \w+)?) +(.*)$", said, re.MULTILINE))
    multiplied = verdicts.pop("multiplies")
    assert verdicts == {
        "adds": "status 0: '45'",
        "fails": "status 1: \"ModuleNotFoundError: No module named 'nothing'\"",
        "loops": "too slow",
        "grows": "too much memory",
        "talks": "too much to say",
        "calls home": "status 1: 'OSError: [Errno 101] Network is unreachable'",
        "writes": "status 1: \"PermissionError: [Errno 13] Permission denied: '/etc/passwd'\"",
    }
    # Who forks first meets the limit first; then it depends on who is left.
    assert re.match("status 1: .*BlockingIOError|too slow|too much", multiplied), multiplied
