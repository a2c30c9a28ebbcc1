"""`start`, `delete`, `-info` and `-v` as the daemon runs them: real processes, mounts, sockets."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from trioshim import _exit_record, bootstrap
from trioshim.bootstrap._sockets import SocketLock, is_listening
from trioshim.bootstrap._wire import block_field
from trioshim.proto.bootstrap_pb2 import BootstrapParams
from trioshim.proto.task_v2_pb2 import DeleteResponse
from trioshim.proto.types_pb2 import RuntimeInfo

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts and oom_score_adj"),
]

NS, ID = "tests", "c0ffee"
A = "/run/containerd/containerd.sock"
GUARD = 60  # seconds; only against a hanging test run

PROGRAM = """
import os, sys
sys.executable, sys.argv[1:] = sys.argv[1], sys.argv[2:]
from trioshim.__main__ import main
exec(os.environ.get("PRELUDE", ""))
sys.exit(main())
"""

# Tells every client what it was started as.
STUB = """#!{python} -IS
import json, os, socket, sys
def read(name):
    with open("/proc/self/" + name) as file:
        return file.read()
listener = socket.socket(fileno=3)
fds = {{fd: os.readlink("/proc/self/fd/" + fd) for fd in os.listdir("/proc/self/fd")[:-1]}}
while True:
    connection, _ = listener.accept()
    facts = dict(
        argv=sys.argv[1:], pid=os.getpid(), group=os.getpgid(0), cwd=os.getcwd(), fds=fds,
        environ=dict(os.environ), score=int(read("oom_score_adj")), cgroup=read("cgroup"),
        listening=listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN),
    )
    try:
        connection.sendall(json.dumps(facts).encode())
    except OSError:
        pass
    connection.close()
"""


@dataclass
class World:
    """Directories of one test, and what the daemon would do in them."""

    root: Path
    sockets: Path
    stub: Path
    bundles: list[Path] = field(default_factory=list)

    def bundle(self, name: str = ID) -> Path:
        path = self.root / name
        (path / "rootfs").mkdir(parents=True, exist_ok=True)
        self.bundles.append(path)
        return path

    def argv(self, *words: str, id_: str = ID, server: str = "") -> list[str]:
        flags = ["-namespace", NS, "-address", A, "-publish-binary", "/containerd", "-id", id_]
        return [sys.executable, "-c", PROGRAM, server or str(self.stub), *flags, *words]

    def environ(self, **more: str) -> dict[str, str]:
        return dict(os.environ) | {"TRIOSHIM_SOCKET_DIR": str(self.sockets)} | more

    def run(
        self,
        *words: str,
        bundle: Path,
        stdin: bytes = b"",
        id_: str = ID,
        server: str = "",
        **environ: str,
    ) -> subprocess.CompletedProcess[bytes]:
        """As the daemon does: its call returns when all holders of the output are gone."""
        return subprocess.run(
            self.argv(*words, id_=id_, server=server),
            cwd=bundle,
            env=self.environ(**environ),
            input=stdin,
            capture_output=True,
            timeout=GUARD,
            check=False,
        )

    def path(self, id_: str = ID) -> Path:
        address = bootstrap.socket_address(A, NS, id_, str(self.sockets))
        return Path(bootstrap.plain_path(address))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    # pytest's own directories have names that are too long for a unix socket.
    with tempfile.TemporaryDirectory(prefix="ts-") as short:
        stub = tmp_path / "stub"
        stub.write_text(STUB.format(python=sys.executable))
        stub.chmod(0o755)
        there = World(tmp_path, Path(short) / "s", stub)
        yield there
        for bundle in there.bundles:
            end_server(bundle)


def end_server(bundle: Path) -> None:
    pid_file = bundle / "shim.pid"
    if pid_file.exists():
        end(int(pid_file.read_text()))


def end(pid: int) -> None:
    """Kill one process of ours and see that it is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with os.fdopen(pidfd) as gone:
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return
        poll = select.poll()
        poll.register(gone.fileno(), select.POLLIN)
        assert poll.poll(GUARD * 1000)


