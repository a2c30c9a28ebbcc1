"""`Runc` on the real runc: what the port promises, on containers of one busybox each."""

from __future__ import annotations

import array
import json
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from trioshim.abc import CheckpointSpec, Child, ContainerSpec, ExecSpec, Options, StdioSpec
from trioshim.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    NotFoundError,
    RuntimeFailedError,
)
from trioshim.linux import LinuxKernel
from trioshim.proto import runc_options_pb2
from trioshim.runc import Runc

from . import runc_world
from .runc_world import Pipe, PlainStdio

BUSYBOX = "/bin/busybox"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="needs runc"),
    pytest.mark.skipif(not os.access(BUSYBOX, os.X_OK), reason=f"needs a static {BUSYBOX}"),
]


@dataclass
class Box:
    """One container, its runtime, and the processes that came of it."""

    spec: ContainerSpec
    runtime: Runc
    kernel: LinuxKernel
    children: list[Child] = field(default_factory=list)

    def write_config(
        self, *args: str, own_pid_namespace: bool = True, terminal: bool = False
    ) -> None:
        kinds = ["mount", "ipc", "uts"] + ["pid"] * own_pid_namespace
        config = {
            "ociVersion": "1.0.2",
            "process": {**process(*args), "terminal": terminal},
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts"},
            ],
            "linux": {
                "cgroupsPath": f"/{self.spec.id}",
                "namespaces": [{"type": kind} for kind in kinds],
            },
        }
        Path(self.spec.bundle, "config.json").write_text(json.dumps(config))

    @property
    def files(self) -> set[str]:
        return set(os.listdir(self.spec.bundle))

    def read(self, name: str) -> str:
        return Path(self.spec.bundle, name).read_text()

    async def create(self, stdio: PlainStdio | None = None) -> Child:
        await self.runtime.prepare(self.spec)
        init = await self.runtime.create(self.spec, stdio or PlainStdio())
        self.children.append(init)
        return init

    async def run(self, *args: str, stdio: PlainStdio | None = None) -> Child:
        """Create and start."""
        self.write_config(*args)
        init = await self.create(stdio)
        await self.runtime.start(self.spec)
        return init

    async def exec(self, *args: str, stdio: PlainStdio | None = None) -> Child:
        spec = ExecSpec("e1", json.dumps(process(*args)).encode())
        child = await self.runtime.exec(self.spec, spec, stdio or PlainStdio())
        self.children.append(child)
        return child

    async def clean_up(self) -> None:
        # At the same time: init cannot end while an exec in its pid namespace is not collected.
        with trio.fail_after(60, shield=True):
            async with trio.open_nursery() as nursery:
                for child in self.children:
                    nursery.start_soon(child.wait)
                await self.runtime.delete(self.spec, force=True)


def process(*args: str) -> dict[str, object]:
    return {
        "user": {"uid": 0, "gid": 0},
        "args": list(args),
        "env": ["PATH=/bin"],
        "cwd": "/",
        "capabilities": {"bounding": ["CAP_KILL"], "effective": [], "permitted": []},
    }


def traces(path: Path, id_: str) -> list[Path]:
    """What runc or the kernel still have of a container."""
    return [*path.glob(f"root/*/{id_}"), *Path("/sys/fs/cgroup").glob(f"**/{id_}")]


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    """A container to be; afterwards no process, fd, cgroup or state of it may be left."""
    rootfs = tmp_path / "bundle/rootfs"
    for name in ("bin", "proc", "dev"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, rootfs / "bin/busybox")
    for name in ("sh", "sleep", "cat", "echo", "true", "test"):
        (rootfs / "bin" / name).symlink_to("busybox")
    kernel = LinuxKernel()
    runtime = Runc(kernel, "test")
    id_ = f"trioshim-{os.getpid()}-{os.urandom(4).hex()}"
    value = runc_options_pb2.Options(root=str(tmp_path / "root")).SerializeToString()
    options = Options("containerd.runc.v1.Options", value)
    box = Box(ContainerSpec(id_, str(tmp_path / "bundle"), options=options), runtime, kernel)
    before = runc_world.open_fds()
    with runc_world.subreaper():
        yield box
        await box.clean_up()
    assert not kernel._owned
    assert runc_world.open_fds() == before
    assert traces(tmp_path, id_) == []


@pytest.fixture
def pipe(box: Box) -> Iterator[Pipe]:
    with runc_world.open_pipe() as pipe:
        yield pipe


