"""A root file system and an OCI image made from the host's static busybox, without a network."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

IMAGE = "trioshim.test/busybox:1"
_DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "sys", "tmp")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_OCI = "application/vnd.oci.image"


def make_rootfs(root: Path) -> Path:
    """Fill `root` with a busybox and its applets.

    Raises:
        RuntimeError: there is no busybox, or it needs libraries.
    """
    source = shutil.which("busybox")
    if source is None:
        raise RuntimeError("no busybox: install busybox-static")
    for name in _DIRECTORIES:
        (root / name).mkdir(parents=True)
    binary = root / "bin" / "busybox"
    shutil.copy2(source, binary)
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n", "utf-8")
    done = subprocess.run(
        ["chroot", root, "/bin/busybox", "--list"], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(
            f"{source} is not static: install busybox-static ({done.stderr.strip()})"
        )
    for applet in done.stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    return root


def make_image(rootfs: Path, target: Path) -> Path:
    """Write an OCI image layout as a tar, for `ctr image import`.  Its name is `IMAGE`."""
    layer = _layer(rootfs)
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    blobs = [layer, _json(config)]
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": _descriptor(f"{_OCI}.config.v1+json", blobs[1]),
        "layers": [_descriptor(f"{_OCI}.layer.v1.tar", layer)],
    }
    blobs.append(_json(manifest))
    top = _descriptor(f"{_OCI}.manifest.v1+json", blobs[2])
    top["annotations"] = {"io.containerd.image.name": IMAGE}
    files = {f"blobs/sha256/{_digest(blob)[7:]}": blob for blob in blobs}
    files["index.json"] = _json({"schemaVersion": 2, "manifests": [top]})
    files["oci-layout"] = _json({"imageLayoutVersion": "1.0.0"})
    with tarfile.open(target, "w") as tar:
        for name, data in files.items():
            _add(tar, name, data)
    return target


def _layer(rootfs: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(rootfs, arcname=".")
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
