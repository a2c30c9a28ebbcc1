"""A shelter for helpers: opened, used and left, cancelled at each step."""

from __future__ import annotations

import signal

import pytest
import trio
import trio.testing

from trioshim.containers import _outputs, _run
from trioshim.rpc import open_grpc_client
from trioshim.testing import cancel_everywhere
from trioshim.ttrpc import open_client
from trioshim.ttrpc._shelter import open_shelter


async def test_a_cancellation_reaches_the_block_and_not_the_helper() -> None:
    """The helper answers while the block says good-bye inside of a shield."""
    asked, answered = trio.Event(), trio.Event()

    async def help_() -> None:
        await asked.wait()
        answered.set()

    with trio.CancelScope() as scope:
        async with open_shelter() as helpers:
            helpers.start_soon(help_)
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    asked.set()
                    await answered.wait()
    assert scope.cancelled_caught


def test_a_shelter_that_is_cancelled_while_it_opens_ends() -> None:
    """Its task is shielded from the first moment: who opens it has to stay until it can end it."""

    async def scenario() -> None:
        async with open_shelter() as helpers:
            helpers.start_soon(trio.sleep_forever)
            await trio.lowlevel.checkpoint()

    assert cancel_everywhere(scenario).steps > 3


def test_ctrl_c_ends_a_shelter_that_opens() -> None:
    """It strikes at the first wait; the shelter's task is shielded, and nobody else can end it."""

    @trio.lowlevel.enable_ki_protection
    async def main() -> None:
        signal.raise_signal(signal.SIGINT)
        async with open_shelter():
            await trio.sleep_forever()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # trio takes over no other
    try:
        with pytest.raises(KeyboardInterrupt):
            trio.run(main)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("open_", [open_client, open_grpc_client])
async def test_an_error_of_a_cancelled_block_comes_out(open_) -> None:
    """Closing the connection does not put a cancellation in its place."""
    ours, theirs = trio.testing.memory_stream_pair()
    with pytest.raises(KeyError, match="mine"), trio.CancelScope() as scope:
        async with open_(ours):
            scope.cancel()
            raise KeyError("mine")
    assert await theirs.receive_some() in (b"", bytearray()) or open_ is open_grpc_client


class CtrlC(trio.abc.ReceiveStream):
    """A stream in which a Ctrl-C strikes, and that then ends."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        signal.raise_signal(signal.SIGINT)
        return b""

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("helper", ["copy", "read"])
def test_ctrl_c_is_for_the_block_and_not_for_its_helper(helper: str) -> None:
    """It comes out as it is, in no group, and the helper has done its work."""
    done = trio.Event()

    async def main() -> None:
        async with open_shelter() as helpers:
            if helper == "copy":
                copy = _outputs.Copy(CtrlC(), 1, lambda: None)
                helpers.start_soon(copy.run)
                await copy.done.wait()
            else:
                helpers.start_soon(_run._read, CtrlC(), bytearray(), done)
                await done.wait()
            await trio.sleep_forever()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            trio.run(main)
    finally:
        signal.signal(signal.SIGINT, before)
