"""`launch` with programs that behave and misbehave: what is run, what is understood, what is left.

The real shims are in tests/real/test_client_launch.py.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from google.protobuf.any_pb2 import Any as Packed

from trioshim.client import LaunchedShim, LaunchError, launch, open_event_sink
from trioshim.client import _shim_life as shim_life
from trioshim.errors import FailedPreconditionError, InternalError
from trioshim.proto import task_v2_pb2 as api

from .fds import open_fds
from .launch_world import ID, PATIENCE, FakeShim, open_fake, runs


@pytest.fixture
def fake() -> Iterator[FakeShim]:
    """A fake shim; its bundle and our descriptors are as before at the end."""
    before = open_fds()
    with open_fake() as fake:
        yield fake
        assert not (fake.bundle / "log").exists()
    assert open_fds() == before


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Call it with the names of time limits: who lets them pass is not waited for."""

    def shorten(*names: str) -> None:
        for name in names:
            monkeypatch.setattr(shim_life, name, 0.3)

    return shorten


@asynccontextmanager
async def launched(fake: FakeShim, **options: Any) -> AsyncIterator[LaunchedShim]:
    with trio.fail_after(PATIENCE):
        async with launch(fake.program, fake.bundle, id=ID, **options) as shim:
            yield shim


async def refused(fake: FakeShim, **options: Any) -> LaunchError:
    """The error of a launch whose block is never entered."""
    with pytest.raises(LaunchError) as caught:
        async with launched(fake, **options):
            raise AssertionError
    return caught.value


# ---------------------------------------------------------------- what is run


async def test_start_is_run_as_containerd_runs_it(fake: FakeShim) -> None:
    """The flags in containerd's order, its variables, the bundle as directory."""
    more = {"namespace": "n", "debug": True, "env": {"MORE": "1"}}
    async with fake.serving(), open_event_sink() as sink, launched(fake, events=sink, **more):
        pass
    [(_, argv, environ, cwd, stdin)] = fake.calls()
    flags = ["-namespace", "n", "-address", sink.address, "-publish-binary", "containerd"]
    assert argv == [*flags, "-id", ID, "-debug", "start"]
    assert (cwd, stdin) == (str(fake.bundle), "")
    wanted = {
        "TTRPC_ADDRESS": sink.address,
        "GRPC_ADDRESS": sink.address,
        "GOMAXPROCS": "2",
        "NAMESPACE": "n",
        "MAX_SHIM_VERSION": "2",
        "MORE": "1",
        "PATH": os.environ["PATH"],
    }
    assert wanted.items() <= environ.items()


async def test_start_is_told_options(fake: FakeShim) -> None:
    """On its standard input, as the daemon does."""
    options = Packed(type_url="x", value=b"y")
    async with fake.serving(), launched(fake, options=options):
        pass
    assert fake.calls()[0][4].encode("latin-1") == options.SerializeToString()


async def test_delete_is_run_as_containerd_runs_it(fake: FakeShim) -> None:
    """For a container that is still there; its answer is kept."""
    fake.holds = True
    async with fake.serving(), launched(fake, namespace="n", debug=True) as shim:
        pass
    _, argv, environ, cwd, _ = fake.calls()[-1]
    address = environ["TTRPC_ADDRESS"]
    flags = ["-namespace", "n", "-address", address, "-publish-binary", "containerd"]
    assert argv == [*flags, "-id", ID, "-bundle", str(fake.bundle), "delete"]
    assert cwd == str(fake.bundle)
    assert shim.deleted is not None
    assert (shim.deleted.pid, shim.deleted.exit_status) == (7, 137)


async def test_without_a_sink_the_shim_gets_one(fake: FakeShim) -> None:
    """It has somebody to tell its events, and nobody else's."""
    async with fake.serving(), launched(fake) as shim:
        assert await trio.Path(shim.events.address).is_socket()
        assert fake.calls()[0][2]["TTRPC_ADDRESS"] == shim.events.address
    assert not await trio.Path(shim.events.address).exists()


# ---------------------------------------------------------------- what is understood


