"""Which image is meant, and what it says of itself: index.json, manifest.json, and the config.

Reads an OCI layout or docker's own archive (`docker save`).  Whatever is read by its digest is
checked against it; what is not as its standard says is a `ValueError` that names it.  Blocks.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._archive import Directory, Files

# Metadata is small; what is larger is no metadata.
_LIMIT = 4 * 1024 * 1024
_DEPTH = 4
_REF_NAME = "org.opencontainers.image.ref.name"
_NAMES = (_REF_NAME, "io.containerd.image.name")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_OCI = "application/vnd.oci.image"
_DOCKER = "application/vnd.docker"
_INDEXES = (f"{_OCI}.index.v1+json", f"{_DOCKER}.distribution.manifest.list.v2+json")
_LAYERS = {
    f"{_OCI}.layer.v1.tar": "tar",
    f"{_OCI}.layer.v1.tar+gzip": "tar+gzip",
    f"{_DOCKER}.image.rootfs.diff.tar": "tar",
    f"{_DOCKER}.image.rootfs.diff.tar.gzip": "tar+gzip",
}


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """How the image wants to be run.

    Attributes:
        env: its variables.
        entrypoint, cmd: the program, and the arguments that a caller's own replace.
        working_dir: to start in; "/" if it says nothing.
        user: "uid", "uid:gid" or names; "" is root.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = "/"
    user: str = ""

    def command(self, args: Sequence[str] = ()) -> list[str]:
        """The command line: the entrypoint, then `args`, or cmd where there are none."""
        return [*self.entrypoint, *(args or self.cmd)]


@dataclass(frozen=True, slots=True)
class Blob:
    """A file of the image by the digest of its content; `kind` is "tar" or "tar+gzip"."""

    digest: str
    size: int
    kind: str = ""

    @property
    def path(self) -> str:
        return "blobs/" + self.digest.replace(":", "/")

    def descriptor(self, media_type: str) -> dict[str, object]:
        """What names it in a manifest."""
        return {"mediaType": f"{_OCI}.{media_type}", "digest": self.digest, "size": self.size}


@dataclass(frozen=True, slots=True)
class Found:
    """One image of an archive.

    Attributes:
        digest: of its manifest; of its config in docker's format, which has no manifest.
        config: how it wants to be run.
        blobs: the config and then the layers; empty in docker's format.
        position: in docker's manifest.json.
    """

    digest: str
    config: ImageConfig
    blobs: tuple[Blob, ...] = ()
    position: int = 0


def find_image(files: Files, name: str = "") -> Found:
    """Find an image in an archive.

    Args:
        files: the archive's.
        name: which, where there are several; as `docker` or its layout calls it.

    Raises:
        ValueError: there is no image, not one of that name, or more than one; or it is broken.
    """
    for file, find in (("index.json", _find_oci), ("manifest.json", _find_docker)):
        try:
            text = _read(files, file)
        except KeyError:
            continue
        try:
            return find(files, _parse(text, file), name)
        except KeyError as error:
            raise ValueError(f"it is incomplete: there is no {error.args[0]}") from None
        except (TypeError, AttributeError) as error:
            raise ValueError(
                f"{file}, or what it names, is not as it should be ({error})"
            ) from None
    raise ValueError("it has neither index.json (an OCI layout) nor manifest.json (docker save)")


# ---------------------------------------------------------------- reading


def _read(files: Files, name: str) -> bytes:
    with files.open(name) as file:
        data = file.read(_LIMIT + 1)
    if len(data) > _LIMIT:
        raise ValueError(f"{name} is longer than {_LIMIT} bytes")
    return data