def ask(path: Path) -> dict[str, Any]:
    """The stub's account of itself."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(GUARD)
        client.connect(str(path))
        data = b""
        while chunk := client.recv(65536):
            data += chunk
    facts = json.loads(data)
    assert isinstance(facts, dict)
    return facts


# ---------------------------------------------------------------- start


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


def test_the_server_is_placed_as_containerd_expects(world: World) -> None:
    """Listener on fd 3, null devices below, a group of its own."""
    world.run("start", bundle=world.bundle())
    facts = ask(world.path())
    assert facts["listening"] == 1
    assert facts["fds"].pop("3").startswith("socket:")
    assert facts["fds"] == dict.fromkeys("012", "/dev/null")
    assert facts["group"] == facts["pid"]


def test_the_server_ignores_no_signal(world: World) -> None:
    """What CPython ignores in the helper would reach every container (SIGPIPE, SIGXFSZ)."""
    bundle, shell = world.bundle(), world.root / "shell"
    shell.write_text(f'#!/bin/sh\ngrep SigIgn /proc/$$/status > signals\nexec {world.stub} "$@"\n')
    shell.chmod(0o755)
    world.run("start", bundle=bundle, server=str(shell))
    ask(world.path())
    ignored = int((bundle / "signals").read_text().split()[1], 16)
    assert ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1) == 0


def test_the_socket_is_private(world: World) -> None:
    """Nobody but root gets through."""
    world.run("start", bundle=world.bundle())
    assert world.path().stat().st_mode & 0o777 == 0o600
    assert world.sockets.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in world.sockets.iterdir()] == [world.path().name]


@pytest.mark.parametrize(("daemon", "server"), [(-500, -499), (0, 1), (999, 1000), (1000, 1000)])
def test_shims_die_before_the_daemon(world: World, daemon: int, server: int) -> None:
    """One more than the parent's score, at most 1000."""
    set_score = f"echo {daemon} > /proc/$$/oom_score_adj || exit 77"
    done = subprocess.run(
        ["sh", "-c", f'{set_score}; "$@"; exit $?', "sh", *world.argv("start")],
        cwd=world.bundle(),
        env=world.environ(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=GUARD,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip(f"needs the right to set oom_score_adj to {daemon}")
    assert done.returncode == 0, done.stderr
    assert ask(world.path())["score"] == server


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


def test_a_second_start_finds_the_first(world: World) -> None:
    """The daemon that lost its notes gets the shim that is there."""
    first, second = world.bundle("one"), world.bundle("two")
    answers = [world.run("start", bundle=bundle).stdout for bundle in (first, second)]
    assert answers[0] == answers[1] == (second / "address").read_bytes()
    assert not (second / "shim.pid").exists()


def test_concurrent_starts_make_one_server(world: World) -> None:
    """Whoever comes second waits until it is clear that there is a server."""
    bundles = [world.bundle(f"b{number}") for number in range(8)]
    helpers = [
        subprocess.Popen(
            world.argv("start"),
            cwd=bundle,
            env=world.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for bundle in bundles
    ]
    answers = {helper.communicate(timeout=GUARD)[0] for helper in helpers}
    assert answers == {f"unix://{world.path()}".encode()}
    assert len([bundle for bundle in bundles if (bundle / "shim.pid").exists()]) == 1
    assert list(world.sockets.glob("*.lock")) == []


def test_a_stale_socket_is_replaced(world: World) -> None:
    """A shim that was killed leaves its socket; it does not stop the next one."""
    world.sockets.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(world.path()))
        dead.listen()
    done = world.run("start", bundle=world.bundle())
    assert done.returncode == 0
    assert ask(world.path())["listening"] == 1


def test_a_full_backlog_is_not_stale(world: World) -> None:
    """A busy shim keeps its socket."""
    world.sockets.mkdir()
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
        busy.bind(str(world.path()))
        busy.listen(0)
        client.connect(str(world.path()))
        bundle = world.bundle()
        assert world.run("start", bundle=bundle).returncode == 0
        assert not (bundle / "shim.pid").exists()


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


def test_start_without_standard_files(world: World) -> None:
    """Nothing that is opened becomes fd 0 by chance."""
    command = ["sh", "-c", '"$@" <&-', "sh", *world.argv("start")]
    bundle = world.bundle()
    done = subprocess.run(
        command, cwd=bundle, env=world.environ(), capture_output=True, timeout=GUARD, check=True
    )
    assert done.stdout == f"unix://{world.path()}".encode()
    assert ask(world.path())["fds"]["0"] == "/dev/null"


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


def with_roots(*roots: Path) -> dict[str, str]:
    """Other cgroup hierarchies than the host's, which are not ours to touch."""
    names = [str(root) for root in roots]
    return {
        "PRELUDE": "import trioshim.bootstrap._shim_cgroup as module\n"
        f"module.cgroup_roots = lambda _: ({names}, False)"
    }


def shim_cgroup(path: str) -> bytes:
    options = block_field(3, path.encode())
    return block_field(1, b"containerd.runc.v1.Options") + block_field(2, options)


def test_the_server_joins_the_cgroup_of_the_options(world: World) -> None:
    """Its pid is in every hierarchy when the address is said."""
    roots = [world.root / "memory", world.root / "pids"]
    bundle = world.bundle()
    done = world.run("start", bundle=bundle, stdin=shim_cgroup("/a/b"), **with_roots(*roots))
    assert done.returncode == 0
    pid = (bundle / "shim.pid").read_text()
    assert [(root / "a/b/cgroup.procs").read_text() for root in roots] == [pid, pid]


@pytest.mark.parametrize("path", ["/a", "/a/../b"])
def test_a_cgroup_that_cannot_be_joined_is_fatal(world: World, path: str) -> None:
    """A limit that was asked for is not left out silently; nothing is left behind."""
    bundle = world.bundle()
    done = world.run("start", bundle=bundle, stdin=shim_cgroup(path), **with_roots())
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"cgroup" in done.stderr
    assert list(world.sockets.iterdir()) == []
    assert not (bundle / "shim.pid").exists()


def test_core_scheduling_is_done_or_refused(world: World) -> None:
    """SCHED_CORE is never ignored: a kernel that cannot do it stops the start."""
    done = world.run("start", bundle=world.bundle(), SCHED_CORE="1")
    if done.returncode == 0:
        assert ask(world.path())["listening"] == 1
    else:
        assert b"SCHED_CORE is set, but core scheduling is not possible" in done.stderr
        assert list(world.sockets.iterdir()) == []


REFUSE_CORES = """
import trioshim.bootstrap._start as module
def refuse():
    raise OSError("no cores here")
module._share_core = refuse
"""


@pytest.mark.parametrize(("wish", "status"), [("", 0), ("1", 1)])
def test_core_scheduling_is_only_done_on_request(world: World, wish: str, status: int) -> None:
    """Without SCHED_CORE it does not matter that the kernel would refuse."""
    done = world.run("start", bundle=world.bundle(), SCHED_CORE=wish, PRELUDE=REFUSE_CORES)
    assert done.returncode == status
    assert (b"no cores here" in done.stderr) is bool(status)


NOISE = """
import warnings
import trioshim.bootstrap._start, trioshim.bootstrap._delete
def noisy(do):
    def doing(*arguments):
        warnings.warn("noise")
        {more}
        do(*arguments)
    return doing
trioshim.bootstrap._start.start = noisy(trioshim.bootstrap._start.start)
trioshim.bootstrap._delete.delete = noisy(trioshim.bootstrap._delete.delete)
"""


def test_nobody_can_write_into_the_address(world: World) -> None:
    """Whatever a library or the interpreter says during `start`, the daemon does not see it."""
    noise = NOISE.format(more="os.write(2, b'noise')")
    done = world.run("start", bundle=world.bundle(), PRELUDE=noise)
    assert (done.returncode, done.stderr) == (0, b"")


def test_delete_does_not_pass_on_warnings(world: World) -> None:
    """The daemon would log each of them, after every container."""
    bundle = world.bundle()
    fake_runc(world, bundle)
    done = world.run(
        "delete", bundle=bundle, PRELUDE=NOISE.format(more=""), PYTHONWARNINGS="always"
    )
    assert (answer(done).exit_status, done.stderr) == (137, b"")


def test_the_lock_keeps_others_out(tmp_path: Path) -> None:
    """Inside, nobody else gets it; afterwards nothing is left of it."""
    path = tmp_path / "socket.lock"
    with (
        SocketLock(str(tmp_path / "socket")),
        path.open() as other,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not path.exists()


def test_a_lock_without_a_name_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waited while the holder removed the file goes for the new one."""
    path = tmp_path / "socket.lock"
    flock, removals = fcntl.flock, [path.unlink, lambda: None]

    def flock_after_the_holder_left(fd: int, operation: int) -> None:
        flock(fd, operation)
        removals.pop(0)()

    monkeypatch.setattr(fcntl, "flock", flock_after_the_holder_left)
    with SocketLock(str(tmp_path / "socket")):
        assert removals == []
        assert path.exists()
    assert not path.exists()


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


# ---------------------------------------------------------------- delete

FAKE_RUNC = """#!/bin/sh
echo "$@" >> {log}
{then}
"""


def fake_runc(world: World, bundle: Path, then: str = "exit 0") -> Path:
    """A runtime that notes how it was called."""
    program = world.root / "fake-runc"
    log = world.root / "calls"
    program.write_text(FAKE_RUNC.format(log=log, then=then))
    program.chmod(0o755)
    (bundle / "runtime").write_text(str(program))
    return log


def answer(done: subprocess.CompletedProcess[bytes]) -> DeleteResponse:
    assert done.returncode == 0, done.stderr
    return DeleteResponse.FromString(done.stdout)


def test_delete_tells_how_init_ended(world: World) -> None:
    """The recorded status and time, although the shim was killed (and no made-up 137)."""
    bundle = world.bundle()
    fake_runc(world, bundle)
    (bundle / "exit").write_bytes(_exit_record.encode(4711, 42, 1_700_000_000_000_000_007))
    done = world.run("delete", bundle=bundle)
    response = answer(done)
    assert (response.pid, response.exit_status, done.stderr) == (4711, 42, b"")
    assert (response.exited_at.seconds, response.exited_at.nanos) == (1_700_000_000, 7)


def test_delete_kills_what_has_not_ended(world: World) -> None:
    """Without a record the status is that of SIGKILL, and the pid is init's."""
    bundle = world.bundle()
    log = fake_runc(world, bundle)
    (bundle / "init.pid").write_text(str(os.getpid()))
    done = world.run("delete", bundle=bundle)
    response = answer(done)
    assert (response.pid, response.exit_status, done.stderr) == (os.getpid(), 137, b"")
    assert response.exited_at.seconds > 1_700_000_000
    prefix = f"--root /run/containerd/runc/{NS} --log {bundle}/log.json --log-format json"
    assert log.read_text() == f"{prefix} delete --force {ID}\n"


def test_delete_says_when_it_does_not_know(world: World) -> None:
    """Init has ended by itself while nobody looked: 137 comes with a warning."""
    bundle = world.bundle()
    fake_runc(world, bundle)
    with subprocess.Popen(["true"]) as gone:
        gone.wait(GUARD)
    (bundle / "init.pid").write_text(str(gone.pid))
    (bundle / "exit").write_bytes(b"garbage")
    done = world.run("delete", bundle=bundle)
    assert (answer(done).pid, answer(done).exit_status) == (gone.pid, 137)
    assert b"137 stands for its unknown exit status" in done.stderr


def test_delete_of_a_container_that_never_was(world: World) -> None:
    """An empty bundle is cleaned up too, with pid 0; and again."""
    bundle = world.bundle()
    fake_runc(world, bundle)
    for _ in range(2):
        done = world.run("-bundle", str(bundle), "delete", bundle=Path("/"))
        assert (answer(done).pid, answer(done).exit_status, done.stderr) == (0, 137, b"")


def test_delete_uses_the_noted_options(world: World) -> None:
    """The runtime's root and name are what Create was told."""
    bundle = world.bundle()
    log = fake_runc(world, bundle)
    noted = {"root": "/run/mine", "binary_name": (bundle / "runtime").read_text()}
    (bundle / "options.json").write_text(json.dumps(noted))
    (bundle / "runtime").unlink()
    assert answer(world.run("delete", bundle=bundle)).exit_status == 137
    assert log.read_text().startswith(f"--root /run/mine/{NS} ")


@pytest.mark.parametrize("text", ["{", '["root"]', '{"root": 3}', '"root"'])
def test_delete_survives_broken_options(world: World, text: str) -> None:
    """The default root is tried then."""
    bundle = world.bundle()
    log = fake_runc(world, bundle)
    (bundle / "options.json").write_text(text)
    assert answer(world.run("delete", bundle=bundle)).exit_status == 137
    assert log.read_text().startswith(f"--root /run/containerd/runc/{NS} ")


@pytest.mark.parametrize(
    ("then", "warning"),
    [
        ("echo no such thing >&2; exit 3", b"ended with status 3: no such thing"),
        ("sleep 1000", b"did not end within 3 seconds and was killed"),
        ("sleep 1000 & echo $! > sleeper; sleep 1000", b"did not end within 3 seconds"),
    ],
)
def test_a_failing_runtime_is_a_warning(world: World, then: str, warning: bytes) -> None:
    """The answer comes all the same, in time, and nothing is left running."""
    bundle = world.bundle()
    fake_runc(world, bundle, then)
    done = world.run("delete", bundle=bundle)
    assert answer(done).exit_status == 137
    assert warning in done.stderr
    if (bundle / "sleeper").exists():
        pid = int((bundle / "sleeper").read_text())
        status = Path(f"/proc/{pid}/status")
        assert not status.exists() or "State:\tZ" in status.read_text()


def test_a_missing_runtime_is_a_warning(world: World) -> None:
    """It was uninstalled: the rest is cleaned up."""
    bundle = world.bundle()
    (bundle / "runtime").write_text("/nowhere/runc")
    done = world.run("delete", bundle=bundle)
    assert answer(done).exit_status == 137
    assert b"/nowhere/runc" in done.stderr


def mount(target: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"trioshim-test", os.fsencode(target), b"tmpfs", 0, None) != 0:
        pytest.skip(f"needs the right to mount: {os.strerror(ctypes.get_errno())}")


def unmount_all(below: Path) -> None:
    """Take back what a failed test has left."""
    libc = ctypes.CDLL(None)
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        point = line.split(" ")[4]
        if point.startswith(str(below)):
            libc.umount2(os.fsencode(point.replace("\\040", " ")), 2)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_delete_unmounts_every_layer(world: World, busy: bool) -> None:
    """On and below rootfs, stacked ones, odd names, and such as are in use; nothing else."""
    bundle, other = world.bundle(), world.bundle(ID + "2")
    fake_runc(world, bundle)
    rootfs, inner = bundle / "rootfs", bundle / "rootfs" / "a b"
    try:
        mount(other / "rootfs")
        mount(rootfs)
        inner.mkdir()
        mount(inner)
        (inner / "file").touch()
        with open(inner / "file") if busy else nullcontext():
            mount(rootfs)
            done = world.run("delete", bundle=bundle)
        assert (answer(done).exit_status, done.stderr) == (137, b"")
        assert not os.path.ismount(rootfs)
        assert list(rootfs.iterdir()) == []
        assert os.path.ismount(other / "rootfs")
    finally:
        unmount_all(world.root)


def test_delete_removes_a_dead_socket(world: World) -> None:
    """The shim was killed: its socket goes, and no lock file stays."""
    bundle = world.bundle()
    fake_runc(world, bundle)
    world.run("start", bundle=bundle)
    end_server(bundle)
    assert world.path().exists()
    assert answer(world.run("delete", bundle=bundle)).exit_status == 137
    assert list(world.sockets.iterdir()) == []


def test_delete_leaves_a_living_socket(world: World) -> None:
    """A shim that is still sending its last events removes its socket itself."""
    bundle = world.bundle()
    fake_runc(world, bundle)
    world.run("start", bundle=bundle)
    assert answer(world.run("delete", bundle=bundle)).exit_status == 137
    assert is_listening(str(world.path()))


# ---------------------------------------------------------------- -info and -v


def test_info_describes_the_runtime(world: World) -> None:
    """Name, version, the options as they came, and what the runtime says of itself."""
    program = world.root / "crun"
    program.write_text("#!/bin/sh\necho '{\"x\": 1}'\n")
    program.chmod(0o755)
    value = block_field(6, os.fsencode(program))
    options = block_field(1, b"containerd.runc.v1.Options") + block_field(2, value)
    done = world.run("-info", bundle=world.bundle(), stdin=options)
    information = RuntimeInfo.FromString(done.stdout)
    assert information.name == "io.containerd.trio.v1"
    assert information.version.version
    assert information.options.SerializeToString() == options
    assert information.features.type_url.endswith("runtime-spec/1/features/Features")
    assert json.loads(information.features.value) == {"x": 1}


@pytest.mark.skipif(shutil.which("runc") is None, reason="needs runc")
def test_info_without_options_asks_runc(world: World) -> None:
    """The default runtime's features, as JSON."""
    done = world.run("-info", bundle=world.bundle())
    features = json.loads(RuntimeInfo.FromString(done.stdout).features.value)
    assert "ociVersionMin" in features


def test_info_without_runtime_fails(world: World) -> None:
    """containerd shows this text to its user."""
    done = world.run("-info", bundle=world.bundle(), PATH="/nowhere")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"runtime 'runc' is not in PATH" in done.stderr


def test_info_leaves_out_unknown_features(world: World) -> None:
    """An old runc does not know the command: that is no failure."""
    bundle = world.bundle()
    program = world.root / "runc"
    program.write_text("#!/bin/sh\necho '{}'; exit 1\n")
    program.chmod(0o755)
    done = world.run("-info", bundle=bundle, PATH=f"{world.root}:{os.environ['PATH']}")
    assert done.returncode == 0
    assert not RuntimeInfo.FromString(done.stdout).HasField("features")


def test_version(world: World) -> None:
    """For people: the name and the version."""
    done = world.run("-v", bundle=world.bundle())
    assert done.returncode == 0
    assert done.stdout.startswith(b"containerd-shim-trio-v1:\n  Version: ")
