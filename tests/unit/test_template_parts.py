"""The template's own decisions: cgroups, code that has changed, traits of a process."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from pathlib import Path

import pytest

from trioshim.bootstrap import _sockets
from trioshim.proto.types_pb2 import Envelope
from trioshim.publisher import TtrpcPublisher
from trioshim.template import _code, _likeness, _rehearsal, _request, _warmth
from trioshim.template._cgroups import moves
from trioshim.template._start_rehearsal import rehearse_start

V1 = b"5:memory:/\n4:cpu,cpuacct:/a\n1:name=systemd:/a\n0::/a\n"
MOUNTS = (
    b"30 29 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    b"31 29 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    b"32 29 0:28 /box /sys/fs/cgroup/systemd rw shared:1 - cgroup cgroup rw,xattr,name=systemd\n"
    b"33 29 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)


def test_the_same_cgroups_need_nothing() -> None:
    """The usual case: not even the mounts are read."""
    assert moves(V1, V1, b"") == []


@pytest.mark.parametrize(
    ("line", "file"),
    [
        (b"5:memory:/x/y\n", "/sys/fs/cgroup/memory/x/y/cgroup.procs"),
        (b"4:cpu,cpuacct:/\n", "/sys/fs/cgroup/cpu,cpuacct/cgroup.procs"),
        (b"1:name=systemd:/box/z\n", "/sys/fs/cgroup/systemd/z/cgroup.procs"),
        (b"0::/x\n", "/sys/fs/cgroup/unified/x/cgroup.procs"),
    ],
)
def test_each_hierarchy_has_its_file(line: bytes, file: str) -> None:
    """One write for each hierarchy that differs; a mount may show a part of one."""
    key = line.split(b":")[0] + b":"
    theirs = b"".join(line if row.startswith(key) else row for row in V1.splitlines(True))
    assert moves(V1, theirs, MOUNTS) == [file]


@pytest.mark.parametrize(
    ("theirs", "mounts"),
    [
        (b"5:memory:/x\n", MOUNTS),
        (V1.replace(b"memory:/", b"memory:/x"), b""),
        (V1.replace(b"systemd:/a", b"systemd:/other"), MOUNTS),
        (V1.replace(b"memory:/", b"memory:/../x"), MOUNTS),
    ],
    ids=["other hierarchies", "no mount", "outside of the mount", "above the namespace"],
)
def test_a_cgroup_that_cannot_be_found_is_refused(theirs: bytes, mounts: bytes) -> None:
    """No guess: then the shim is spawned."""
    with pytest.raises(ValueError, match="cgroup"):
        moves(V1, theirs, mounts)


# ---------------------------------------------------------------- code


def test_code_that_is_written_anew_is_other_code(tmp_path: Path) -> None:
    """In place, by a rename, or gone."""
    file = tmp_path / "a.py"
    file.write_text("1")
    seen = {_code.fingerprint([str(file)])}
    file.write_text("22")
    seen.add(_code.fingerprint([str(file)]))
    (tmp_path / "b.py").write_text("33")
    (tmp_path / "b.py").rename(file)
    seen.add(_code.fingerprint([str(file)]))
    file.unlink()
    seen.add(_code.fingerprint([str(file)]))
    assert len(seen) == 4


def test_our_modules_and_those_of_others_are_looked_at() -> None:
    """Each file of ours that is loaded, and the directories that others are installed in."""
    files = _code.loaded_files()
    assert _code.__file__ in files
    assert str(Path(pytest.__file__).parents[1]) in files
    assert set(_code.own_files()) >= {file for file in files if "/trioshim/" in file}


# ---------------------------------------------------------------- traits


def test_a_child_has_its_parents_traits() -> None:
    """What is compared is inherited."""
    pid = os.fork()
    if pid == 0:
        os._exit(_likeness.traits_of(os.getpid()) != _likeness.traits_of(os.getppid()))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_priority_is_a_trait() -> None:
    """A difference is seen."""
    pid = os.fork()
    if pid == 0:
        os.nice(1)
        ours, theirs = _likeness.traits_of(os.getpid()), _likeness.traits_of(os.getppid())
        os._exit({name for name in ours if ours[name] != theirs[name]} != {"nice"})
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_nobody_has_the_traits_of_a_process_that_is_gone() -> None:
    """`start` was killed meanwhile."""
    with pytest.raises(FileNotFoundError):
        _likeness.traits_of(2**22 + 1)


def test_limits_and_mask_are_adopted() -> None:
    """A child that has other ones takes its parent's again."""
    pid = os.fork()
    if pid == 0:
        before = resource.getrlimit(resource.RLIMIT_NOFILE), os.umask(0o111)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[0][1]))
        _likeness.adopt(os.getppid())
        after = resource.getrlimit(resource.RLIMIT_NOFILE), os.umask(0)
        os._exit(before != after)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_what_was_ignored_before_the_template_is_ignored_again(ignored: signal.Signals) -> None:
    """The template has handlers of its own; Ctrl-C is not for what a shell runs behind itself."""
    pid = os.fork()
    if pid == 0:
        environ = [b"%b=%b" % pair for pair in os.environb.items()]
        traits = _likeness.traits_of(os.getpid()) | {"SigIgn": 1 << ignored - 1}
        _request.stand_in(os.getppid(), [b"true"], environ, traits)
        now = {number for number in _request._USUAL if signal.getsignal(number) == signal.SIG_IGN}
        os._exit(now != {ignored})
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# ---------------------------------------------------------------- warmth


