"""`launch` with programs that behave and misbehave: what is run, what is understood, what is left.

The real shims are in tests/real/test_client_launch.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import trio
from google.protobuf.any_pb2 import Any as Packed

from trioshim.client import LaunchError, launch, open_event_sink
from trioshim.proto import task_v2_pb2 as api

from .launch_world import ID, FakeShim, launched, open_fake, refused, runs


@pytest.fixture
def fake() -> Iterator[FakeShim]:
    with open_fake() as fake:
        yield fake


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
