"""The processes of the real kernel: the shared cases, and what only Linux can show."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from trioshim.linux import LinuxKernel, become_subreaper, keep_fds
from trioshim.linux._child import exit_status

from . import kernel_cases
from .kernel_cases import until


@dataclass(frozen=True)
class FileOrphan:
    """A shell that leaves a child behind and writes down its pid.

    The child ends at the end of a fifo that the shell has open: so never before the shell, which
    might collect it itself.
    """

    path: Path
    code: int

    @property
    def argv(self) -> Sequence[str]:
        fifo = f"{self.path}.fifo"
        os.mkfifo(fifo)
        script = 'exec 3<>"$1" 4<"$1"; (exec 3>&-; read x <&4; exit "$3") & echo $! >"$2"'
        return ["sh", "-c", script, "sh", fifo, str(self.path), str(self.code)]

    def pid(self) -> int:
        return int(self.path.read_text())


@dataclass
class RealPrograms:
    """The shell and its friends."""

    directory: Path
    others: set[int]
    orphans: int = 0

    def exits(self, code: int) -> Sequence[str]:
        return ["sh", "-c", f"exit {code}"]

    def killed_by(self, signum: int) -> Sequence[str]:
        return ["sh", "-c", f"kill -{int(signum)} $$"]

    def sleeps(self) -> Sequence[str]:
        return ["sleep", "1000"]

    def missing(self) -> Sequence[str]:
        return ["no-such-program-anywhere"]

    def orphan(self, code: int) -> FileOrphan:
        self.orphans += 1
        return FileOrphan(self.directory / f"{self.orphans}.pid", code)

    def wait_ended(self, *pids: int) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                wait_for_end(os.pidfd_open(pid))

    def exists(self, pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    def none_is_left(self) -> bool:
        """No child is there that was not there before."""
        return children() <= self.others


def wait_for_end(pidfd: int) -> None:
    """Block until a process has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll()
    os.close(pidfd)


def children() -> set[int]:
    """The pids of all children of this process, zombies included."""
    lists = Path("/proc/self/task").glob("*/children")
    return {int(pid) for path in lists for pid in path.read_text().split()}


@pytest.fixture
def programs(tmp_path: Path) -> RealPrograms:
    return RealPrograms(tmp_path, children())


@pytest.fixture
def subreaper() -> Iterator[None]:
    """Orphans come to us for the time of a test, and none stays behind."""
    before = children()
    become_subreaper()
    yield
    become_subreaper(False)
    for pid in children() - before:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.fixture
async def kernel(subreaper: None) -> AsyncIterator[LinuxKernel]:
    kernel = LinuxKernel()
    async with trio.open_nursery() as nursery:
        await nursery.start(kernel.reap_strangers)
        yield kernel
        nursery.cancel_scope.cancel()


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