async def test_a_container_from_create_to_delete(box: Box, pipe: Pipe) -> None:
    """Init is ours to wait for; its output and its exit code are its own."""
    init = await box.run("sh", "-c", "echo hello; exit 7", stdio=pipe.stdio)
    assert await pipe.read_all() == b"hello\n"
    assert (await init.wait()).status == 7
    await box.runtime.delete(box.spec)
    assert box.read("init.pid") == str(init.pid)
    assert box.files == {"config.json", "rootfs", "options.json", "runtime", "init.pid"}


async def test_init_waits_to_be_started(box: Box, pipe: Pipe) -> None:
    """Between create and start nothing of the program runs; delete ends it."""
    box.write_config("echo", "never")
    init = await box.create(pipe.stdio)
    await box.runtime.delete(box.spec)
    assert (await init.wait()).status == 128 + signal.SIGKILL
    assert await pipe.read_all() == b""


async def test_a_program_that_is_not_there_is_a_failure_of_create(box: Box) -> None:
    """The text is runc's own, behind the words that docker looks for."""
    box.write_config("no-such-program")
    with pytest.raises(RuntimeFailedError) as caught:
        await box.create()
    assert caught.value.message.startswith("OCI runtime create failed: ")
    assert "no-such-program" in caught.value.message
    assert "executable file not found in $PATH" in caught.value.message


async def test_an_id_that_is_taken_is_a_failure_of_create(box: Box) -> None:
    """The container that has it is not harmed."""
    init = await box.run("sleep", "1000")
    with pytest.raises(AlreadyExistsError, match=r"OCI runtime create failed: .*exists"):
        await box.runtime.create(box.spec, PlainStdio())
    await box.runtime.kill(box.spec, init, 0, all=False)


async def test_starting_twice_fails(box: Box) -> None:
    """runc's words, with containerd's in front."""
    await box.run("sleep", "1000")
    with pytest.raises(FailedPreconditionError, match="OCI runtime start failed: "):
        await box.runtime.start(box.spec)


async def test_exec_runs_one_more_process(box: Box, pipe: Pipe) -> None:
    """It is ours to wait for, and leaves no file behind."""
    await box.run("sleep", "1000")
    before = box.files
    child = await box.exec("sh", "-c", "echo from exec; exit 5", stdio=pipe.stdio)
    assert await pipe.read_all() == b"from exec\n"
    assert (await child.wait()).status == 5
    assert box.files == before


async def test_exec_of_a_program_that_is_not_there_fails(box: Box) -> None:
    """No process, and the text that docker looks for."""
    await box.run("sleep", "1000")
    with pytest.raises(RuntimeFailedError) as caught:
        await box.exec("no-such-program")
    assert caught.value.message.startswith("OCI runtime exec failed: ")
    assert "executable file not found in $PATH" in caught.value.message


async def test_a_paused_container_refuses_an_exec_until_resumed(box: Box) -> None:
    """Pause and resume do what they say."""
    await box.run("sleep", "1000")
    await box.runtime.pause(box.spec)
    with pytest.raises(RuntimeFailedError, match="paused"):
        await box.exec("true")
    await box.runtime.resume(box.spec)
    child = await box.exec("true")
    assert (await child.wait()).status == 0


async def test_pausing_what_does_not_run_fails(box: Box) -> None:
    """With containerd's words in front."""
    box.write_config("true")
    with pytest.raises(RuntimeFailedError, match=r"OCI runtime pause failed: .*does not exist"):
        await box.runtime.pause(box.spec)
    with pytest.raises(RuntimeFailedError, match=r"OCI runtime resume failed: .*does not exist"):
        await box.runtime.resume(box.spec)


async def test_kill_signals_init(box: Box, pipe: Pipe) -> None:
    """The signal that was asked for arrives."""
    program = "trap 'exit 42' TERM; echo ready; while :; do sleep 1000 & wait; done"
    init = await box.run("sh", "-c", program, stdio=pipe.stdio)
    await pipe.read()
    await box.runtime.kill(box.spec, init, signal.SIGTERM, all=False)
    assert (await init.wait()).status == 42


async def test_kill_all_reaches_every_process(box: Box) -> None:
    """With `all`, an exec is hit like init."""
    init = await box.run("sleep", "1000")
    child = await box.exec("sleep", "1000")
    await box.runtime.kill(box.spec, init, signal.SIGKILL, all=True)
    assert (await child.wait()).status == 128 + signal.SIGKILL
    assert (await init.wait()).status == 128 + signal.SIGKILL


