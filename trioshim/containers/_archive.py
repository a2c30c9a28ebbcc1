"""Files of an image, wherever they are: in a directory, or in a tar that is never unpacked.

Only regular files are seen, by the names that the image's own rules give them: what else a tar
holds (links, "..", devices) leads nowhere.  Blocks; to be used in a worker thread.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Protocol


class Files(Protocol):
    """Read-only files by relative names."""

    def open(self, name: str) -> IO[bytes]:
        """Open one.

        Raises:
            KeyError: there is none of that name.
            OSError: it cannot be read.
        """
        ...

    def place(self, name: str, target: str) -> None:
        """Have it at `target` too, for other programs: a symlink or a copy.

        Raises:
            KeyError, OSError: as above.
        """
        ...


class Directory:
    """An unpacked OCI layout."""

    def __init__(self, path: str) -> None:
        self._path = os.path.realpath(path)

    def open(self, name: str) -> IO[bytes]:
        return open(self._find(name), "rb")

    def place(self, name: str, target: str) -> None:
        os.symlink(self._find(name), target)

    def _find(self, name: str) -> str:
        path = os.path.join(self._path, name)
        if not os.path.isfile(path):  # a fifo would keep us for ever
            raise KeyError(name)
        return path


class Tar:
    """An uncompressed tar, open."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        files = (member for member in tar if member.isfile())
        self._members = {member.name.removeprefix("./"): member for member in files}

    def open(self, name: str) -> IO[bytes]:
        file = self._tar.extractfile(self._members[name])
        assert file is not None  # regular files only
        return file

    def place(self, name: str, target: str) -> None:
        with self.open(name) as source, open(target, "wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)


@contextmanager
def open_files(path: str) -> Iterator[Files]:
    """Look into a directory or a tar.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: it is neither, or a compressed tar.
    """
    if os.path.isdir(path):
        yield Directory(path)
        return
    with open(path, "rb") as file:
        # Compressed, the list alone would cost the decompression of all of it.
        if file.read(3) in (b"\x1f\x8b\x08", b"BZh", b"\xfd7z", b"\x28\xb5\x2f"):
            raise ValueError(f"{path} is compressed: decompress it first, with gunzip or the like")
    try:
        with tarfile.open(path, "r:") as tar:
            yield Tar(tar)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(
            f"{path} is no image: neither a directory nor a whole tar ({error})"
        ) from None