@pytest.mark.parametrize(
    ("answer", "protocol", "version", "served"),
    [
        ("unix://{s}", "ttrpc", 2, (2,)),
        ("unix://{s}\n", "ttrpc", 2, (2,)),
        ("{s}\n", "ttrpc", 2, (2,)),
        ('{{"version":2,"address":"unix://{s}","protocol":"TTRPC"}}\n', "ttrpc", 2, (2,)),
        ('{{"version":3,"address":"unix://{s}","protocol":"ttrpc"}}', "ttrpc", 3, (3,)),
        ('{{"version":3,"address":"unix://{s}","protocol":"ttrpc"}}', "ttrpc", 3, (2,)),
        ('{{"version":2,"address":"{s}","protocol":"grpc"}}', "grpc", 2, (3,)),
        ('{{"version":3,"address":"{s}","protocol":"grpc"}}', "grpc", 3, (3,)),
        ("\x08\x03\x12{n}{s}\x1a\x05ttrpc", "ttrpc", 3, (3,)),
    ],
)
async def test_every_dialect_is_understood(
    fake: FakeShim, answer: str, protocol: str, version: int, served: tuple[int, ...]
) -> None:
    """A bare address, JSON, protobuf; a shim that says 3 may know only version 2."""
    fake.starts(answer.format(s=fake.socket, n=chr(len(str(fake.socket)))))
    async with fake.serving(*served), launched(fake) as shim:
        assert (shim.protocol, shim.version, shim.pid) == (protocol, version, fake.left())
        assert shim.address.removeprefix("unix://") == str(fake.socket)
        assert runs(shim.pid)
        async with shim.client() as task:
            assert (await task.wait(api.WaitRequest(id=ID))).exit_status == 0
    assert not fake.lives()


async def test_a_bare_path_may_be_an_abstract_socket(fake: FakeShim) -> None:
    """So it was up to containerd 1.3, and so its daemons dial it to this day."""
    name = f"/containerd-shim/{fake.base.name}.sock"
    fake.starts(name)
    async with fake.serving(name=name), launched(fake) as shim:
        assert shim.address == name


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "no address"),
        ("hello, world", "no address of a unix socket: 'hello, world'"),
        ("/a/path\nand more", "no address of a unix socket"),
        ("vsock://2:1024", "no address of a unix socket"),
        ('{"version":2', "no JSON"),
        ('{"version":2,"protocol":"ttrpc"}', "no address"),
        ('{"version":4,"address":"/x","protocol":"ttrpc"}', "version 4"),
        ('{"version":true,"address":"/x","protocol":"ttrpc"}', "version True"),
        ('{"version":2,"address":"/x","protocol":"http"}', "protocol 'http'"),
        ('{"version":2,"address":7,"protocol":"grpc"}', "no address"),
        ("\xff\xfe\x00", "no address of a unix socket"),
    ],
)
async def test_nonsense_is_told(fake: FakeShim, answer: str, why: str) -> None:
    """The error quotes it, and names the command."""
    fake.does(start={"say": answer})
    error = await refused(fake)
    assert "start answered nonsense" in str(error)
    assert why in str(error)
    assert error.argv[-1] == "start"
    assert fake.verbs() == ["start"]  # containerd runs no `delete` after a failed `start` either


async def test_a_start_that_fails_says_why(fake: FakeShim) -> None:
    """Its status, and what it wrote on both streams."""
    fake.does(start={"say": "so ", "complain": "no such luck\n", "status": 7})
    error = await refused(fake)
    assert str(error) == f"{fake.program} start ended with status 7: so no such luck"
    assert (error.status, error.said) == (7, "so no such luck")


async def test_a_missing_program_is_named() -> None:
    """And where it was looked for."""
    with open_fake() as fake, pytest.raises(LaunchError, match="no program 'no-such-shim' in PATH"):
        async with launch("no-such-shim", fake.bundle, id=ID):
            raise AssertionError


async def test_a_program_that_is_none_is_told(fake: FakeShim) -> None:
    """The kernel refuses it."""
    fake.program.write_bytes(b"\x7fELF\0\0")
    error = await refused(fake)
    assert str(error).startswith(f"cannot run {fake.program} start: ")
    assert isinstance(error.__cause__, OSError)


@pytest.mark.parametrize(
    ("bundle", "options", "why"),
    [
        (ID, {"id": "../x"}, "id '../x'"),
        (ID, {"id": ID, "namespace": ""}, "namespace is empty"),
        ("c2", {"id": "c2"}, "is no directory"),
        (".", {"id": ID}, "must have the name of the container"),
    ],
)
async def test_bad_arguments_are_refused(
    fake: FakeShim, bundle: str, options: dict[str, str], why: str
) -> None:
    """Before anything is run."""
    with pytest.raises(ValueError, match=why):
        async with launch(fake.program, fake.base / bundle, **options):  # type: ignore[arg-type]
            raise AssertionError
    assert fake.calls() == []


async def test_an_address_where_nobody_listens_is_told(fake: FakeShim) -> None:
    """With what the shim wrote to its log; and its process goes, whatever it is."""
    fake.does(start={"say": f"unix://{fake.socket}", "log": "panic: oh dear"})
    error = await refused(fake)
    assert "nobody listens there" in str(error)
    assert error.said == "panic: oh dear"