async def test_signal_0_asks_whether_init_lives(box: Box) -> None:
    """It does nothing to a process that runs, and is not found for one that has ended."""
    init = await box.run("sleep", "1000")
    await box.runtime.kill(box.spec, init, 0, all=False)
    await box.runtime.kill(box.spec, init, signal.SIGKILL, all=False)
    await init.wait()
    with pytest.raises(NotFoundError):
        await box.runtime.kill(box.spec, init, 0, all=False)


async def test_killing_what_has_ended_is_not_found(box: Box) -> None:
    """The class and the text that containerd and CRI go on after."""
    init = await box.run("true")
    await init.wait()
    with pytest.raises(NotFoundError, match=r"^process already finished: not found$"):
        await box.runtime.kill(box.spec, init, signal.SIGKILL, all=False)
    await box.runtime.delete(box.spec)
    with pytest.raises(NotFoundError, match=r"^no such container: not found$"):
        await box.runtime.kill(box.spec, init, signal.SIGKILL, all=False)


async def test_a_running_container_is_deleted_only_by_force(box: Box) -> None:
    """Without force it is refused and unharmed; with force init is killed."""
    init = await box.run("sleep", "1000")
    with pytest.raises(RuntimeFailedError, match="failed to delete task: "):
        await box.runtime.delete(box.spec)
    await box.runtime.kill(box.spec, init, 0, all=False)
    await box.runtime.delete(box.spec, force=True)
    assert (await init.wait()).status == 128 + signal.SIGKILL


async def test_deleting_what_is_not_there_is_no_failure(box: Box) -> None:
    """With force or without."""
    box.write_config("true")
    await box.runtime.delete(box.spec)
    await box.runtime.delete(box.spec, force=True)


async def test_what_outlives_init_in_a_shared_pid_namespace_is_killed(box: Box, pipe: Pipe) -> None:
    """Without a pid namespace of its own, the container's processes survive its init."""
    box.write_config("sh", "-c", "sleep 1000 & exit 3", own_pid_namespace=False)
    init = await box.create(pipe.stdio)
    await box.runtime.start(box.spec)
    assert (await init.wait()).status == 3
    await box.runtime.kill_remaining(box.spec)
    with trio.fail_after(30):
        await pipe.read_all()


async def test_update_changes_a_limit(box: Box) -> None:
    """The cgroup shows the new value."""
    await box.run("sleep", "1000")
    await box.runtime.update(box.spec, b'{"pids": {"limit": 33}}')
    assert [limit.read_text() for limit in pids_limits(box)] == ["33\n"]


def pids_limits(box: Box) -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(f"**/{box.spec.id}/pids.max"))


async def test_a_bad_update_is_told(box: Box) -> None:
    """In runc's own words."""
    await box.run("sleep", "1000")
    with pytest.raises(RuntimeFailedError, match=r"runc did not terminate successfully: .*json"):
        await box.runtime.update(box.spec, b'{"pids": "many"}')


async def test_the_pty_comes_over_the_console_socket(box: Box) -> None:
    """With a terminal the streams are a pty, and runc's own output is ours to read."""
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{short}/pty.sock")
        listener.listen()
        stdio = PlainStdio(console_socket=f"{short}/pty.sock")
        box.write_config("sh", "-c", "test -t 0 && test -t 1 && exit 9", terminal=True)
        init = await box.create(stdio)
        connection, _ = listener.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
        (master,) = array.array("i", ancillary[0][2])
        await box.runtime.start(box.spec)
        assert (await init.wait()).status == 9
        os.close(master)


async def test_exec_takes_the_terminal_from_the_request(box: Box, pipe: Pipe) -> None:
    """A spec that says terminal is overruled; runc would refuse it without a console."""
    await box.run("sleep", "1000")
    text = json.dumps({**process("echo", "plain"), "terminal": True}).encode()
    child = await box.runtime.exec(box.spec, ExecSpec("e1", text, StdioSpec()), pipe.stdio)
    box.children.append(child)
    assert await pipe.read_all() == b"plain\n"


@pytest.mark.skipif(shutil.which("criu") is not None, reason="needs a host without criu")
async def test_a_checkpoint_without_criu_is_told(box: Box, tmp_path: Path) -> None:
    """It fails at once, and the container runs on."""
    init = await box.run("sleep", "1000")
    with pytest.raises(RuntimeFailedError, match=r"criu.* path= .*/criu-dump\.log$"):
        await box.runtime.checkpoint(box.spec, CheckpointSpec(str(tmp_path / "image")))
    await box.runtime.kill(box.spec, init, 0, all=False)
