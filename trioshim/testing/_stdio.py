"""FakeStdio: the streams of a process as a few facts that a test can look at."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import trio

from ..abc import Stdio, StdioSpec
from ..errors import DeadlineExceededError, InvalidArgumentError

__all__ = ["FakeStdio"]

_CONSOLE_TIMEOUT = 10.0  # virtual seconds
_SCHEMES = ("", "fifo", "file", "binary", "binary-v2")


class FakeStdio(Stdio):
    """`Stdio` without streams; an async context manager like the real one.

    The fds that it shows are all -1: a program in memory has no use for them, and whoever takes
    one for real gets EBADF.

    Attributes:
        spec: what was asked for.
        attached, takes_input, drained, stdin_closed: what has been done.
        size: the terminal's, once it was set; None without a terminal.
        console_sent: the runtime has sent the terminal; without it `attach` gives up.
    """

    def __init__(
        self,
        spec: StdioSpec,
        opened: list[FakeStdio],
        fail: Callable[[str], None] = lambda _call: None,
    ) -> None:
        self.spec = spec
        self.attached = False
        self.drained = False
        self.takes_input = False
        self.stdin_closed = False
        self.ended = False
        self.size: tuple[int, int] | None = None
        self.console_sent = False
        self._opened = opened
        self._fail = fail

    async def __aenter__(self) -> FakeStdio:
        await trio.lowlevel.checkpoint()
        self._fail("open_stdio")
        scheme, colon, _ = self.spec.stdout.partition("://")
        if colon and scheme not in _SCHEMES:
            raise InvalidArgumentError(f"unknown STDIO scheme {scheme}")
        self._opened.append(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.remove(self)

    @property
    def fds(self) -> dict[int, int]:
        if self.attached or self.spec.terminal:
            return {}
        names = (self.spec.stdin, self.spec.stdout, self.spec.stderr)
        return {number: -1 for number, name in enumerate(names) if name}

    @property
    def console_socket(self) -> str:
        return "/fake/pty.sock" if self.spec.terminal else ""

    async def attach(self) -> None:
        await trio.lowlevel.checkpoint()
        self._fail("attach")
        if self.spec.terminal and not self.console_sent:
            await trio.sleep(_CONSOLE_TIMEOUT)
            raise DeadlineExceededError("the runtime sent no terminal")
        self.attached = True

    def take_input(self) -> None:
        self.takes_input = True

    def resize(self, width: int, height: int) -> None:
        if self.spec.terminal:
            self.size = (width, height)

    def close_stdin(self) -> None:
        self.stdin_closed = True

    def process_ended(self) -> None:
        self.ended = True

    async def drain(self) -> None:
        await trio.lowlevel.checkpoint()
        self.drained = True
