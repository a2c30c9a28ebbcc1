"""`-info` describes the runtime below to the daemon, `-v` the shim to people."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from trioshim.bootstrap._wire import block_field
from trioshim.proto.types_pb2 import RuntimeInfo

from .verb_world import World, needs_root, open_world

pytestmark = needs_root


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world; afterwards no server of it is left."""
    with open_world(tmp_path) as world:
        yield world


def test_info_describes_the_runtime(world: World) -> None:
    """Name, version, the options as they came, and what the runtime says of itself."""
    program = world.root / "crun"
    program.write_text("#!/bin/sh\necho '{\"x\": 1}'\n")
    program.chmod(0o755)
    value = block_field(6, os.fsencode(program))
    options = block_field(1, b"containerd.runc.v1.Options") + block_field(2, value)
    done = world.run("-info", bundle=world.bundle(), stdin=options)
    information = RuntimeInfo.FromString(done.stdout)
    assert information.name == "io.containerd.trio.v1"
    assert information.version.version
    assert information.options.SerializeToString() == options
    assert information.features.type_url.endswith("runtime-spec/1/features/Features")
    assert json.loads(information.features.value) == {"x": 1}


@pytest.mark.skipif(shutil.which("runc") is None, reason="needs runc")
def test_info_without_options_asks_runc(world: World) -> None:
    """The default runtime's features, as JSON."""
    done = world.run("-info", bundle=world.bundle())
    features = json.loads(RuntimeInfo.FromString(done.stdout).features.value)
    assert "ociVersionMin" in features


def test_info_without_runtime_fails(world: World) -> None:
    """containerd shows this text to its user."""
    done = world.run("-info", bundle=world.bundle(), PATH="/nowhere")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"runtime 'runc' is not in PATH" in done.stderr


def test_info_leaves_out_unknown_features(world: World) -> None:
    """An old runc does not know the command: that is no failure."""
    bundle = world.bundle()
    program = world.root / "runc"
    program.write_text("#!/bin/sh\necho '{}'; exit 1\n")
    program.chmod(0o755)
    done = world.run("-info", bundle=bundle, PATH=f"{world.root}:{os.environ['PATH']}")
    assert done.returncode == 0
    assert not RuntimeInfo.FromString(done.stdout).HasField("features")


def test_version(world: World) -> None:
    """For people: the name and the version."""
    done = world.run("-v", bundle=world.bundle())
    assert done.returncode == 0
    assert done.stdout.startswith(b"containerd-shim-trio-v1:\n  Version: ")
