"""Users as docker names them ("nobody", "1000:1000", "app:staff"), looked up in a rootfs.

The files belong to whoever made the image: no symlink of theirs is followed, since it would lead
to the host's files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

_LIMIT = 4 * 1024 * 1024
_MOST_ID = 2**32 - 2  # the last one means "leave it as it is" to the kernel
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class User:
    """Who a process is: numbers, as the kernel wants them."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()

    def to_json(self) -> dict[str, object]:
        """The `user` of an OCI process."""
        user: dict[str, object] = {"uid": self.uid, "gid": self.gid}
        return user | {"additionalGids": list(self.groups)} if self.groups else user


def resolve_user(user: str, rootfs: str) -> User:
    """Find the numbers for "", "uid", "uid:gid", "name", "name:group" or any mix.

    Without a group it is the one of passwd, with the user's other groups; a number that passwd
    does not have gets group 0, as docker does it.

    Args:
        user: what was asked for; "" is root.
        rootfs: where /etc/passwd and /etc/group are; "": only numbers can be had.

    Raises:
        ValueError: no such user or group in the rootfs, or its files cannot be used.
    """
    name, colon, group = user.partition(":")
    if user and (not name or (colon and not group)):
        raise ValueError(f"user {user!r} is half a user: write 'uid', 'uid:gid', or names")
    wanted = name or "0"
    entry = _passwd(rootfs, wanted)
    if entry is None and not wanted.isdecimal():
        raise ValueError(_nobody("user", wanted, rootfs, "passwd"))
    login, uid, gid = entry or ("", _number("uid", wanted), 0)
    if colon:
        return User(uid, _group(rootfs, group))
    others = {gid_ for _, gid_, members in _groups(rootfs) if login and login in members}
    return User(uid, gid, tuple(sorted(others - {gid})))


def _nobody(what: str, name: str, rootfs: str, file: str) -> str:
    where = f"/etc/{file} of {rootfs}" if rootfs else "no rootfs to look it up in"
    return f"there is no {what} {name!r} ({where}): write a number instead, such as '1000:1000'"


def _number(what: str, text: str) -> int:
    number = int(text)
    if number > _MOST_ID:
        raise ValueError(f"{what} {text} is too large: at most {_MOST_ID}")
    return number


def _passwd(rootfs: str, wanted: str) -> tuple[str, int, int] | None:
    """Name, uid and gid of the first entry with that name or number."""
    for fields in _entries(rootfs, "passwd", 4):
        if wanted in (fields[0], fields[2]) and fields[2].isdecimal() and fields[3].isdecimal():
            return fields[0], _number("uid", fields[2]), _number("gid", fields[3])
    return None


def _groups(rootfs: str) -> list[tuple[str, int, list[str]]]:
    entries = (fields for fields in _entries(rootfs, "group", 4) if fields[2].isdecimal())
    return [(fields[0], _number("gid", fields[2]), fields[3].split(",")) for fields in entries]


def _group(rootfs: str, wanted: str) -> int:
    for name, gid, _ in _groups(rootfs):
        if name == wanted:
            return gid
    if not wanted.isdecimal():
        raise ValueError(_nobody("group", wanted, rootfs, "group"))
    return _number("gid", wanted)


def _entries(rootfs: str, name: str, least: int) -> list[list[str]]:
    """The lines of /etc/passwd or /etc/group with enough fields."""
    text = _read(rootfs, name).decode("utf-8", "replace") if rootfs else ""
    lines = (line.split(":") for line in text.splitlines())
    return [fields for fields in lines if len(fields) >= least]


def _read(rootfs: str, name: str) -> bytes:
    """A file of the rootfs' /etc; b"" if there is none.

    Raises:
        ValueError: it cannot be read, or a symlink is on the way.
    """
    try:
        directory = os.open(os.path.join(rootfs, "etc"), _FLAGS | os.O_DIRECTORY)
        try:
            fd = os.open(name, _FLAGS, dir_fd=directory)
        finally:
            os.close(directory)
        with open(fd, "rb") as file:
            return file.read(_LIMIT)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ValueError(
            f"/etc/{name} of {rootfs} cannot be used ({error.strerror}): name the user by numbers"
        ) from None
