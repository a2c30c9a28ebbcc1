#!/usr/bin/env python3
"""Generate `trioshim/proto/*_pb2.py` and their .pyi stubs from `protos/`.

Works from any directory and needs only `pip install trioshim[protos]`.  The same generator makes
the same bytes, so `--check` can tell whether the generated code is in step with the texts.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "protos"
PACKAGE = Path("trioshim", "proto")
ADVICE = "pip install 'trioshim[protos]'"


def missing_tools() -> list[str]:
    """What has to be installed before anything can be generated, one sentence each."""
    # Generated code refuses a runtime older than its generator, so the generator's version decides
    # the lowest protobuf that we work with: pyproject.toml pins both.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = dict(pin.split("==") for pin in project["optional-dependencies"]["protos"])
    return [
        f"{name} {wanted} is needed, {_version(name) or 'none'} is installed: {ADVICE}"
        for name, wanted in pins.items()
        if _version(name) != wanted
    ]


def generate(target: Path) -> None:
    """Write the generated files to `target`/trioshim/proto.

    Raises:
        RuntimeError: protoc found a mistake in the texts; the message says where.
    """
    texts = sorted((SOURCES / PACKAGE).glob("*.proto"))
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc"),
        f"--plugin=protoc-gen-mypy={_stub_generator()}",
        f"--proto_path={SOURCES}",
        f"--python_out={target}",
        f"--mypy_out=quiet:{target}",
        *(str(text.relative_to(SOURCES)) for text in texts),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"protoc failed:\n{done.stderr.strip()}")


def differences(expected: Path, actual: Path) -> list[str]:
    """How the generated files below `actual` differ from those below `expected`; sorted by name."""
    wanted = _generated(expected)
    present = _generated(actual)
    told = []
    for name in sorted(wanted.keys() | present.keys()):
        path = (PACKAGE / name).as_posix()
        if name not in present:
            told.append(f"missing: {path}")
        elif name not in wanted:
            told.append(f"superfluous: {path} (there is no such text in protos/)")
        elif wanted[name] != present[name]:
            told.append(f"differs: {path}")
    return told


def install(source: Path, target: Path) -> None:
    """Make the generated files below `target` those below `source`, and remove the others."""
    wanted = _generated(source)
    present = _generated(target)
    for name in present.keys() - wanted.keys():
        (target / PACKAGE / name).unlink()
    for name, content in wanted.items():
        if present.get(name) != content:
            (target / PACKAGE / name).write_bytes(content)


def _generated(root: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for pattern in ("*_pb2.py", "*_pb2.pyi")
        for path in (root / PACKAGE).glob(pattern)
    }


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _stub_generator() -> str:
    """The plugin of this very Python, which need not be on PATH."""
    scripts = sysconfig.get_path("scripts")
    found = shutil.which("protoc-gen-mypy", path=scripts) or shutil.which("protoc-gen-mypy")
    if found is None:
        raise RuntimeError(f"protoc-gen-mypy is not in {scripts} nor on PATH: {ADVICE}")
    return found


def _check(fresh: Path) -> int:
    told = differences(fresh, ROOT)
    if not told:
        print("the generated code is in step with protos/")
        return 0
    print(*told, sep="\n")
    print("run scripts/generate_protos.py and commit the result", file=sys.stderr)
    return 1


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 (out of step) or 2 (cannot tell)."""
    parser = argparse.ArgumentParser(description="Generate trioshim/proto from protos/.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if the code is out of step"
    )
    arguments = parser.parse_args(argv)
    if problems := missing_tools():
        print(*problems, sep="\n", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="trioshim-protos-") as scratch:
        try:
            generate(Path(scratch))
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 2
        if arguments.check:
            return _check(Path(scratch))
        install(Path(scratch), ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
