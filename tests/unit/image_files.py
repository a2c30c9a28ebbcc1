"""Images made for tests: layers as plain tars, an OCI layout or a docker archive around them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ABSENT = [name for name in ("umoci", "skopeo") if shutil.which(name) is None]
needs_tools = pytest.mark.skipif(
    bool(ABSENT) or os.geteuid() != 0,
    reason=f"needs root, umoci and skopeo (scripts/setup installs them); absent: {ABSENT}",
)

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"
CONFIG = {
    "Env": ["PATH=/bin", "A=b=c"],
    "Entrypoint": ["/bin/run"],
    "Cmd": ["-x"],
    "WorkingDir": "/srv",
    "User": "app",
}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where images are unpacked; for a test module to import."""
    return tmp_path / "cache"


def names(cache: Path) -> list[str]:
    """What is in it; nothing before there is one."""
    return sorted(os.listdir(cache)) if cache.exists() else []


def entry(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """One member of a layer: a file, unless `type` says otherwise."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def directory(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.DIRTYPE, mode=mode)


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Bytes of a tar with these members, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def to_json(value: object) -> bytes:
    return json.dumps(value).encode()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def blob(data: bytes) -> str:
    return f"blobs/sha256/{digest(data)[7:]}"


def descriptor(kind: str, data: bytes, **more: object) -> dict[str, object]:
    return {"mediaType": kind, "digest": digest(data), "size": len(data), **more}


def config(layers: Sequence[bytes], said: Mapping[str, object] = CONFIG) -> bytes:
    return to_json(
        {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": said,
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        }
    )


def image(*layers: bytes, docker: bool = False, **more: object) -> dict[str, bytes]:
    """The blobs of an image, and its descriptor as "descriptor"."""
    kinds = (
        (
            f"{DOCKER}.distribution.manifest.v2+json",
            f"{DOCKER}.container.image.v1+json",
            f"{DOCKER}.image.rootfs.diff.tar",
        )
        if docker
        else (f"{OCI}.manifest.v1+json", f"{OCI}.config.v1+json", f"{OCI}.layer.v1.tar")
    )
    settings = config(layers)
    manifest = to_json(
        {
            "schemaVersion": 2,
            "mediaType": kinds[0],
            "config": descriptor(kinds[1], settings),
            "layers": [descriptor(kinds[2], layer) for layer in layers],
        }
    )
    files = {blob(data): data for data in (*layers, settings, manifest)}
    return files | {"descriptor": to_json(descriptor(kinds[0], manifest, **more))}


def layout(*images: dict[str, bytes]) -> dict[str, bytes]:
    """The files of an OCI layout with these images."""
    files = {"oci-layout": to_json({"imageLayoutVersion": "1.0.0"})}
    for one in images:
        files |= {name: data for name, data in one.items() if name != "descriptor"}
    manifests = [json.loads(one["descriptor"]) for one in images]
    return files | {"index.json": to_json({"schemaVersion": 2, "manifests": manifests})}


def docker_archive(*layers: bytes, tags: Sequence[str] = ("app:1",)) -> dict[str, bytes]:
    """The files of what `docker save` writes."""
    settings = config(layers)
    names = [f"{digest(layer)[7:]}/layer.tar" for layer in layers]
    files = dict(zip(names, layers, strict=True))
    name = f"{digest(settings)[7:]}.json"
    manifest = [{"Config": name, "RepoTags": list(tags), "Layers": names}]
    return files | {name: settings, "manifest.json": to_json(manifest)}


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    path.write_bytes(tar(*(entry(name, data) for name, data in files.items())))
    return path


def write_directory(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def annotated(name: str) -> dict[str, str]:
    return {"org.opencontainers.image.ref.name": name}


# An image of two layers, with all that a layer can do to the one below it.
LOWER = tar(
    directory("etc"),
    entry("etc/kept", b"1"),
    entry("etc/replaced", b"old"),
    entry("etc/deleted", b"x"),
    directory("opaque"),
    entry("opaque/below", b"x"),
    entry("su", b"#!", mode=0o4755),
    entry("owned", b"x", uid=1000, gid=1001),
    entry("hard", type=tarfile.LNKTYPE, linkname="etc/kept"),
    entry("soft", type=tarfile.SYMTYPE, linkname="etc/kept"),
)
UPPER = tar(
    directory("etc"),
    entry("etc/.wh.deleted"),
    entry("etc/replaced", b"new"),
    directory("opaque"),
    entry("opaque/.wh..wh..opq"),
    entry("opaque/above", b"x"),
)


def write(path: Path, kind: str) -> Path:
    """The image of two layers in one of the forms."""
    oci = layout(image(LOWER, UPPER))
    match kind:
        case "directory":
            return write_directory(path, oci)
        case "tar":
            return write_tar(path, oci)
        case "docker types":
            return write_tar(path, layout(image(LOWER, UPPER, docker=True)))
        case "docker and oci":
            return write_tar(path, oci | docker_archive(LOWER, UPPER))
        case _:
            return write_tar(path, docker_archive(LOWER, UPPER))