async def test_a_file_that_is_no_socket_is_not_removed(fake: FakeShim) -> None:
    """`start` may answer any path, that of a precious file too."""
    precious = fake.base / "precious"
    precious.write_text("mine")
    fake.does(start={"say": f"unix://{precious}"})
    await refused(fake)
    assert precious.read_text() == "mine"


# ---------------------------------------------------------------- who is ended, and how


async def test_an_empty_shim_is_told_to_shut_down(fake: FakeShim) -> None:
    """It ends by itself; `delete` is not needed, and its dead socket goes."""
    async with fake.serving():
        async with launched(fake) as shim:
            pass
        assert fake.asked == ["Connect", "Connect", "State", "Shutdown"]
    assert fake.verbs() == ["start"]
    assert shim.deleted is None
    assert not runs(shim.pid)


async def test_a_container_is_deleted_before_its_shim_is_ended(fake: FakeShim) -> None:
    """The shim sees the exit first, so that it can tell of it."""
    fake.holds = True
    async with fake.serving(), launched(fake):
        pass
    assert fake.asked == ["Connect", "Connect", "State", "Wait", "Shutdown"]
    assert fake.verbs() == ["start", "delete"]
    assert not fake.lives()


@pytest.mark.parametrize("holds", [False, True])
async def test_a_shim_that_does_not_obey_gets_a_signal(
    fake: FakeShim, impatient: Callable[..., None], holds: bool
) -> None:
    """SIGTERM, on which it can say its last words; then `delete`, as after a crash."""
    fake.obeys, fake.holds = False, holds
    if not holds:
        impatient("_DRAIN")
    async with fake.serving(), launched(fake) as shim:
        pass
    assert not runs(shim.pid)
    assert fake.verbs() == ["start", "delete"]
    assert shim.deleted is not None
    assert not holds or (fake.bundle / "last-words").exists()


async def test_a_shim_that_does_not_end_is_killed(
    fake: FakeShim, impatient: Callable[..., None]
) -> None:
    """By SIGKILL, when SIGTERM has had its time."""
    impatient("_DRAIN")
    fake.starts(leave="stubborn")
    fake.obeys = False
    async with fake.serving(), launched(fake) as shim:
        pass
    assert not runs(shim.pid)
    assert fake.verbs() == ["start", "delete"]


async def test_a_shim_that_falls_silent_is_ended(
    fake: FakeShim, impatient: Callable[..., None]
) -> None:
    """State has no answer: what it holds is deleted without it, after its end."""
    impatient("_STATE")
    async with fake.serving(), launched(fake) as shim:
        fake.deaf = True
    assert "Shutdown" not in fake.asked
    assert not runs(shim.pid)
    assert fake.verbs() == ["start", "delete"]


async def test_a_shim_that_dies_in_the_block_is_noticed(fake: FakeShim) -> None:
    """`wait_ended` returns, and what it held is deleted at the end."""
    async with fake.serving(), launched(fake) as shim:
        os.kill(shim.pid, 9)
        await shim.wait_ended()
    assert fake.verbs() == ["start", "delete"]
    assert shim.deleted is not None


async def test_anothers_shim_is_left_running(fake: FakeShim) -> None:
    """It ran before: only the container goes, and nobody is asked to shut down."""
    fake.pid = os.getpid()
    fake.holds = True
    async with fake.serving(), launched(fake) as shim:
        assert shim.shared
    assert "Shutdown" not in fake.asked
    assert fake.verbs() == ["start", "delete"]
    assert fake.socket.exists()


async def test_a_delete_that_fails_is_told(fake: FakeShim) -> None:
    """It is tried again without the shim; then the caller learns what may be left."""
    fake.does(
        start={"say": f"unix://{fake.socket}", "leave": "willing"},
        delete={"complain": "cannot", "status": 1},
    )
    fake.holds = True
    async with fake.serving():
        with pytest.raises(LaunchError, match="delete ended with status 1: cannot"):
            async with launched(fake):
                pass
    assert fake.verbs() == ["start", "delete", "delete"]
    assert not fake.lives()


async def test_the_blocks_own_error_comes_out(
    fake: FakeShim, caplog: pytest.LogCaptureFixture
) -> None:
    """A failing `delete` does not hide it, but is not kept secret."""
    fake.does(start={"say": f"unix://{fake.socket}", "leave": "willing"}, delete={"say": "\xff"})
    fake.holds = True
    async with fake.serving():
        with pytest.raises(ZeroDivisionError):
            async with launched(fake):
                raise ZeroDivisionError
    assert "may have left something" in caplog.text
    assert not fake.lives()


