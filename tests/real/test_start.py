"""`start` answers an address behind which a server listens, or one line of error and nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from trioshim.proto.bootstrap_pb2 import BootstrapParams

from .verb_world import GUARD, ID, NOISE, NS, A, World, ask, needs_root, open_world

pytestmark = needs_root


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world; afterwards no server of it is left."""
    with open_world(tmp_path) as world:
        yield world


def test_start_answers_the_address_and_leaves_a_server(world: World) -> None:
    """The answer is the address and nothing else, although warnings are asked for."""
    bundle = world.bundle()
    done = world.run("start", bundle=bundle, PYTHONWARNINGS="always", PYTHONDEVMODE="1")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == f"unix://{world.path()}".encode()
    assert (bundle / "address").read_bytes() == done.stdout
    facts = ask(world.path())
    assert (bundle / "shim.pid").read_text() == str(facts["pid"])
    assert facts["argv"] == ["-I", "-m", "trioshim", "-namespace", NS, "-id", ID, "-address", A]
    assert facts["cwd"] == str(bundle)


def test_the_socket_is_private(world: World) -> None:
    """Nobody but root gets through."""
    world.run("start", bundle=world.bundle())
    assert world.path().stat().st_mode & 0o777 == 0o600
    assert world.sockets.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in world.sockets.iterdir()] == [world.path().name]


def test_options_and_environment_reach_the_server(world: World) -> None:
    """A 2.3 daemon's words: where the socket goes, how much to log, where events go."""
    other = world.sockets.with_name("other")
    params = BootstrapParams(
        instance_id=ID,
        namespace=NS,
        log_level=-4,  # type: ignore[arg-type]
        socket_dir=str(other),
        containerd_ttrpc_address="/t",
    )
    done = world.run(
        "start",
        bundle=world.bundle(),
        stdin=params.SerializeToString(),
        TRIOSHIM_SOCKET_DIR="",
        NOTIFY_SOCKET="/n",
    )
    path = other / world.path().name
    assert done.stdout == f"unix://{path}".encode()
    facts = ask(path)
    assert facts["argv"][-1] == "-debug"
    assert facts["environ"]["TTRPC_ADDRESS"] == "/t"
    assert "NOTIFY_SOCKET" not in facts["environ"]


def test_nobody_can_write_into_the_address(world: World) -> None:
    """Whatever a library or the interpreter says during `start`, the daemon does not see it."""
    noise = NOISE.format(more="os.write(2, b'noise')")
    done = world.run("start", bundle=world.bundle(), PRELUDE=noise)
    assert (done.returncode, done.stderr) == (0, b"")


def test_files_in_the_bundle_are_not_written_through_symlinks(world: World) -> None:
    """A link that was planted there is replaced, what it shows is left alone."""
    bundle = world.bundle()
    victim = world.root / "victim"
    victim.write_text("precious")
    for name in ("address", ".address", "shim.pid", ".shim.pid"):
        (bundle / name).symlink_to(victim)
    assert world.run("start", bundle=bundle).returncode == 0
    assert victim.read_text() == "precious"
    assert (bundle / "address").read_text() == f"unix://{world.path()}"


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("words", "id_", "complaint"),
    [
        (["start"], "../x", "shim id (-id) '../x' is not valid"),
        (["start"], "x" * 77, "has 77 characters, at most 76"),
        (["-namespace", "", "start"], ID, "shim namespace (-namespace) is empty"),
        (["-debug=x", "start"], ID, "-debug is true or false"),
        (["-namespace", "", "delete"], ID, "shim namespace (-namespace) is empty"),
        (["-bundle", "/nowhere", "delete"], ID, "no bundle at /nowhere"),
    ],
)
def test_bad_input_is_one_line_of_error(
    world: World, words: list[str], id_: str, complaint: str
) -> None:
    """What was wrong, with the name of the program in front, and no traceback."""
    done = world.run(*words, bundle=world.bundle(), id_=id_)
    assert (done.returncode, done.stdout) == (1, b"")
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("containerd-shim-trio-v1: ")
    assert complaint in lines[0]


def test_too_much_standard_input_is_refused(world: World) -> None:
    """10 MiB, and not one byte more."""
    limit = 10 << 20
    done = world.run("start", bundle=world.bundle(), stdin=b"\0" * (limit + 1))
    assert done.returncode == 1
    assert b"standard input is longer than 10485760 bytes" in done.stderr
    assert world.run("start", bundle=world.bundle(), stdin=b"\0" * limit).returncode == 0


def test_a_program_that_cannot_be_run_leaves_no_socket(world: World) -> None:
    """Before the server is there, everything is taken back."""
    done = world.run("start", bundle=world.bundle(), server="/nowhere/python")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"/nowhere/python" in done.stderr
    assert list(world.sockets.iterdir()) == []


def test_a_failure_after_the_spawn_kills_the_server(world: World) -> None:
    """An answer that nobody can read leaves neither a server nor a socket."""
    bundle = world.bundle()
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            world.argv("start"),
            cwd=bundle,
            env=world.environ(),
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=GUARD,
            check=False,
        )
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr
    assert list(world.sockets.iterdir()) == []
    pid = int((bundle / "shim.pid").read_text())
    assert not Path(f"/proc/{pid}").exists()
