"""The installed executable: found through links, quick for `start` and `delete`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

import trioshim
from trioshim.proto.task_v2_pb2 import DeleteResponse
from trioshim.runc._options import RuncOptions
from trioshim.task._events import timestamp

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


@pytest.mark.parametrize("name", [NAME, "trioshim"])
def test_it_is_what_is_installed(name: str) -> None:
    """pip would make a slower one of an entry point."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert f"scripts/{name}" in project["tool"]["setuptools"]["script-files"]
    assert "scripts" not in project["project"]
    assert os.access(ROOT / "scripts" / name, os.X_OK)


def test_the_command_loads_next_to_nothing() -> None:
    """Before it hands over: neither `re` nor `enum`, nor what needs them."""
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}; from trioshim.cli import main;"
        "print(*{'re', 'enum', 'click'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-IS", "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "\n"


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


# ---------------------------------------------------------------- delete without Python

RECEIPT = DeleteResponse(pid=7, exit_status=3, exited_at=timestamp(5)).SerializeToString()


class Deleted:
    """A bundle as the shim leaves it, and the executable beside a Python that only says so."""

    def __init__(self, base: Path) -> None:
        self.state = base / "state" / "n"
        self.state.mkdir(parents=True)
        self.socket = base / "socket"
        self.bundle = base / "c"
        self.bundle.mkdir()
        files = {
            "deleted": RECEIPT,
            "options.json": b"{}",
            "address": f"unix://{self.socket}".encode(),
            "shim.pid": b"1",
        }
        for name, data in files.items():
            (self.bundle / name).write_bytes(data)
        self.program = base / "bin" / NAME
        self.program.parent.mkdir()
        text = (ROOT / "scripts" / NAME).read_text()
        assert "=/run/containerd/runc\n" in text
        self.program.write_text(text.replace("/run/containerd/runc\n", f"{base}/state\n"))
        self.program.chmod(0o755)
        python = self.program.with_name("python3")
        python.write_text("#!/bin/sh\necho Python\n")
        python.chmod(0o755)

    def delete(self, *words: str) -> bytes:
        flags = ["-namespace", "n", "-address", "/a", "-publish-binary", "/c", "-id", "c"]
        done = subprocess.run(
            [str(self.program), *flags, *(words or ("-bundle", str(self.bundle), "delete"))],
            cwd=self.bundle,
            capture_output=True,
            timeout=30,
            check=True,
        )
        assert done.stderr == b""
        return done.stdout

    def is_left_to_python(self) -> bool:
        return self.delete() == b"Python\n"


@pytest.fixture
def gone(tmp_path: Path) -> Deleted:
    return Deleted(tmp_path)


def test_what_the_shim_has_deleted_is_answered_by_a_shell(gone: Deleted) -> None:
    """Byte for byte, with the bundle named or as the working directory."""
    assert gone.delete() == RECEIPT
    assert gone.delete("-debug", "delete") == RECEIPT


def test_only_delete_is_answered_by_a_shell(gone: Deleted) -> None:
    """Whatever lies in the bundle."""
    assert gone.delete("start") == gone.delete("delete", "-debug") == b"Python\n"


@pytest.mark.parametrize("name", ["deleted", "options.json", "address", "shim.pid"])
def test_with_a_file_missing_it_is_left_to_python(gone: Deleted, name: str) -> None:
    """It is not as the shim leaves it, then."""
    (gone.bundle / name).unlink()
    assert gone.is_left_to_python()


def test_a_container_that_is_there_again_is_left_to_python(gone: Deleted) -> None:
    """The same name in the same bundle; or nobody knows where the runtime has its state."""
    (gone.state / "c").mkdir()
    assert gone.is_left_to_python()
    (gone.state / "c").rmdir()
    assert not gone.is_left_to_python()
    gone.state.rmdir()
    assert gone.is_left_to_python()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("options.json", '{"binary_name": "crun", "root": "/elsewhere"}'),
        ("options.json", '{"root":"/else\\\\where"}'),
        ("options.json", '{"root" : "/elsewhere"}'),
        ("address", '{"address": "/a", "protocol": "grpc", "version": 2}'),
        ("address", ""),
    ],
)
def test_what_a_shell_cannot_understand_is_left_to_python(
    gone: Deleted, name: str, text: str
) -> None:
    """JSON, and another place of the runtime's."""
    (gone.bundle / name).write_text(text)
    assert gone.is_left_to_python()


def test_the_runtime_may_have_its_state_elsewhere(gone: Deleted, tmp_path: Path) -> None:
    """As with docker, which has a place of its own for it."""
    state = tmp_path / "else where" / "n"
    state.mkdir(parents=True)
    options = RuncOptions(binary_name="runc", root=str(state.parent), systemd_cgroup=True)
    (gone.bundle / "options.json").write_bytes(options.to_json())
    assert gone.delete() == RECEIPT
    (state / "c").mkdir()
    assert gone.is_left_to_python()


def test_a_dead_socket_is_left_to_python(gone: Deleted) -> None:
    """A shim that lives removes it itself; nobody else does."""
    gone.socket.touch()
    assert gone.delete() == RECEIPT
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    (gone.bundle / "shim.pid").write_text(str(ended.pid))
    assert gone.is_left_to_python()