async def output_of(
    kernel: LinuxKernel,
    argv: Sequence[str],
    fds: Mapping[int, int] | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """What a program writes to its fd 1."""
    read, write = os.pipe()
    async with trio.lowlevel.FdStream(read) as stream:
        try:
            child = kernel.spawn(argv, fds={**(fds or {}), 1: write}, env=env)
        finally:
            os.close(write)
        text = b"".join([chunk async for chunk in stream])
    assert (await child.wait()).status == 0
    return text.decode()


@pytest.mark.parametrize("case", kernel_cases.CASES, ids=lambda case: case.__name__)
async def test_linux_keeps_the_promises_of_the_port(case, kernel, programs) -> None:
    """Each case that the kernel in memory passes is true here."""
    with trio.fail_after(60):
        await case(kernel, programs)


async def test_nothing_is_left_of_owned_children_and_strangers(kernel, programs) -> None:
    """After exits, orphans, cancelled waits and failures: no zombie and no fd."""
    before = open_fds()
    for _ in range(5):
        await kernel_cases.check_wait_cancelled(kernel, programs)
        await kernel_cases.check_adopted_after_its_end(kernel, programs)
        await kernel_cases.check_a_closed_child_is_a_stranger(kernel, programs)
        await kernel_cases.check_adopt_of_nobody(kernel, programs)
        await kernel_cases.check_missing_program(kernel, programs)
    await until(programs.none_is_left)
    assert open_fds() == before


async def test_a_process_of_another_parent_is_not_adopted(kernel) -> None:
    """Ours itself, or the first process: they exist, but we could never collect them."""
    before = open_fds()
    for pid in (1, os.getpid()):
        with kernel.birth(), pytest.raises(ProcessLookupError, match="not a child of ours"):
            kernel.adopt(pid)
    assert open_fds() == before


async def test_the_whole_group_is_killed(kernel) -> None:
    """A hung runtime is ended with what it has started."""
    read, write = os.pipe()
    child = kernel.spawn(["sh", "-c", "sleep 1000 & echo $!; wait"], fds={1: write})
    os.close(write)
    async with trio.lowlevel.FdStream(read) as stream:
        grandchild = os.pidfd_open(int(await stream.receive_some()))
    kernel.kill_group(child)
    assert (await child.wait()).status == 128 + signal.SIGKILL
    with trio.fail_after(60):
        await trio.lowlevel.wait_readable(grandchild)
    os.close(grandchild)


async def test_the_group_of_a_collected_leader_is_left_alone(kernel) -> None:
    """Once the leader is collected, its number may be another group's."""
    read, write = os.pipe()
    child = kernel.spawn(["sh", "-c", "sleep 1000 & echo $!"], fds={1: write})
    os.close(write)
    async with trio.lowlevel.FdStream(read) as stream:
        with kernel.birth():
            assert (await child.wait()).status == 0
            member = kernel.adopt(int(await stream.receive_some()))
    kernel.kill_group(child)
    member.signal(signal.SIGTERM)
    assert (await member.wait()).status == 128 + signal.SIGTERM


async def test_closing_wakes_the_waiter(kernel, programs) -> None:
    """Letting go of a child ends a wait for it with an error instead of never."""
    child = kernel.spawn(programs.sleeps())
    child_fd = os.pidfd_open(child.pid)

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await child.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        child.close()
    with pytest.raises(ProcessLookupError):
        child.signal(signal.SIGTERM)
    signal.pidfd_send_signal(child_fd, signal.SIGKILL)
    await until(programs.none_is_left)
    os.close(child_fd)


@contextlib.contextmanager
def no_fd_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_without_a_free_fd_nothing_keeps_running(kernel, programs) -> None:
    """A child that no pidfd can be had for is killed and collected; the caller gets EMFILE."""
    with no_fd_left(), pytest.raises(OSError, match="Too many open files") as caught:
        kernel.spawn(programs.sleeps())
    assert caught.value.errno == errno.EMFILE
    await until(programs.none_is_left)


async def test_an_orphan_that_no_fd_is_left_for_is_killed(kernel) -> None:
    """A process of a container that nobody could wait for would run on, and nobody would know."""
    read, write = os.pipe()
    child = kernel.spawn(["sh", "-c", "sleep 1000 & echo $!"], fds={1: write})
    os.close(write)
    async with trio.lowlevel.FdStream(read) as stream:
        pid = int(await stream.receive_some())
    with kernel.birth():
        assert (await child.wait()).status == 0
        with no_fd_left(), pytest.raises(OSError, match="Too many open files") as caught:
            kernel.adopt(pid)
        assert caught.value.errno == errno.EMFILE
    await until(lambda: not os.path.exists(f"/proc/{pid}"))


async def test_a_child_starts_with_no_signal_ignored_or_blocked(kernel) -> None:
    """What CPython or our parent ignores must not reach the container."""
    ignored = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        status = await output_of(kernel, ["cat", "/proc/self/status"])
    finally:
        signal.signal(signal.SIGUSR1, ignored)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    masks = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Sig"))
    assert (int(masks["SigIgn"], 16), int(masks["SigBlk"], 16)) == (0, 0)


async def test_a_child_leads_its_own_group(kernel) -> None:
    """`kill_group` must not reach us."""
    fields = (await output_of(kernel, ["cat", "/proc/self/stat"])).split()
    pid, group = fields[0], fields[4]
    assert group == pid


async def test_a_child_has_the_fds_it_was_given_and_no_other(kernel) -> None:
    """0, 1 and 2 are there in any case; nothing of ours or of our parent's comes along."""
    inherited = os.dup(0)
    os.set_inheritable(inherited, True)
    keep_fds()
    theirs, stdlib_ours = socket.socketpair()
    with trio.socket.from_stdlib_socket(stdlib_ours) as ours:
        child = kernel.spawn(["cat"], fds={0: theirs.fileno(), 1: theirs.fileno()})
        theirs.close()
        await ours.send(b"x")
        assert await ours.recv(1) == b"x"  # its loader has closed its own files by now
        fds = {fd: os.readlink(f"/proc/{child.pid}/fd/{fd}") for fd in "012"}
        assert sorted(os.listdir(f"/proc/{child.pid}/fd")) == ["0", "1", "2"]
        assert fds["0"] == fds["1"]
        assert fds["2"] == os.devnull
    os.close(inherited)
    assert (await child.wait()).status == 0


@pytest.mark.parametrize("order", [(1, 0, 2), (1, 2, 0), (2, 0, 1), (0, 1, 2), (0, 0, 0)])
async def test_fds_change_places_in_any_order(kernel, tmp_path, order) -> None:
    """Our number of one may be the child's number of another, all around."""
    names = ["a", "b", "c"]
    for name in names:
        (tmp_path / name).write_text(name)
    with contextlib.ExitStack() as stack:
        ours = [stack.enter_context((tmp_path / name).open()).fileno() for name in names]
        fds = {ours[target]: ours[source] for target, source in enumerate(order)}
        before = open_fds()
        paths = [f"/proc/self/fd/{fd}" for fd in ours]
        text = await output_of(kernel, ["cat", *paths], fds)
        assert open_fds() == before
    assert text == "".join(names[source] for source in order)


async def test_standard_streams_change_places(kernel, tmp_path) -> None:
    """Our stderr as the child's third fd, our third as its stdin; absent ones do not overwrite."""
    (tmp_path / "in").write_text("content")
    with (tmp_path / "in").open() as file:
        number = file.fileno()
        argv = ["sh", "-c", f"cat; readlink /proc/self/fd/{number}"]
        text = await output_of(kernel, argv, {0: number, number: 2})
    assert text.strip() == "content" + os.readlink("/proc/self/fd/2")


async def test_a_child_gets_our_environment_without_the_service_socket(kernel, monkeypatch) -> None:
    """runc would report readiness to the daemon's service manager."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    monkeypatch.setenv("TRIOSHIM_TEST", "1")
    lines = (await output_of(kernel, ["env"])).splitlines()
    assert "TRIOSHIM_TEST=1" in lines
    assert not any(line.startswith("NOTIFY_SOCKET=") for line in lines)


async def test_a_given_environment_is_the_whole_one(kernel) -> None:
    """Nothing of ours is added."""
    assert await output_of(kernel, ["env"], env={"A": "b"}) == "A=b\n"


def test_a_core_dump_makes_no_difference() -> None:
    """The status is 128 and the signal, dumped or not."""
    for code in (os.CLD_KILLED, os.CLD_DUMPED):
        assert exit_status(os.waitid_result((1, 0, signal.SIGCHLD, signal.SIGSEGV, code))) == 139