@pytest.mark.parametrize(
    ("fails", "pid", "why"),
    [
        (FailedPreconditionError("not today"), 0, "not today"),
        (InternalError(), 0, "internal"),
        (None, 2**32 - 1, "pid is 4294967295"),
        (None, 4194303, "pid is 4194303"),
    ],
)
async def test_a_shim_that_cannot_be_met_is_told(
    fake: FakeShim, fails: Any, pid: int, why: str
) -> None:
    """Connect fails, or tells of a process that is not there."""
    fake.does(start={"say": f"unix://{fake.socket}"})
    fake.fails, fake.pid = fails, pid
    async with fake.serving():
        error = await refused(fake)
    assert why in str(error)


@pytest.mark.parametrize("kind", ["willing", "stubborn"])
async def test_a_server_that_never_answers_is_found_and_ended(
    fake: FakeShim, impatient: Callable[..., None], kind: str
) -> None:
    """By its socket: it has told nobody its pid."""
    impatient("_MEET")
    fake.starts(leave=kind, listen=str(fake.socket))
    error = await refused(fake)
    assert "no answer to Connect within" in str(error)
    assert fake.left()
    assert not fake.lives()
    assert not fake.socket.exists()


@pytest.mark.parametrize("more", [{"hang": True}, {"holds": True}])
async def test_a_start_that_hangs_is_ended_with_what_it_made(
    fake: FakeShim, more: dict[str, Any]
) -> None:
    """It hangs itself, or its server keeps its output open; the address is in the bundle."""
    fake.starts(listen=str(fake.socket), note=f"unix://{fake.socket}", **more)
    error = await refused(fake, timeout=1)
    assert "start did not end in 1 seconds" in str(error)
    assert fake.left()
    assert not fake.lives()
    assert not fake.socket.exists()


# ---------------------------------------------------------------- cancellation


async def appears(path: Path) -> None:
    while not await trio.Path(path).exists():  # noqa: ASYNC110 (another process makes it)
        await trio.sleep(0.01)


async def test_a_launch_that_is_cancelled_before_it_begins_ends(fake: FakeShim) -> None:
    """Nothing of it waits behind a shield; what has begun nevertheless is undone."""
    async with fake.serving():
        with trio.CancelScope() as scope:
            scope.cancel()
            async with launched(fake):
                raise AssertionError
    assert scope.cancelled_caught
    assert not fake.lives()


async def test_a_cancelled_start_is_waited_for_and_undone(fake: FakeShim) -> None:
    """Killed half-way it would leave a server that nobody knows."""
    with open_gate(fake.bundle / "gate") as gate, trio.CancelScope() as scope:
        fake.starts(listen=str(fake.socket), gate=str(fake.bundle / "gate"))

        async def cancel() -> None:
            await appears(fake.bundle / "calls")
            scope.cancel()
            os.write(gate, b"x")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel)
            async with launched(fake):
                raise AssertionError
    assert scope.cancelled_caught
    assert fake.verbs() == ["start"]
    assert fake.left()
    assert not fake.lives()
    assert not fake.socket.exists()


@contextmanager
def open_gate(path: Path) -> Iterator[int]:
    """A fifo, open at both ends, where the fake shim waits for a byte."""
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


async def cancel_when(scope: trio.CancelScope, path: Path) -> None:
    await appears(path)
    scope.cancel()


async def test_a_hanging_start_does_not_keep_a_cancelled_caller(
    fake: FakeShim, impatient: Callable[..., None]
) -> None:
    """It has a few seconds, not all of its time limit."""
    impatient("_GRACE")
    fake.starts(listen=str(fake.socket), note=f"unix://{fake.socket}", hang=True)
    with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when, scope, fake.bundle / "hangs")
            async with launched(fake, timeout=1000):
                raise AssertionError
    assert scope.cancelled_caught
    assert fake.left()
    assert not fake.lives()
    assert not fake.socket.exists()


async def test_a_cancelled_meeting_leaves_nothing(fake: FakeShim) -> None:
    """The shim runs, and has not said who it is."""
    fake.starts(listen=str(fake.socket))
    with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when, scope, fake.socket)
            async with launched(fake):
                raise AssertionError
    assert scope.cancelled_caught
    assert not fake.lives()
    assert not fake.socket.exists()


@pytest.mark.parametrize("holds", [False, True])
async def test_a_cancelled_block_ends_its_shim(fake: FakeShim, holds: bool) -> None:
    """As one that returns."""
    fake.holds = holds
    async with fake.serving():
        with trio.CancelScope() as scope:
            async with launched(fake):
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
    assert fake.verbs() == ["start", "delete"] if holds else ["start"]
    assert not fake.lives()
