"""What a person does with `ctr`: the Go shim and ours give the same answers and events."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from .daemon import OBEDIENT, Daemon
from .images import IMAGE
from .poll import eventually
from .requirements import ours_only
from .terminal import Terminal, open_terminal

LIFE = ["create", "start", "exit", "delete"]


# ---------------------------------------------------------------- run


@pytest.mark.parametrize("status", [0, 7, 137])
def test_run_gives_output_and_exit_status(daemon: Daemon, runtime: str, status: int) -> None:
    """`ctr run --rm` prints both streams and ends with the container's status."""
    container = daemon.new_id("run")
    script = f"echo to-stdout; echo to-stderr >&2; exit {status}"

    done = daemon.ctr(
        *("run", "--rm", "--runtime", runtime, IMAGE, container, "sh", "-c", script),
        status=status,
    )

    assert (done.stdout, done.stderr) == ("to-stdout\n", "to-stderr\n")
    assert daemon.events.whole_story(container) == LIFE
    assert daemon.events.wait_for(container, "exit").status == status
    assert daemon.events.wait_for(container, "delete").status == status


def test_run_reads_stdin_to_its_end(daemon: Daemon, runtime: str) -> None:
    """What goes in comes out, and the end of stdin ends `cat`."""
    container = daemon.new_id("cat")
    text = "".join(f"line {number}\n" for number in range(20_000))
    # ctr closes the fifos when it hears of the exit, also if it has not read them to the end.
    command = ("sh", "-c", "cat; sleep 1")

    with subprocess.Popen(
        daemon.ctr_argv("run", "--rm", "--runtime", runtime, IMAGE, container, *command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        # ctr forgets to close stdin if it meets the end of its own before the task is made.
        daemon.events.wait_for(container, "start")
        output, _ = client.communicate(text, timeout=30)

    assert output == text
    assert client.returncode == 0
    assert daemon.events.whole_story(container) == LIFE


def test_run_on_a_plain_rootfs(daemon: Daemon, runtime: str, rootfs: Path) -> None:
    """With `--rootfs` there is no mount to make, and none to leave behind."""
    container = daemon.new_id("plain")

    done = daemon.ctr(
        *("run", "--rm", "--rootfs", "--runtime", runtime, str(rootfs), container),
        *("/bin/cat", "/etc/passwd"),
    )

    assert done.stdout == "root:x:0:0:root:/root:/bin/sh\n"
    assert daemon.events.whole_story(container) == LIFE


@pytest.mark.parametrize("snapshotter", ["overlayfs", "native"])
def test_run_on_a_snapshot(daemon: Daemon, runtime: str, snapshotter: str) -> None:
    """The shim mounts what the snapshotter hands out: an overlay, or a bind."""
    plugins = daemon.ctr("plugins", "ls").stdout.splitlines()
    if not any(line.split()[1:4:2] == [snapshotter, "ok"] for line in plugins):
        pytest.skip(f"containerd's {snapshotter} snapshotter does not work on this file system")
    container = daemon.new_id("snapshot")

    done = daemon.ctr(
        *("run", "--rm", "--snapshotter", snapshotter, "--runtime", runtime),
        *(IMAGE, container, "sh", "-c", "echo written > /new && cat /new"),
    )

    assert done.stdout == "written\n"
    assert daemon.events.whole_story(container) == LIFE


def test_a_program_that_is_not_there(daemon: Daemon, runtime: str) -> None:
    """Create fails with the name of the program, and nothing is left of the try."""
    container = daemon.new_id("absent")

    done = daemon.ctr("run", "--rm", "--runtime", runtime, IMAGE, container, "/no/such", status=1)

    assert "/no/such" in done.stderr
    assert "no such file" in done.stderr


# ---------------------------------------------------------------- terminals


def test_run_in_a_terminal_follows_its_size(daemon: Daemon, runtime: str) -> None:
    """`ctr run -t` gives a terminal of the caller's size, and every later size."""
    container = daemon.new_id("tty")
    argv = daemon.ctr_argv("run", "--rm", "-t", "--runtime", runtime, IMAGE, container, "sh")

    with open_terminal(argv, rows=33, columns=101) as terminal:
        ask_until(terminal, (33, 101))
        ask_until(terminal, (44, 77), resize=True)
        terminal.type("exit 7\n")
        assert terminal.wait() == 7

    assert daemon.events.whole_story(container) == LIFE
    assert daemon.events.wait_for(container, "exit").status == 7


def test_exec_in_a_terminal_follows_its_size(daemon: Daemon, runtime: str) -> None:
    """The same for `ctr task exec -t`, beside an init that has no terminal."""
    container = daemon.run_detached(runtime)
    argv = daemon.ctr_argv("task", "exec", "-t", "--exec-id", "shell", container, "sh")

    with open_terminal(argv, rows=20, columns=60) as terminal:
        ask_until(terminal, (20, 60))
        ask_until(terminal, (21, 61), resize=True)
        terminal.type("exit 9\n")
        assert terminal.wait() == 9

    assert daemon.events.wait_for(container, "exit:shell").status == 9
    daemon.remove(container)


def ask_until(terminal: Terminal, size: tuple[int, int], *, resize: bool = False) -> None:
    """The size arrives some time after the program runs: ask again while the answer is older.

    With `resize` tell it again each time: ctr may not listen for SIGWINCH yet.
    """

    def answer() -> bool:
        if resize:
            terminal.resize(*size)
        terminal.type("echo size=$(stty size)=\n")
        match = terminal.read_until(r"size=([^=$]*)=")  # busybox says nothing for 0 by 0
        return match[1] == "{} {}".format(*size)

    eventually(answer, f"a terminal of {size}")


# ---------------------------------------------------------------- a life in single steps


def test_detached_run_kill_and_remove(daemon: Daemon, runtime: str) -> None:
    """`run -d` returns at once; TERM ends an obedient init; its status is kept until `task rm`."""
    container = daemon.run_detached(runtime, *OBEDIENT)
    assert daemon.status(container) == "RUNNING"

    daemon.ctr("task", "kill", container)  # TERM is the default
    assert daemon.events.wait_for(container, "exit").status == 42
    eventually(lambda: daemon.status(container) == "STOPPED", "the task to be stopped")
    daemon.ctr("task", "rm", container)
    daemon.ctr("container", "rm", container)

    assert daemon.events.whole_story(container) == LIFE
    assert daemon.events.wait_for(container, "delete").status == 42


def test_kill_ends_an_init_that_ignores_term(daemon: Daemon, runtime: str) -> None:
    """KILL gives 137."""
    container = daemon.run_detached(runtime)

    daemon.ctr("task", "kill", "--signal", "KILL", container)

    assert daemon.events.wait_for(container, "exit").status == 137
    daemon.ctr("task", "rm", container)
    assert daemon.events.whole_story(container) == LIFE


def test_kill_all_reaches_every_process(daemon: Daemon, runtime: str) -> None:
    """`kill --all` ends init and its execs; init's exit is the last."""
    container = daemon.run_detached(runtime, *OBEDIENT)
    daemon.ctr("task", "exec", "--detach", "--exec-id", "other", container, "sleep", "1000")

    daemon.ctr("task", "kill", "--all", "--signal", "KILL", container)

    daemon.events.wait_for(container, "exit")
    daemon.events.wait_for(container, "exit:other")
    daemon.ctr("task", "rm", container)
    assert sorted(daemon.events.whole_story(container)) == sorted(
        [*LIFE, "exec-added:other", "exec-started:other", "exit:other"]
    )


def test_exec_gives_output_and_exit_status(daemon: Daemon, runtime: str) -> None:
    """`task exec` reads and prints its own streams and ends with its own status."""
    container = daemon.run_detached(runtime)
    script = "cat; echo to-stderr >&2; exit 3"

    done = daemon.ctr(
        *("task", "exec", "--exec-id", "one", container, "sh", "-c", script),
        stdin="from stdin\n",
        status=3,
    )

    assert (done.stdout, done.stderr) == ("from stdin\n", "to-stderr\n")
    daemon.remove(container)
    assert daemon.events.whole_story(container) == [
        *("create", "start", "exec-added:one", "exec-started:one", "exit:one", "exit", "delete")
    ]


def test_kill_reaches_one_exec(daemon: Daemon, runtime: str) -> None:
    """`kill --exec-id` ends the exec and nothing else."""
    container = daemon.run_detached(runtime)
    daemon.ctr("task", "exec", "--detach", "--exec-id", "one", container, "sleep", "1000")

    daemon.ctr("task", "kill", "--exec-id", "one", "--signal", "KILL", container)

    assert daemon.events.wait_for(container, "exit:one").status == 137
    assert daemon.status(container) == "RUNNING"
    daemon.remove(container)


def test_pause_and_resume(daemon: Daemon, runtime: str) -> None:
    """Both are seen in the status and as events, and a paused container still answers."""
    container = daemon.run_detached(runtime)

    daemon.ctr("task", "pause", container)
    assert daemon.status(container) == "PAUSED"
    daemon.ctr("task", "resume", container)
    assert daemon.status(container) == "RUNNING"

    daemon.remove(container)
    assert daemon.events.whole_story(container) == [
        *("create", "start", "paused", "resumed", "exit", "delete")
    ]


def test_ps_lists_init_and_execs(daemon: Daemon, runtime: str) -> None:
    """`task ps` shows the pids that the kernel knows, execs with their ids."""
    container = daemon.run_detached(runtime)
    daemon.ctr("task", "exec", "--detach", "--exec-id", "one", container, "sleep", "1000")

    rows = daemon.ctr("task", "ps", container).stdout.splitlines()[1:]

    pids = [int(row.split()[0]) for row in rows]
    assert daemon.init_pid(container) in pids
    assert len(pids) == 2
    assert sum("one" in row for row in rows) == 1
    daemon.remove(container)


def test_metrics(daemon: Daemon, runtime: str) -> None:
    """`task metrics` reads the container's cgroup: one process, some memory, the limit."""
    limit = 64 << 20
    container = daemon.run_detached(runtime, flags=("--memory-limit", str(limit)))

    text = daemon.ctr("task", "metrics", "--format", "json", container).stdout

    metrics = json.loads(text)
    assert metrics["pids"]["current"] == 1
    usage = metrics["memory"]["usage"]
    assert 0 < usage["usage"] <= usage["limit"] == limit
    assert metrics["cpu"]["usage"]["total"] > 0
    daemon.remove(container)


# ---------------------------------------------------------------- memory

HUNGRY = ("sh", "-c", "tail /dev/zero; exit 5")


def test_a_memory_limit_kills_and_says_so(daemon: Daemon, runtime: str) -> None:
    """More than the limit is killed by the kernel, and `/tasks/oom` tells why."""
    container = daemon.new_id("oom")
    flags = ("run", "--rm", "--memory-limit", str(16 << 20), "--runtime", runtime)

    daemon.ctr(*flags, IMAGE, container, "tail", "/dev/zero", status=137)

    daemon.events.wait_for(container, "oom")
    assert daemon.events.wait_for(container, "exit").status == 137


@ours_only  # the Go shim sends it past its queue, before or after the exit
@pytest.mark.parametrize("command", [("tail", "/dev/zero"), HUNGRY])
def test_oom_is_told_before_the_exit(
    daemon: Daemon, runtime: str, command: tuple[str, ...]
) -> None:
    """Whoever sees the exit has been told the reason, whether init was killed or its child."""
    container = daemon.new_id("oom")
    flags = ("run", "--rm", "--memory-limit", str(16 << 20), "--runtime", runtime)

    daemon.ctr(*flags, IMAGE, container, *command, status=None)

    assert daemon.events.whole_story(container) == ["create", "start", "oom", "exit", "delete"]


# ---------------------------------------------------------------- attach


def test_attach_sees_the_output_of_a_detached_container(daemon: Daemon, runtime: str) -> None:
    """A client may come later: the shim holds the fifos open meanwhile."""
    script = "for i in $(seq 100); do echo tick; sleep 0.1; done"
    container = daemon.run_detached(runtime, "sh", "-c", script)

    with subprocess.Popen(
        daemon.ctr_argv("task", "attach", container),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "tick\n"
        daemon.ctr("task", "kill", "--signal", "KILL", container)
        assert client.wait(20) == 137
