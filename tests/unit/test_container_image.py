"""Images: found, checked, unpacked once, and never half."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from trioshim.containers import _image
from trioshim.containers._image import Image, unpack_image

from . import image_files as made
from .image_files import entry, names, tar

pytestmark = made.needs_tools
cache = made.cache


def check_layers(root: Path) -> None:
    """That it is LOWER below UPPER."""
    assert sorted(os.listdir(root)) == ["etc", "hard", "opaque", "owned", "soft", "su"]
    assert sorted(os.listdir(root / "etc")) == ["kept", "replaced"]
    assert (root / "etc" / "replaced").read_text() == "new"
    assert os.listdir(root / "opaque") == ["above"]
    assert (root / "su").stat().st_mode & 0o7777 == 0o4755
    assert ((root / "owned").stat().st_uid, (root / "owned").stat().st_gid) == (1000, 1001)
    assert (root / "hard").samefile(root / "etc" / "kept")
    assert not (root / "hard").is_symlink()
    assert (root / "soft").readlink() == Path("etc/kept")


FORMS = ["directory", "tar", "docker types", "docker and oci", "docker save"]


@pytest.mark.parametrize("kind", FORMS)
async def test_layers_are_laid_over_each_other(tmp_path: Path, cache: Path, kind: str) -> None:
    """Whiteouts, opaque directories, owners, modes and links, from every form of image."""
    image = await unpack_image(made.write(tmp_path / "a:b", kind), cache=cache)
    check_layers(Path(image.rootfs))
    assert names(cache) == [image.digest.removeprefix("sha256:")]
    assert image.config.env == {"PATH": "/bin", "A": "b=c"}
    assert (image.config.working_dir, image.config.user) == ("/srv", "app")
    assert image.config.command() == ["/bin/run", "-x"]
    assert image.config.command(["-y", "-z"]) == ["/bin/run", "-y", "-z"]


@pytest.mark.parametrize("kind", ["directory", "tar", "docker save"])
async def test_the_second_time_nothing_is_run(
    tmp_path: Path, cache: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there is used as it is: only metadata are read."""
    path = made.write(tmp_path / "image", kind)
    first = await unpack_image(path, cache=cache)

    async def refuse(*args: object) -> None:
        raise AssertionError(args)

    monkeypatch.setattr(_image, "_run", refuse)
    assert await unpack_image(path, cache=cache) == first


async def test_an_image_without_config_runs_nothing_of_its_own(tmp_path: Path, cache: Path) -> None:
    """What it does not say has the plain defaults."""
    settings = made.to_json({"config": None, "rootfs": {"type": "layers", "diff_ids": []}})
    manifest = made.to_json(
        {
            "schemaVersion": 2,
            "config": made.descriptor(f"{made.OCI}.config.v1+json", settings),
            "layers": [],
        }
    )
    one = {made.blob(data): data for data in (settings, manifest)}
    one["descriptor"] = made.to_json(made.descriptor(f"{made.OCI}.manifest.v1+json", manifest))
    image = await unpack_image(made.write_tar(tmp_path / "a", made.layout(one)), cache=cache)
    assert image.config == _image.ImageConfig()
    assert image.config.command(["ls"]) == ["ls"]
    assert os.listdir(image.rootfs) == []


# ---------------------------------------------------------------- which image


async def unpacked(path: Path, cache: Path, name: str = "") -> list[str]:
    """What is in the root of the image."""
    return sorted(os.listdir((await unpack_image(path, name=name, cache=cache)).rootfs))


async def test_one_of_several_is_chosen_by_name(tmp_path: Path, cache: Path) -> None:
    """The end of the name will do; without a name the error tells the names."""
    images = [
        made.image(tar(entry(name)), annotations=made.annotated(f"example.org/{name}:1"))
        for name in ("one", "two")
    ]
    path = made.write_tar(tmp_path / "oci.tar", made.layout(*images))
    assert await unpacked(path, cache, "two:1") == ["two"]
    with pytest.raises(ValueError, match=r"2 images for this machine.*example\.org/one:1"):
        await unpack_image(path, cache=cache)
    with pytest.raises(ValueError, match="0 images named 'wo:1'"):
        await unpack_image(path, name="wo:1", cache=cache)


async def test_one_of_dockers_is_chosen_by_tag(tmp_path: Path, cache: Path) -> None:
    """`docker save` of two images, and skopeo takes the right one."""
    archives = [
        made.docker_archive(tar(entry(name)), tags=[f"{name}:1"]) for name in ("one", "two")
    ]
    both = [json.loads(archive["manifest.json"])[0] for archive in archives]
    files = archives[0] | archives[1] | {"manifest.json": made.to_json(both)}
    path = made.write_tar(tmp_path / "docker.tar", files)
    assert await unpacked(path, cache, "two:1") == ["two"]
    assert await unpacked(path, cache, "one:1") == ["one"]
    with pytest.raises(ValueError, match=r"2 images .*one:1, two:1"):
        await unpack_image(path, cache=cache)


