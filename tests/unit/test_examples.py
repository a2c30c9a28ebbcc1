"""What the pages show is what happens: their programs and the examples are run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from trioshim.client import connect
from trioshim.proto import task_v2_pb2 as api

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
TESTING = ROOT / "docs" / "testing.md"
CONTAINERS = ROOT / "docs" / "containers.md"
README = ROOT / "README.md"
GUARD = 60  # seconds; only against a hanging test run
SLEEP = b'{"process": {"args": ["sleep", "600"]}}'


def run(*argv: str | Path, cwd: Path = ROOT, path: str = "", status: int = 0) -> str:
    """The output of a Python program; an AssertionError with all it said if it ends otherwise."""
    done = subprocess.run(
        [sys.executable, *argv],
        cwd=cwd,
        env=os.environ | ({"PYTHONPATH": path} if path else {}),
        capture_output=True,
        text=True,
        timeout=GUARD,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def program_of_tutorial(name: str, directory: Path, page: Path = TUTORIAL) -> Path:
    """The first Python block after `name` is mentioned, written to a file of that name."""
    _, mention, rest = page.read_text("utf-8").partition(f"`{name}`")
    found = re.search(r"^```python\n(.*?)^```$", rest, re.MULTILINE | re.DOTALL)
    assert mention, f"{page.name} has no {name}"
    assert found, f"no program follows the mention of {name}"
    target = directory / name
    target.write_text(found[1], "utf-8")
    return target


@contextmanager
def plain_process_shim() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """examples/plain_process.py, and the path of its socket."""
    with tempfile.TemporaryDirectory(prefix="tsx") as directory:
        path = f"{directory}/s"
        argv = [sys.executable, str(ROOT / "examples" / "plain_process.py"), path]
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, cwd=ROOT) as shim:
            try:
                yield path, shim
            finally:
                shim.kill()


async def wait_for_socket(path: str) -> None:
    with trio.fail_after(GUARD):
        while True:
            try:
                await (await trio.open_unix_socket(path)).aclose()
            except OSError:
                await trio.sleep(0.01)  # another process: nothing else tells
            else:
                return


async def test_a_shim_of_ones_own_runs_a_process(tmp_path: Path) -> None:
    """drive.py creates a plain process, reads its output and status; the events come in order."""
    program = program_of_tutorial("drive.py", tmp_path)
    with plain_process_shim() as (path, shim):
        await wait_for_socket(path)
        told = await trio.to_thread.run_sync(run, program, path)
        events, _ = await trio.to_thread.run_sync(lambda: shim.communicate(timeout=GUARD))

    assert re.fullmatch(r"process (\d+) wrote: hello from \1\nits exit status: 7\n", told)
    assert re.findall(r"^/tasks/(\S+)", events, re.MULTILINE) == [
        *("create", "start", "exit", "delete")
    ]
    assert shim.returncode == 0
    assert not await trio.Path(path).exists()


async def test_a_program_looks_at_a_shim(tmp_path: Path) -> None:
    """look.py tells the state and the processes of a container."""
    program = program_of_tutorial("look.py", tmp_path)
    (tmp_path / "config.json").write_bytes(SLEEP)
    with plain_process_shim() as (path, _):
        await wait_for_socket(path)
        async with connect(path) as shim:
            request = api.CreateTaskRequest(id="hello", bundle=str(tmp_path))
            pid = (await shim.create(request)).pid
            await shim.start(api.StartRequest(id="hello"))
            told = await trio.to_thread.run_sync(run, program, f"unix://{path}", "hello")
            await shim.kill(api.KillRequest(id="hello", signal=9))

    assert told == f"hello: RUNNING, pid {pid}\nprocesses: {pid}\n"


async def test_the_example_ends_what_was_never_started(tmp_path: Path) -> None:
    """Delete after Create: the process that waited at its gate is gone, and so is the shim."""
    (tmp_path / "config.json").write_bytes(SLEEP)
    with plain_process_shim() as (path, process):
        await wait_for_socket(path)
        async with connect(path) as shim:
            pid = (await shim.create(api.CreateTaskRequest(id="c", bundle=str(tmp_path)))).pid
            await shim.delete(api.DeleteRequest(id="c"), timeout=GUARD)
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
            await shim.shutdown(api.ShutdownRequest())
        await trio.to_thread.run_sync(lambda: process.communicate(timeout=GUARD))

    assert process.returncode == 0


# ---------------------------------------------------------------- docs/testing.md

TOLD = {
    "orders.py": "300 schedules passed\nTrue False\n",
    "forgetful.py": "seed 0 took two ways\n",
}
PASSING = (
    *("test_patient.py", "test_pool.py", "test_world.py", "test_laws.py"),
    *("test_given.py", "test_marked.py", "test_my_shim.py", "test_every_fault.py"),
)


def test_no_program_of_the_page_is_forgotten() -> None:
    """Each Python block of testing.md is run by one of the tests below."""
    blocks = TESTING.read_text("utf-8").count("```python")
    assert blocks == len({*TOLD, *PASSING, "test_greeting.py"})


@pytest.mark.parametrize("name", TOLD)
def test_a_program_about_orders(name: str, tmp_path: Path) -> None:
    """It prints what the page says."""
    assert run(program_of_tutorial(name, tmp_path, TESTING)) == TOLD[name]


@pytest.mark.parametrize("name", PASSING)
def test_a_test_in_many_orders(name: str, tmp_path: Path) -> None:
    """It passes, in trio mode as well as without."""
    program = program_of_tutorial(name, tmp_path, TESTING)
    for mode in ("true", "false"):
        told = run("-m", "pytest", "-q", "-o", f"trio_mode={mode}", program, cwd=tmp_path)
        assert "1 passed" in told


def test_the_place_that_is_not_given_back_is_found(tmp_path: Path) -> None:
    """test_pool.py without its `finally` fails as the page says."""
    program = Path(program_of_tutorial("test_pool.py", tmp_path, TESTING))
    text = program.read_text("utf-8")
    program.write_text(
        text.replace("        finally:\n    ", "        except OSError:\n            raise\n")
    )
    told = run("-m", "pytest", "test_pool.py", cwd=tmp_path, status=1)
    assert "the blow fell at step 1 of 1, seed 0" in told


def test_the_race_is_found(tmp_path: Path) -> None:
    """test_greeting.py fails as the page says."""
    program_of_tutorial("test_greeting.py", tmp_path, TESTING)
    told = run("-m", "pytest", "test_greeting.py", cwd=tmp_path, status=1)
    _, _, page = TESTING.read_text("utf-8").partition("```console\n")
    for line in page.partition("\n```")[0].splitlines()[1:]:
        # Another trio may need another seed.
        pattern = re.sub(r"(seed\\ |schedule\\ |after\\ )\w+", r"\1\\w+", re.escape(line))
        assert line == "..." or re.search(f"^{pattern}$", told, re.MULTILINE), told


# ---------------------------------------------------------------- docs/tutorial.md, its last part


def test_a_hundred_orders(tmp_path: Path) -> None:
    """a_day.py: the shim in memory, and the laws in each order."""
    told = run(program_of_tutorial("a_day.py", tmp_path))
    assert told == "100 orders, and the laws hold in each\n"


def test_a_test_with_pytest_trio(tmp_path: Path) -> None:
    """test_a_day.py passes under pytest-trio."""
    program = program_of_tutorial("test_a_day.py", tmp_path)
    told = run(*("-m", "pytest", "-q", "-o", "trio_mode=true", program), cwd=tmp_path)
    assert "1 passed" in told


def test_a_runtime_of_ones_own_keeps_the_laws(tmp_path: Path) -> None:
    """check_plain.py: real processes, clients and daemon in memory."""
    program = program_of_tutorial("check_plain.py", tmp_path)
    told = run(program, path=str(ROOT / "examples"))
    assert told == "create, start, exit and delete, in this order\n"


def test_ttrpc_alone() -> None:
    """examples/ttrpc_echo.py: a payload comes back, and so does a status."""
    assert run("examples/ttrpc_echo.py").splitlines() == [
        "the server says: hello",
        "the server says: there is no treasure here: not found",
    ]


# ---------------------------------------------------------------- what needs root

# tests/real/test_examples_real.py runs them.
IN_CONTAINERS = (
    *("hello.py", "session.py", "deadline.py", "race.py", "pool.py", "at_once.py", "gently.py"),
    *("service.py", "fresh.py", "any_shim.py"),
)
IN_TUTORIAL = ("first.py", "look.py", "drive.py", "a_day.py", "test_a_day.py", "check_plain.py")
MOST_LINES = {"run_container.py": 30, "watch_events.py": 50, "sandbox_untrusted_code.py": 80}


@pytest.mark.parametrize(
    ("page", "names"),
    [(README, ("hello.py",)), (CONTAINERS, IN_CONTAINERS), (TUTORIAL, IN_TUTORIAL)],
)
def test_every_program_of_a_page_has_a_test(page: Path, names: tuple[str, ...]) -> None:
    """A Python block that is not named here is run by nobody."""
    assert page.read_text("utf-8").count("```python") == len(names)


@pytest.mark.parametrize("name", IN_CONTAINERS)
def test_a_program_can_be_compiled(name: str, tmp_path: Path) -> None:
    """Also where nobody can run it."""
    run("-m", "py_compile", program_of_tutorial(name, tmp_path, CONTAINERS))


@pytest.mark.parametrize("name", MOST_LINES)
def test_an_example_fits_on_a_screen(name: str) -> None:
    """Examples are short, or nobody reads them."""
    lines = (ROOT / "examples" / name).read_text("utf-8").splitlines()
    assert len(lines) <= MOST_LINES[name]
