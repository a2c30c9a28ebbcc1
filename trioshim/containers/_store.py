"""Where bundles live: a directory for each container, which its program holds locked.

    STATE_DIR/NAMESPACE/ID          a bundle, whole, and locked from its first moment
    STATE_DIR/NAMESPACE/.new-...    one that is being made
    STATE_DIR/NAMESPACE/.gone-...   one that is being removed

What is not locked belongs to nobody: its program was killed.  The lock is on the directory
itself (flock), a bundle gets its name by one rename and loses it by another, and whoever has
locked one looks whether it still has that name.  So of many programs that clean up exactly one
gets each leftover, and none gets a bundle that is just being made.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from .._mountinfo import mounts_below
from ..bootstrap import check_identifier
from ..errors import AlreadyExistsError
from ._locks import is_at, try_lock

STATE_DIR = "/run/trioshim"

# In each bundle: who made it.  No file of runc's or ours can have this name, no id begins with ".".
_OWNER = ".owner"
_TRIES = 50
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_WORDS = (
    "amber azure brave brisk calm clear eager early fair fond gentle glad keen kind lively merry",
    "badger beaver crane dove falcon finch heron ibex lark lynx marten otter owl puffin robin wren",
)


@dataclass(eq=False, slots=True)
class Bundle:
    """The directory of one container, locked by this program.

    Attributes:
        id: of the container.
        namespace: containerd's word for a group of containers.
        path: the directory; `rootfs` in it is there and empty.
    """

    id: str
    namespace: str
    path: Path
    _lock: int

    async def remove(self) -> None:
        """Unmount what is left on and below it, remove it, and let go.  Not to be cancelled.

        Raises:
            OSError: something cannot be unmounted or removed; it is still locked, try again.
        """
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_remove, str(self.path), self._lock)
        self.release()

    def release(self) -> None:
        """Let go of it and leave it there: a leftover from now on.  Again: nothing happens."""
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1


@asynccontextmanager
async def open_bundle(
    id: str | None = None,  # noqa: A002 (containerd's word)
    *,
    namespace: str = "default",
    state_dir: str | os.PathLike[str] = STATE_DIR,
) -> AsyncIterator[Bundle]:
    """A new, private directory for a container; it is removed at the end of the block.

    Args:
        id: containerd's rule: at most 76 letters and digits, joined by single ".", "_" or "-".
            None: two words and a number that nobody else has.
        namespace: the same rule.
        state_dir: where all bundles are; made if it is not there.

    Raises:
        ValueError: the id or the namespace breaks the rule.
        AlreadyExistsError: there is a bundle of that id: in use, or a leftover.
        OSError: the directory cannot be made; or, at the end, not be removed.
    """
    bundle = make_bundle(id, namespace=namespace, state_dir=state_dir)
    try:
        yield bundle
    finally:
        try:
            if bundle._lock >= 0:  # noqa: SLF001 (ours)
                await bundle.remove()
        finally:
            bundle.release()


def make_bundle(
    id: str | None = None,  # noqa: A002
    *,
    namespace: str = "default",
    state_dir: str | os.PathLike[str] = STATE_DIR,
) -> Bundle:
    """The same without a block: `remove` or `release` is the caller's task."""
    if id is not None:
        check_identifier(id, "container id")
    home = _home(namespace, state_dir)
    os.makedirs(home, mode=0o711, exist_ok=True)
    _check_owner(home)
    for _ in range(_TRIES):
        name = id or _random_id()
        new, lock = _new(home)
        try:
            os.rename(new, os.path.join(home, name))
        except OSError as error:
            shutil.rmtree(new)
            os.close(lock)
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if id is not None:
                raise AlreadyExistsError(_in_use(home, id)) from None
        else:
            return Bundle(name, namespace, Path(home, name), lock)
    raise AlreadyExistsError(f"no free name for a container was found in {home}")