def test_a_life_that_nobody_needs_leaves_nothing(tmp_path: Path) -> None:
    """No file, no file descriptor, no thread and no child; also beside what a killed one left."""
    path = tmp_path / "warm"
    path.mkdir()
    for name in ("shim", "daemon", "o", "config.json", "address"):
        (path / name).touch()
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # a life without an end
        _warmth.live_once(str(path))
        before = os.listdir("/proc/self/fd")
        _warmth.live_once(str(path))
        left = path.exists() or os.listdir("/proc/self/fd") != before
        threads = len(os.listdir("/proc/self/task")) != 1
        os._exit(left or threads or has_children())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def test_a_start_that_nobody_needs_goes_as_far_as_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the socket that listens, and back; nothing is loaded by the second one."""
    heard: list[str] = []

    def listen(path: str) -> socket.socket:
        heard.append(path)
        return listen_really(path)

    listen_really = _sockets.listen
    monkeypatch.setattr(_sockets, "listen", listen)
    monkeypatch.chdir(tmp_path)  # it goes elsewhere
    before = os.umask(0o022), os.getpriority(os.PRIO_PROCESS, 0)
    rehearse_start(str(tmp_path / "warm"))
    loaded = set(sys.modules)
    rehearse_start(str(tmp_path / ("long" * 20)))
    assert set(sys.modules) == loaded
    assert [path.rpartition("/")[0] for path in heard] == ["/proc/self/cwd"] * 2
    assert not list(tmp_path.iterdir())
    assert (os.umask(before[0]), os.getpriority(os.PRIO_PROCESS, 0)) == (0o022, before[1])


def test_a_rehearsal_is_a_whole_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All events of a container and its exec, in order; nothing is loaded by the second one."""
    told: list[str] = []

    async def publish(self: TtrpcPublisher, envelope: Envelope) -> None:
        told.append(envelope.topic.removeprefix("/tasks/"))
        await forward(self, envelope)

    forward = TtrpcPublisher.publish
    monkeypatch.setattr(TtrpcPublisher, "publish", publish)
    _rehearsal.rehearse(str(tmp_path / "warm"))
    assert told == [
        *("create", "start", "exec-added", "exec-started", "exit", "exit", "delete"),
    ]
    loaded = set(sys.modules)
    _rehearsal.rehearse(str(tmp_path / "warm"))
    assert set(sys.modules) == loaded