async def test_of_several_platforms_this_machines_is_taken(tmp_path: Path, cache: Path) -> None:
    """An index below the index, as multi-platform images have it."""
    platforms = ((made.ARCHITECTURE, "mine"), ("z80", "other"), ("unknown", "attestation"))
    images = [
        made.image(tar(entry(name)), platform={"os": "linux", "architecture": architecture})
        for architecture, name in platforms
    ]
    inner = made.layout(*images)
    index = inner.pop("index.json")
    top = made.to_json(made.descriptor(f"{made.OCI}.index.v1+json", index))
    files = made.layout({**inner, made.blob(index): index, "descriptor": top})
    assert await unpacked(made.write_tar(tmp_path / "oci.tar", files), cache) == ["mine"]


# ---------------------------------------------------------------- at the same time, and killed

# Stands for umoci: says that it has begun, and never ends.
STUCK = """#!/bin/sh
mkdir rootfs && echo half > rootfs/half && echo $$ > "$STUCK"
exec sleep 600
"""
UNPACK = """
import sys, trio
from trioshim.containers._image import unpack_image
async def main():
    print((await unpack_image(sys.argv[1], cache=sys.argv[2])).rootfs, flush=True)
trio.run(main)
"""


@pytest.fixture
def stuck(tmp_path: Path) -> dict[str, str]:
    """An environment with an umoci that hangs; it writes its pid to $STUCK."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "umoci").write_text(STUCK)
    (tmp_path / "bin" / "umoci").chmod(0o755)
    os.mkfifo(tmp_path / "stuck")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "STUCK": str(tmp_path / "stuck")}


async def test_a_cancelled_unpack_leaves_nothing(
    tmp_path: Path, cache: Path, stuck: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither files nor processes; and the next one starts afresh."""
    path = made.write(tmp_path / "image", "tar")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", stuck["PATH"])
        patch.setenv("STUCK", stuck["STUCK"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: unpack_image(path, cache=cache))
            pid = await trio.to_thread.run_sync(Path(stuck["STUCK"]).read_text)
            assert any(name.endswith(".partial") for name in names(cache))
            nursery.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
    assert names(cache) == []
    check_layers(Path((await unpack_image(path, cache=cache)).rootfs))


def test_who_comes_after_a_killed_program_waits_for_what_it_started(
    tmp_path: Path, cache: Path, stuck: dict[str, str]
) -> None:
    """The orphan still writes: its directory is taken away only when it has ended."""
    path = made.write(tmp_path / "image", "tar")
    argv = [sys.executable, "-c", UNPACK, path, cache]
    with subprocess.Popen(argv, env=stuck) as killed:
        orphan = int(Path(stuck["STUCK"]).read_text())
        killed.kill()
    (partial,) = cache.glob("*.partial")
    assert _image.try_lock(str(partial.with_suffix(".lock")), create=True) is None
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as second:
        os.kill(orphan, signal.SIGKILL)
        assert second.stdout is not None
        rootfs = Path(second.stdout.readline().strip())
    check_layers(rootfs)
    assert names(cache) == [rootfs.name]


async def test_what_killed_programs_left_of_other_images_is_removed(
    tmp_path: Path, cache: Path
) -> None:
    """The next one that unpacks anything cleans up, but not what is being worked on."""
    for name in ("dead.partial", "busy.partial"):
        (cache / name / "rootfs").mkdir(parents=True)
    busy = _image.try_lock(str(cache / "busy.lock"), create=True)
    assert busy is not None
    image = await unpack_image(made.write(tmp_path / "image", "tar"), cache=cache)
    os.close(busy)
    assert names(cache) == sorted([Path(image.rootfs).name, "busy.lock", "busy.partial"])


async def test_many_at_once_unpack_it_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others wait for the first, and all have the same."""
    path = made.write(tmp_path / "image", "tar")
    runs: list[str] = []
    real = _image._run

    async def run(argv: list[str], *rest: Any) -> None:
        runs.append(argv[0])
        await real(argv, *rest)

    monkeypatch.setattr(_image, "_run", run)
    images: list[Image] = []

    async def unpack() -> None:
        images.append(await unpack_image(path, cache=cache))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(unpack)
    assert runs.count("umoci") == 1
    assert images == [images[0]] * 5
    assert names(cache) == [Path(images[0].rootfs).name]
