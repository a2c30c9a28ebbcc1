"""Images that are broken, or mean harm: told by name, and nothing is left of them."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from trioshim.containers._image import unpack_image
from trioshim.errors import FailedPreconditionError, RuntimeFailedError

from . import image_files as made
from .image_files import LOWER, UPPER, entry, names, tar

pytestmark = made.needs_tools
cache = made.cache


def broken(change: Mapping[str, bytes | None]) -> dict[str, bytes]:
    """A good image with some files replaced, or taken out."""
    files: dict[str, Any] = made.layout(made.image(LOWER)) | dict(change)
    return {name: data for name, data in files.items() if data is not None}


SETTINGS = made.config([LOWER])


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "neither index.json .* nor manifest.json"),
        ({"index.json": b"{"}, "index.json is no JSON"),
        ({"index.json": b"[" * 100_000}, "index.json is no JSON"),
        ({"index.json": b"[]"}, "not as it should be"),
        ({"index.json": b"{}"}, "there is no manifests"),
        ({"index.json": b'{"manifests": []}'}, "0 images"),
        ({"index.json": b'{"manifests": [{"digest": "../../x", "size": 1}]}'}, "'../../x' is not"),
        ({"index.json": b" " * (5 << 20)}, "longer than"),
        ({"manifest.json": b"[]"}, "0 images"),
        ({"manifest.json": b'[{"Config": "../x"}]'}, r"there is no \.\./x"),
        (broken({made.blob(SETTINGS): None}), "there is no blobs/sha256"),
        (broken({made.blob(SETTINGS): b"{}"}), "damaged"),
        (broken({made.blob(LOWER): None}), "incomplete: there is no blobs/sha256"),
    ],
    ids=range(13),
)
async def test_what_is_wrong_with_an_image_is_told(
    tmp_path: Path, cache: Path, files: dict[str, bytes], why: str
) -> None:
    """By the archive's name and the part; nothing is left."""
    path = made.write_tar(tmp_path / "bad.tar", files or {"x": b""})
    with pytest.raises(ValueError, match=why) as caught:
        await unpack_image(path, cache=cache)
    assert str(path) in str(caught.value)
    assert names(cache) == []


async def test_an_unpacked_docker_archive_is_refused(tmp_path: Path, cache: Path) -> None:
    """skopeo reads tars only."""
    path = made.write_directory(tmp_path / "docker", made.docker_archive(LOWER))
    with pytest.raises(ValueError, match="give the tar itself"):
        await unpack_image(path, cache=cache)


async def test_layers_that_cannot_be_unpacked_are_told(tmp_path: Path, cache: Path) -> None:
    """A zstd layer: the error says how to convert it."""
    files = made.image(LOWER)
    name = json.loads(files["descriptor"])["digest"].replace(":", "/")
    manifest = json.loads(files[f"blobs/{name}"])
    manifest["layers"][0]["mediaType"] += "+zstd"
    text = made.to_json(manifest)
    one = {**files, made.blob(text): text}
    one["descriptor"] = made.to_json(made.descriptor(f"{made.OCI}.manifest.v1+json", text))
    with pytest.raises(ValueError, match=r"tar\+zstd cannot be unpacked.*gzip"):
        await unpack_image(made.write_tar(tmp_path / "a.tar", made.layout(one)), cache=cache)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no image"),
        (b"x" * 2000, "no image"),
        (b"\x1f\x8b\x08....", "compressed: decompress it first"),
        (made.write_tar, "no image|incomplete|damaged"),
    ],
    ids=["empty", "no tar", "gzip", "cut off"],
)
async def test_a_file_that_is_no_tar_is_refused(
    tmp_path: Path, cache: Path, data: Any, why: str
) -> None:
    """Also one that was not copied to its end."""
    path = tmp_path / "bad.tar"
    if callable(data):
        data = data(path, made.layout(made.image(LOWER))).read_bytes()[:1500]
    path.write_bytes(data)
    with pytest.raises(ValueError, match=why):
        await unpack_image(path, cache=cache)
    with pytest.raises(FileNotFoundError):
        await unpack_image(tmp_path / "absent", cache=cache)
    assert names(cache) == []


@pytest.mark.parametrize("kind", ["directory", "docker save"])
async def test_a_damaged_layer_is_not_used(tmp_path: Path, cache: Path, kind: str) -> None:
    """Its content has to have the digest that the image says; nothing is left."""
    if kind == "directory":
        path = made.write_directory(tmp_path / "a", broken({made.blob(LOWER): UPPER}))
    else:
        files = made.docker_archive(LOWER)
        path = made.write_tar(
            tmp_path / "a", files | {f"{made.digest(LOWER)[7:]}/layer.tar": UPPER}
        )
    with pytest.raises(RuntimeFailedError, match="cannot unpack ") as caught:
        await unpack_image(path, cache=cache)
    assert caught.value.status != 0
    assert caught.value.log
    assert names(cache) == []


def found(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("escaped-*"))


async def test_no_layer_gets_out_of_its_rootfs(tmp_path: Path, cache: Path) -> None:
    """Names with "..", absolute ones, and a symlink that a later member walks through."""
    outside = tmp_path / "outside"
    outside.mkdir()
    layer = tar(
        entry("../../../escaped-1", b"x"),
        entry(f"{outside}/escaped-2", b"x"),
        entry("link", type=tarfile.SYMTYPE, linkname=str(outside)),
        entry("link/escaped-3", b"x"),
        entry("up", type=tarfile.SYMTYPE, linkname="../../.."),
        entry("up/escaped-4", b"x"),
    )
    image = await unpack_image(
        made.write_tar(tmp_path / "evil.tar", made.layout(made.image(layer))), cache=cache
    )
    assert found(Path(image.rootfs)) == [f"escaped-{number}" for number in range(1, 5)]
    assert found(tmp_path) == found(Path(image.rootfs))


async def test_a_missing_program_is_told(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the package that has it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FailedPreconditionError, match="apt-get install umoci"):
        await unpack_image(made.write(tmp_path / "image", "tar"), cache=cache)
    assert names(cache) == []
