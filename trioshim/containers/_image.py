"""Images on disk, unpacked: each once, below one directory, for all programs.

    CACHE/HEX            the root file system of the image with this digest, whole
    CACHE/HEX.lock       held by who unpacks it
    CACHE/HEX.partial    what is not whole yet

A rootfs gets its name by a rename, when it is whole and on disk: who finds the name need not ask
anybody.  The lock is inherited by the programs that unpack: if ours is killed, they end first,
then the next one removes what they left.  Layers are umoci's work (whiteouts, owners, extended
attributes, names that try to leave), docker's format is skopeo's; both are Debian packages.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256

import trio

from ..errors import FailedPreconditionError, RuntimeFailedError
from ._archive import open_files
from ._locks import try_lock
from ._manifest import Found, ImageConfig, find_image

IMAGE_CACHE = "/var/lib/trioshim/images"

_LOOK_AGAIN = 0.05  # seconds between two looks at a lock; flock itself cannot be cancelled
_LOG_TAIL = 1000


@dataclass(frozen=True, slots=True)
class Image:
    """An unpacked image.

    Attributes:
        rootfs: its root file system.  Shared by all: never to be changed, so the lower part of
            an overlay.
        digest: what names its content.
        config: how it wants to be run.
    """

    rootfs: str
    digest: str
    config: ImageConfig


async def unpack_image(
    source: str | os.PathLike[str],
    *,
    name: str = "",
    cache: str | os.PathLike[str] = IMAGE_CACHE,
) -> Image:
    """The image in an OCI layout or a docker archive, unpacked if that has not been done before.

    May be cancelled; nothing half done is left.

    Args:
        source: a directory (OCI layout), or an uncompressed tar: of a layout, or `docker save`'s.
        name: which image, if there are several.
        cache: where all unpacked images are; made if it is not there.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no image, not just one, or a broken one; and in what way.
        FailedPreconditionError: umoci or skopeo is not installed.
        RuntimeFailedError: they cannot unpack it, and what they said.
    """
    path = os.fspath(source)
    found = await trio.to_thread.run_sync(_look, path, name)
    target = _target(cache, found)
    # One that is there is whole.
    if not await trio.to_thread.run_sync(os.path.isdir, target):
        await trio.to_thread.run_sync(_make_home, target)
        async with _hold_lock(f"{target}.lock") as lock:
            if not await trio.to_thread.run_sync(_is_there, target):
                await _unpack(path, found, target, lock)
    return Image(target, found.digest, found.config)


def _look(path: str, name: str) -> Found:
    with open_files(path) as files:
        try:
            return find_image(files, name)
        except ValueError as error:
            raise ValueError(f"{path} is no image that can be used: {error}") from None


def _target(cache: str | os.PathLike[str], found: Found) -> str:
    return os.path.abspath(os.path.join(cache, found.digest.removeprefix("sha256:")))


def _make_home(target: str) -> None:
    # For nobody else: in there are other people's set-uid programs.
    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)


def _is_there(target: str) -> bool:
    """Look again, with the lock; and clean up behind others.  Blocks."""
    _sweep(os.path.dirname(target))
    return os.path.isdir(target)


@asynccontextmanager
async def _hold_lock(path: str) -> AsyncIterator[int]:
    while (lock := try_lock(path, create=True)) is None:  # noqa: ASYNC110 (others' programs)
        await trio.sleep(_LOOK_AGAIN)
    try:
        yield lock
    finally:
        # Who waits for this file finds that it has gone, and makes another.
        os.unlink(path)
        os.close(lock)


def _sweep(home: str) -> None:
    """Remove what killed programs have left of other images.  Blocks."""
    for name in os.listdir(home):
        path = os.path.join(home, name)
        base, dot, kind = path.rpartition(".")
        if dot and kind == "partial":
            lock = try_lock(f"{base}.lock", create=True)
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.unlink(f"{base}.lock")
                os.close(lock)


async def _unpack(path: str, found: Found, target: str, lock: int) -> None:
    partial = f"{target}.partial"
    await _remove(partial)  # left by a program that was killed
    try:
        os.mkdir(partial, 0o700)
        if found.blobs:
            await trio.to_thread.run_sync(_write_layout, path, found, partial)
        else:
            await trio.to_thread.run_sync(_link_archive, path, partial)
            archive = f"docker-archive:archive.tar:@{found.position}"
            policy = ["--insecure-policy", "--tmpdir", partial]
            argv = ["skopeo", *policy, "copy", "--quiet", archive, "oci:layout:image"]
            await _run(argv, path, partial, lock)
        await _run(
            ["umoci", "raw", "unpack", "--image", "layout:image", "rootfs"], path, partial, lock
        )
        # Or the name could survive a loss of power and the content not.
        await _run(["sync", "--file-system", "rootfs"], path, partial, lock)
        os.rename(os.path.join(partial, "rootfs"), target)
    finally:
        await _remove(partial)


async def _remove(path: str) -> None:
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(_remove_tree, path)


def _remove_tree(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path)


def _link_archive(path: str, partial: str) -> None:
    """Under a name without a ":", which would mean something to skopeo."""
    os.symlink(os.path.abspath(path), os.path.join(partial, "archive.tar"))


def _write_layout(path: str, found: Found, partial: str) -> None:
    """A layout of just this image, with the media types that umoci knows."""
    layout = os.path.join(partial, "layout")
    os.makedirs(os.path.join(layout, "blobs", "sha256"))
    with open_files(path) as files:
        for blob in dict.fromkeys(blob.path for blob in found.blobs):
            try:
                files.place(blob, os.path.join(layout, blob))
            except KeyError:
                raise ValueError(f"{path} is incomplete: there is no {blob}") from None
    config, *layers = found.blobs
    manifest = _json(
        {
            "schemaVersion": 2,
            "config": config.descriptor("config.v1+json"),
            "layers": [layer.descriptor(f"layer.v1.{layer.kind}") for layer in layers],
        }
    )
    digest = sha256(manifest).hexdigest()
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": f"sha256:{digest}",
        "size": len(manifest),
        "annotations": {"org.opencontainers.image.ref.name": "image"},
    }
    written = {
        f"blobs/sha256/{digest}": manifest,
        "index.json": _json({"schemaVersion": 2, "manifests": [entry]}),
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
    }
    for name, data in written.items():
        with open(os.path.join(layout, name), "wb") as file:
            file.write(data)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


async def _run(argv: Sequence[str], path: str, cwd: str, lock: int) -> None:
    """Run a program that ends with us: killed and collected if this is cancelled."""
    if shutil.which(argv[0]) is None:
        raise FailedPreconditionError(
            f"{argv[0]} unpacks images and is not installed: apt-get install {argv[0]}"
        )
    done = await trio.run_process(
        argv, cwd=cwd, capture_stdout=True, capture_stderr=True, check=False, pass_fds=(lock,)
    )
    if done.returncode:
        log = (done.stdout + done.stderr).decode(errors="replace").strip()[-_LOG_TAIL:]
        raise RuntimeFailedError(
            f"{argv[0]} cannot unpack {path}: {log}",
            argv=tuple(argv),
            status=done.returncode,
            log=log,
        )
