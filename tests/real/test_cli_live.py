"""`ps`, `exec`, `kill`, `stats`, `dump` and `events` with containers of ours and of containerd."""

from __future__ import annotations

import json
import re
import select
import signal
from collections.abc import Iterator
from itertools import count

import pytest

from .cli_world import Cli, end, open_cli
from .daemon import OBEDIENT, Daemon
from .poll import eventually
from .requirements import TRIO


@pytest.fixture
def cli(machine: None) -> Iterator[Cli]:
    with open_cli() as cli:
        yield cli


@pytest.fixture
def box(cli: Cli) -> str:
    """A container in the background; its init ends at TERM with 42."""
    id_ = cli("run", "-d", "-m", "64m", "--pids", "32", *OBEDIENT).stdout.strip()
    eventually(lambda: cli("logs", id_).stdout == "ready\n", "the container to be ready")
    return id_


@pytest.fixture
def containerd_cli(daemon: Daemon) -> Cli:
    """A person who looks at the containers of a private containerd."""
    return ContainerdCli(daemon)


class ContainerdCli(Cli):
    def __init__(self, daemon: Daemon) -> None:
        self.namespace = daemon.namespace
        self.base = daemon.base / "state/io.containerd.runtime.v2.task"
        self.env = daemon._environment
        self._children = []


# ---------------------------------------------------------------- our own


def test_a_container_is_listed(cli: Cli, box: str) -> None:
    """For people and for programs."""
    [row] = cli.rows("ps")
    assert (row["id"], row["namespace"], row["status"]) == (box, cli.namespace, "running")
    assert (row["shim"], row["command"]) == ("trioshim", list(OBEDIENT))
    assert row["shim_pid"] == int((cli.bundle(box) / "shim.pid").read_text())
    head, line = cli("ps").stdout.splitlines()
    assert head.startswith("ID ")
    assert line.startswith(box)


def test_one_more_program(cli: Cli, box: str) -> None:
    """Its streams and its exit status are ours, its environment is the container's."""
    script = "cat; echo $A $PWD $(id -u) $PATH >&2; exit 9"
    argv = ["-i", "-e", "A=1", "-w", "/tmp", "-u", "12", box, "sh", "-c", script]
    done = cli("exec", *argv, stdin="in\n", status=9)
    assert done.stdout == "in\n"
    assert done.stderr.startswith("1 /tmp 12 /usr/local/sbin:")
    assert "no program 'nope'" in cli("exec", box, "nope", status=127).stderr
    assert "no container nobody" in cli("exec", "nobody", "true", status=125).stderr


def test_two_programs_at_a_time(cli: Cli, box: str) -> None:
    """And a signal for one of them."""
    processes = [cli.begin("exec", box, "sh", "-c", f"echo {n}; exec sleep 1000") for n in range(2)]
    for n, process in enumerate(processes):
        assert process.stdout is not None
        assert process.stdout.readline() == f"{n}\n"
    for process in processes:
        end(process, signal.SIGTERM)
        assert process.returncode == 128 + signal.SIGTERM


def test_a_signal_by_name(cli: Cli, box: str) -> None:
    """Its handler is asked; then the container is gone."""
    waiting = cli.begin("events", "--json")
    cli("kill", "-s", "term", box)
    eventually(lambda: not cli.bundle(box).exists(), "the container to be gone")
    waiting.send_signal(signal.SIGINT)
    waiting.communicate(timeout=20)
    assert "no container" in cli("kill", box, status=1).stderr


def test_what_it_uses(cli: Cli, box: str) -> None:
    """Numbers for programs, sizes for people."""
    [row] = cli.rows("stats", "--once", "--interval", "0.1")
    assert row["id"] == box
    assert row["memory"] > 0
    assert (row["memory_limit"], row["pids_limit"]) == (64 << 20, 32)
    assert row["cpu"] >= 0
    text = cli("stats", "--once", "--interval", "0.1", box).stdout
    assert re.search(rf"{box} .* %  .* 64 MiB ", text)


def test_what_its_shim_waits_for(cli: Cli, box: str) -> None:
    """Every task, and why; as often as it is asked."""
    for _ in range(2):
        text = cli("dump", box).stdout
        assert "waits for the first process to exit" in text
        assert "look here" not in text
    root = json.loads(cli("dump", "--json", box).stdout)
    assert root["name"] == "<init>"
    assert cli("dump", "--raw", box).stdout.startswith("<init>\n")
    assert cli.rows("ps")[0]["status"] == "running"


def test_what_happens_is_told(cli: Cli, box: str) -> None:
    """Of who comes later, from the beginning; of who was there, what is new."""
    watcher = cli.begin("events", "--json")
    told: list[tuple[str, str]] = []

    def read_until(what: str, id_: str) -> dict[str, object]:
        assert watcher.stdout is not None
        for line in watcher.stdout:
            event: dict[str, object] = json.loads(line)
            told.append((str(event["what"]), str(event["id"])))
            if told[-1] == (what, id_):
                return event
        raise AssertionError(told)

    marks = (cli.bundle(f"mark-{n}") for n in count())

    def watches() -> bool:
        """Whether it tells of a directory that is new: then it has looked around."""
        mark = next(marks)
        mark.mkdir()
        told = select.select([watcher.stdout], [], [], 0.5)[0]
        mark.rmdir()
        return bool(told)

    eventually(watches, "the watcher to look around")
    other = cli("run", "-d", "sleep", "1000").stdout.strip()
    read_until("start", other)
    cli("kill", other)
    assert read_until("exit", other)["exit_status"] == 137
    read_until("delete", other)
    cli("kill", "-s", "TERM", box)
    assert read_until("exit", box)["exit_status"] == 42
    assert [what for what, id_ in told if id_ == other] == ["create", "start", "exit", "delete"]
    assert ("create", box) not in told
    end(watcher)
    assert watcher.returncode == 130


# ---------------------------------------------------------------- containerd's


def test_containers_of_containerd(containerd_cli: Cli, daemon: Daemon, runtime: str) -> None:
    """Under our shim and under Go's: listed, measured, entered, ended."""
    cli = containerd_cli
    container = daemon.run_detached(runtime, *OBEDIENT)
    [row] = cli.rows("ps")
    assert (row["id"], row["status"]) == (container, "running")
    assert row["pid"] == daemon.init_pid(container)
    assert row["shim"] == ("trioshim" if runtime == TRIO else "containerd-shim-runc-v2")
    assert cli("exec", container, "sh", "-c", "echo in; exit 3", status=3).stdout == "in\n"
    assert cli.rows("stats", "--once", "--interval", "0.1")[0]["pids"] >= 1
    if runtime == TRIO:
        assert "holds the connection to the daemon" in cli("dump", container).stdout
    else:
        assert "containerd-shim-runc-v2" in cli("dump", container, status=1).stderr
    assert daemon.status(container) == "RUNNING"
    cli("kill", "-s", "TERM", container)
    eventually(lambda: daemon.status(container) == "STOPPED", "it to stop")
    assert cli.rows("ps")[0]["exit_status"] == 42
