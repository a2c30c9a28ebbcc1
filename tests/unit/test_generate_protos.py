"""The generated code is in step with `protos/`, and the script tells when it is not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "generate_protos.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("generate_protos", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _tree(root: Path, **files: str) -> Path:
    package = root / "trioshim" / "proto"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("kept")
    for stem, content in files.items():
        (package / f"{stem}.py").write_text(content)
    return root


def test_the_generated_code_is_in_step(script: ModuleType, tmp_path: Path) -> None:
    """Whoever edits protos/ has to run the script; any working directory will do."""
    if missing := script.missing_tools():
        pytest.skip("; ".join(missing))
    done = subprocess.run(
        [sys.executable, "-W", "error", SCRIPT, "--check"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stdout + done.stderr == "the generated code is in step with protos/\n"
    assert done.returncode == 0


def test_every_kind_of_difference_is_told_by_name(script: ModuleType, tmp_path: Path) -> None:
    """Changed, missing and left-over files, each with its path; hand-written files do not count."""
    fresh = _tree(tmp_path / "fresh", a_pb2="new", b_pb2="b", same_pb2="s")
    present = _tree(tmp_path / "present", a_pb2="old", c_pb2="c", same_pb2="s", own="x")
    assert script.differences(fresh, present) == [
        "differs: trioshim/proto/a_pb2.py",
        "missing: trioshim/proto/b_pb2.py",
        "superfluous: trioshim/proto/c_pb2.py (there is no such text in protos/)",
    ]


def test_installing_leaves_no_difference_and_no_hand_written_file_out(
    script: ModuleType, tmp_path: Path
) -> None:
    """What a deleted .proto text left behind goes too; `__init__.py` stays."""
    fresh = _tree(tmp_path / "fresh", a_pb2="new", b_pb2="b")
    present = _tree(tmp_path / "present", a_pb2="old", c_pb2="c")
    script.install(fresh, present)
    assert script.differences(fresh, present) == []
    assert (present / "trioshim" / "proto" / "__init__.py").read_text() == "kept"


def test_a_check_that_finds_differences_fails_and_changes_nothing(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit status 1, the names on stdout, what to do on stderr."""
    present = _tree(tmp_path / "present", a_pb2="old")
    monkeypatch.setattr(script, "ROOT", present)
    monkeypatch.setattr(script, "missing_tools", list)
    monkeypatch.setattr(script, "generate", lambda target: _tree(target, a_pb2="new"))
    assert script.main(["--check"]) == 1
    out, err = capsys.readouterr()
    assert out == "differs: trioshim/proto/a_pb2.py\n"
    assert "generate_protos.py" in err
    assert (present / "trioshim" / "proto" / "a_pb2.py").read_text() == "old"


def test_a_generator_of_another_version_is_refused(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another version makes other bytes: the answer is what to install, not a list of files."""
    monkeypatch.setattr(script, "_version", "0.1.{}".format)
    assert script.main(["--check"]) == 2
    assert "grpcio-tools" in (err := capsys.readouterr().err)
    assert "pip install" in err


def test_a_mistake_in_a_text_is_told_with_its_place(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit status 2 and protoc's own message; nothing is written."""
    if missing := script.missing_tools():
        pytest.skip("; ".join(missing))
    texts = _tree(tmp_path) / "trioshim" / "proto"
    (texts / "bad.proto").write_text('syntax = "proto3";\nmessage M { string s = 0; }\n')
    monkeypatch.setattr(script, "SOURCES", tmp_path)
    monkeypatch.setattr(script, "install", None)
    assert script.main([]) == 2
    assert "bad.proto:2:" in capsys.readouterr().err