def _parse(text: bytes, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no JSON ({error})") from None


def _blob(descriptor: Mapping[str, Any], kind: str = "") -> Blob:
    digest, size = descriptor["digest"], descriptor["size"]
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise ValueError(f"digest {digest!r} is not of the kind sha256:...")
    return Blob(digest, int(size), kind)


def _read_blob(files: Files, blob: Blob) -> Any:
    text = _read(files, blob.path)
    if _digest(text) != blob.digest:
        raise ValueError(f"{blob.path} is damaged: its content has another digest")
    return _parse(text, blob.path)


def _digest(text: bytes) -> str:
    return f"sha256:{hashlib.sha256(text).hexdigest()}"


def _config(text: Mapping[str, Any]) -> ImageConfig:
    said = text.get("config") or {}
    env = dict(line.split("=", 1) for line in said.get("Env") or [] if "=" in line)
    return ImageConfig(
        env=env,
        entrypoint=_words(said, "Entrypoint"),
        cmd=_words(said, "Cmd"),
        working_dir=str(said.get("WorkingDir") or "/"),
        user=str(said.get("User") or ""),
    )


def _words(said: Mapping[str, Any], key: str) -> tuple[str, ...]:
    words = said.get(key) or []
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{key} of the image's config is {words!r}, not a list of words")
    return tuple(words)


# ---------------------------------------------------------------- OCI


def _find_oci(files: Files, index: Mapping[str, Any], name: str) -> Found:
    chosen = _choose(index["manifests"], name)
    for _ in range(_DEPTH):
        blob = _blob(chosen)
        manifest = _read_blob(files, blob)
        if "manifests" not in manifest and chosen.get("mediaType") not in _INDEXES:
            return _found(files, blob.digest, manifest)
        chosen = _choose(manifest["manifests"], "")
    raise ValueError(f"indexes that name indexes, more than {_DEPTH} deep")


def _found(files: Files, digest: str, manifest: Mapping[str, Any]) -> Found:
    config = _blob(manifest["config"])
    layers = []
    for layer in manifest["layers"]:
        kind = _LAYERS.get(layer["mediaType"])
        if kind is None:
            raise ValueError(
                f"a layer of type {layer['mediaType']} cannot be unpacked here:"
                " convert the image to gzip layers (skopeo copy --dest-compress-format gzip)"
            )
        layers.append(_blob(layer, kind))
    return Found(digest, _config(_read_blob(files, config)), (config, *layers))


def _choose(manifests: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """The one of that name, for this machine."""
    named = [entry for entry in manifests if _is_called(name, _names(entry))]
    fitting = {entry["digest"]: entry for entry in named if _fits(entry.get("platform"))}
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    raise ValueError(
        _ambiguous(name, sorted({n for entry in manifests for n in _names(entry)}), len(fitting))
    )


def _is_called(name: str, names: Sequence[str]) -> bool:
    """ "busybox:1" is enough for docker.io/library/busybox:1."""
    return not name or any(f"/{known}".endswith(f"/{name}") for known in names)


def _names(entry: Mapping[str, Any]) -> list[str]:
    annotations = entry.get("annotations") or {}
    return [annotations[key] for key in _NAMES if key in annotations]


def _fits(asked: Mapping[str, Any] | None) -> bool:
    """Whether it is for this machine; what says nothing is."""
    machine = platform.machine()
    here = _MACHINES.get(machine, machine)
    return not asked or (asked.get("os"), asked.get("architecture")) == ("linux", here)


def _ambiguous(name: str, names: Sequence[str], count: int) -> str:
    asked = f" named {name!r}" if name else ""
    known = f"; its names are {', '.join(names)}" if names else ""
    return f"there are {count} images{asked} for this machine in it, not one{known}"


# ---------------------------------------------------------------- docker save


def _find_docker(files: Files, entries: Sequence[Mapping[str, Any]], name: str) -> Found:
    if isinstance(files, Directory):
        raise ValueError("it is an unpacked docker archive: give the tar itself")
    tags = [entry.get("RepoTags") or [] for entry in entries]
    fitting = [position for position, known in enumerate(tags) if _is_called(name, known)]
    if len(fitting) != 1:
        raise ValueError(_ambiguous(name, [tag for known in tags for tag in known], len(fitting)))
    file = entries[fitting[0]]["Config"]
    text = _read(files, file)
    # It lists the digests of all layers, so it stands for the whole image.
    return Found(_digest(text), _config(_parse(text, file)), position=fitting[0])
