"""Where the executable's shell asks a spare for a shim, without a Python in between.

A shell can neither connect to a socket nor send a file, but it can open what /proc shows: so a
spare has two pipes, and says in a file where they are.  One shell at a time has them.

    spare    FILE: its pid, when it began, the pipes' numbers     a directory FILE.PID
    shell    makes FILE.PID/taken, which nobody else can then
    shell    its pid and a newline        the pipes are its 3 and 4, the standard input its 5
    spare    the address and a newline     or nothing: do it yourself
    shell    a newline                     or nothing: nobody waits for it any more

Promises:

* a spare that dies is an end of file at once: the pipes have no name that outlives it, so opening
  them never waits;
* a spare that turns to somebody else has shut its hatch before: a shell that comes late makes
  nothing, and never opens a file of what was a spare;
* only our own user gets as far as that, by the modes of the directory and of /proc.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress
from glob import escape, glob

from .._atomic import write_file
from ._likeness import begun
from ._request import RefusalError, move

__all__ = ["ITS_STDIN", "Hatch", "file_of", "sweep"]

# Not what a shim may have for itself while it is a spare; the numbers are the same in every spare.
_ASKED, _TELL = 60, 61
_PATIENCE = 0.2  # seconds from the moment in which a shell has taken it to its word
_ITS_END, ITS_STDIN = 3, 5  # the shell's; `read` takes 0 for itself


def file_of(directory: str, executable: str) -> str:
    """The file in which a spare says where it is: one for each place of the executable.

    The shell makes the same name, out of what it has been called.
    """
    return f"{directory}/{executable.replace('/', ':')}"


def sweep(file: str) -> None:
    """Remove what spares have left that were killed."""
    for place in glob(f"{escape(file)}.*"):
        if not os.path.exists(f"/proc/{place.rpartition('.')[2]}"):
            with suppress(OSError):
                os.unlink(f"{place}/taken")
            with suppress(OSError):
                os.rmdir(place)


class Hatch:
    """This process's; shut until `open`.

    Args:
        file: from `file_of`.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._place = f"{file}.{os.getpid()}"
        self._ask = -1
        self.is_open = False

    def fileno(self) -> int:
        """Readable when a shell has said its word."""
        return _ASKED

    def open(self) -> None:
        """Let the next shell find us.

        Raises:
            OSError: there is no room for it.
        """
        asked, ask = os.pipe()
        told, tell = os.pipe()
        self._ask = move(ask)  # else the end of file would be there before anyone has come
        for fd, number in ((asked, _ASKED), (tell, _TELL)):
            os.dup2(fd, number, inheritable=False)
        for fd in (asked, ask, told, tell):
            os.close(fd)
        self.is_open = True
        os.mkdir(self._place, 0o700)
        pid = os.getpid()
        write_file(self._file, f"{pid} {begun(pid)} {_ASKED} {_TELL}\n".encode())

    def shut(self) -> bool:
        """Let nobody in; False: somebody is in already."""
        try:
            os.rmdir(self._place)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def hear(self) -> int:
        """The pid of the shell that has come in; 0 if it says nothing, or nothing that is true."""
        if not select.select([_ASKED], [], [], _PATIENCE)[0]:
            return 0
        word = os.read(_ASKED, 32).strip()
        os.close(self._ask)  # from now on its end is an end of file
        self._ask = -1
        try:
            # A process of another pid namespace has another number here.
            found = os.stat(f"/proc/{int(word)}/fd/{_ITS_END}")
        except (OSError, ValueError):
            return 0
        return int(word) if os.path.samestat(found, os.fstat(_ASKED)) else 0

    def tell(self, answer: bytes) -> bool:
        """Answer; whether it has been heard.

        Raises:
            RefusalError: a shell could not repeat it.
            OSError: nobody listens.
        """
        # dash has bytes above 127 for itself.
        if not answer.isascii() or not answer.decode().isprintable():
            raise RefusalError("an answer that is not plain text")
        os.write(_TELL, answer + b"\n")
        return os.read(_ASKED, 1) == b"\n"

    def close(self) -> None:
        """Be gone; whoever waits has to do without us."""
        if not self.is_open:
            return
        self.is_open = False
        if self._ask >= 0:
            os.close(self._ask)
            self._ask = -1
        for number in (_ASKED, _TELL):
            os.close(number)
        if not self.shut():
            with suppress(OSError):
                os.unlink(f"{self._place}/taken")
            self.shut()
        with suppress(OSError), open(self._file, "rb") as file:
            if file.read().startswith(f"{os.getpid()} ".encode()):
                os.unlink(self._file)