def find_leftovers(
    *,
    namespace: str = "default",
    state_dir: str | os.PathLike[str] = STATE_DIR,
) -> list[Bundle]:
    """Bundles whose program was killed; they are locked by the caller now, and by nobody else.

    End what still runs in each, then call `remove` (or `release`, to leave it to others).  What
    was left half made or half removed is not in the list: it is removed here.

    Raises:
        ValueError: the namespace is no identifier.
        OSError: the directory cannot be read.
    """
    home = _home(namespace, state_dir)
    try:
        names = sorted(os.listdir(home))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        path = os.path.join(home, name)
        lock = try_lock(path)
        if lock is not None and name.startswith("."):
            _remove_tree(path)
            os.close(lock)
        elif lock is not None:
            found.append(Bundle(name, namespace, Path(path), lock))
    return found


def _home(namespace: str, state_dir: str | os.PathLike[str]) -> str:
    check_identifier(namespace, "namespace")
    return os.path.join(os.path.abspath(state_dir), namespace)


def _check_owner(home: str) -> None:
    """Nobody else may be able to put something there for us to run as root."""
    found = os.stat(home, follow_symlinks=False)
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(
            errno.EPERM, "others could write here: it has to be ours, with mode 0711", home
        )


def _random_id() -> str:
    return "-".join([*(secrets.choice(words.split()) for words in _WORDS), secrets.token_hex(3)])


def _new(home: str) -> tuple[str, int]:
    """A directory that has all but its name; and its lock."""
    while True:
        path = os.path.join(home, f".new-{secrets.token_hex(8)}")
        os.mkdir(path, 0o700)
        # A program that cleans up may have come between: then it takes this one away.
        lock = try_lock(path)
        if lock is None:
            continue
        try:
            # Never empty, or another could be renamed over it.
            Path(path, _OWNER).write_text(f"{os.getpid()}\n", "ascii")
            os.mkdir(os.path.join(path, "rootfs"), 0o711)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)
            raise
        return path, lock


def _in_use(home: str, name: str) -> str:
    path = os.path.join(home, name)
    owner = ""
    with suppress(OSError):
        owner = Path(path, _OWNER).read_text("ascii").strip()
    lock = try_lock(path)
    if lock is None:
        return (
            f"container {name} is in use or being cleaned up; process {owner or '(unknown)'}"
            f" made it ({path})"
        )
    os.close(lock)
    return (
        f"container {name} was left over by process {owner or '(unknown)'}, which was killed"
        f" ({path}): clean it up, or choose another id"
    )


# ---------------------------------------------------------------- removing


def _remove(path: str, lock: int) -> None:
    """Blocks."""
    if lock < 0 or not is_at(lock, path):
        raise FileNotFoundError(errno.ENOENT, "this bundle is not ours any more", path)
    for point in mounts_below(_mountinfo(), os.path.realpath(path)):
        _unmount(point)
    parent, name = os.path.split(path)
    gone = os.path.join(parent, f".gone-{name}-{secrets.token_hex(4)}")
    os.rename(path, gone)
    try:
        _remove_tree(gone)
    except BaseException:
        with suppress(OSError):
            os.rename(gone, path)
        raise


def _remove_tree(path: str) -> None:
    """Blocks.  Never through a mount: what is seen there is the host's."""
    if left := mounts_below(_mountinfo(), os.path.realpath(path)):
        raise OSError(errno.EBUSY, "something is still mounted there", left[0])
    shutil.rmtree(path)


def _unmount(point: str) -> None:
    """A busy one is detached: who is still in it keeps it, but no path leads there any more."""
    number = _umount2(point, _UMOUNT_NOFOLLOW)
    if number == errno.EBUSY:
        number = _umount2(point, _UMOUNT_NOFOLLOW | _MNT_DETACH)
    if number:
        raise OSError(number, f"cannot be unmounted: {os.strerror(number)}", point)


def _umount2(point: str, flags: int) -> int:
    """umount2(2); returns errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.umount2(os.fsencode(point), flags) else 0


def _mountinfo() -> bytes:
    with open("/proc/self/mountinfo", "rb") as file:
        return file.read()
