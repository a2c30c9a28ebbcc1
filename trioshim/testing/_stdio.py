"""FakeStdio: the streams of a process as a few facts that a test can look at."""

from __future__ import annotations

from types import TracebackType

import trio

from ..abc import Stdio, StdioSpec

__all__ = ["FakeStdio"]


class FakeStdio(Stdio):
    """`Stdio` without streams; an async context manager like the real one.

    Attributes:
        spec: what was asked for.
        attached, takes_input, drained, stdin_closed: what has been done.
        size: the terminal's, once it was set.
    """

    def __init__(self, spec: StdioSpec, opened: list[FakeStdio]) -> None:
        self.spec = spec
        self.attached = False
        self.drained = False
        self.takes_input = False
        self.stdin_closed = False
        self.size: tuple[int, int] | None = None
        self._opened = opened

    async def __aenter__(self) -> FakeStdio:
        await trio.lowlevel.checkpoint()
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
        return {}

    @property
    def console_socket(self) -> str:
        return "/fake/pty.sock" if self.spec.terminal else ""

    async def attach(self) -> None:
        await trio.lowlevel.checkpoint()
        self.attached = True

    def take_input(self) -> None:
        self.takes_input = True

    def resize(self, width: int, height: int) -> None:
        self.size = (width, height)

    def close_stdin(self) -> None:
        self.stdin_closed = True

    async def drain(self) -> None:
        await trio.lowlevel.checkpoint()
        self.drained = True
