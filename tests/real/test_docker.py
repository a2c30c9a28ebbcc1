"""docker with our runtime: what a person does with `docker run`, as with docker's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import clean
from .docker import IMAGE, RUN_FLAGS, Docker
from .poll import eventually
from .releases import SUITES, ReleasedDaemon, programs_of
from .requirements import TRIO, missing_shim
from .terminal import open_terminal

# Ends at TERM with 42, well within the ten seconds that `docker stop` waits.
OBEDIENT = ("sh", "-c", "trap 'exit 42' TERM; echo ready; while :; do sleep 0.1; done")
MEMORY = ("--memory", "16m", "--memory-swap", "16m")


@pytest.fixture(scope="module", params=SUITES)
def shared_daemon(
    request: pytest.FixtureRequest, machine: None, give_up: Callable[[str], None]
) -> Iterator[ReleasedDaemon]:
    programs = programs_of(request.param, give_up)
    give_up(missing_shim(TRIO))
    daemon = ReleasedDaemon(programs)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


@pytest.fixture(scope="module")
def shared_docker(shared_daemon: ReleasedDaemon, rootfs: Path) -> Iterator[Docker]:
    docker = Docker(shared_daemon)
    try:
        docker.start()
        docker.load(rootfs)
        yield docker
    finally:
        docker.close()


@pytest.fixture
def docker(shared_docker: Docker, shared_daemon: ReleasedDaemon) -> Iterator[Docker]:
    """After the test there is no container, and nothing is left of any."""
    lent = clean(shared_daemon)
    next(lent)
    yield shared_docker
    shared_docker.remove_all()
    next(lent, None)


def test_run_gives_output_and_exit_status(docker: Docker) -> None:
    """`docker run --rm` prints both streams and ends with the container's status."""
    script = "echo to-stdout; echo to-stderr >&2; exit 7"

    done = docker("run", "--rm", *RUN_FLAGS, IMAGE, "sh", "-c", script, status=7)

    assert (done.stdout, done.stderr) == ("to-stdout\n", "to-stderr\n")


def test_run_reads_stdin_to_its_end(docker: Docker) -> None:
    """`docker run -i` passes stdin on, and its end ends `cat`."""
    text = "".join(f"line {number}\n" for number in range(5000))

    done = docker("run", "--rm", "--interactive", *RUN_FLAGS, IMAGE, "cat", stdin=text)

    assert done.stdout == text


def test_run_in_a_terminal(docker: Docker) -> None:
    """`docker run -it` gives a terminal of the caller's size, and the shell's status.

    docker deletes a container only when its terminal has said that it is over.
    """
    argv = docker.argv("run", "--rm", "-it", *RUN_FLAGS, IMAGE, "sh")

    assert talk_to_shell(argv, "exit 7\n") == 7


def test_exec_in_a_terminal(docker: Docker) -> None:
    """The same for `docker exec -it`."""
    container = docker.run_detached("sleep", "1000")

    assert talk_to_shell(docker.argv("exec", "-it", container, "sh"), "exit 9\n") == 9


def talk_to_shell(argv: list[str], last_words: str) -> int:
    """Wait until a shell says that its terminal has the right size, then let it end."""
    with open_terminal(argv, rows=33, columns=101) as terminal:

        def answer() -> bool:
            terminal.type("echo size=$(stty size)=\n")
            return terminal.read_until(r"size=([^=$]*)=")[1] == "33 101"

        eventually(answer, "the terminal's size")
        terminal.type(last_words)
        return terminal.wait()


def test_detached_exec_logs_and_stop(docker: Docker) -> None:
    """A container in the background: its output is kept, execs run in it, TERM ends it."""
    container = docker.run_detached(*OBEDIENT)

    eventually(lambda: docker("logs", container).stdout == "ready\n", "the output")
    done = docker("exec", "-i", container, "sh", "-c", "cat; exit 3", stdin="input\n", status=3)
    assert done.stdout == "input\n"
    assert "sleep" in docker("top", container).stdout
    docker("stop", container)

    assert docker.inspect(container, ".State.Status") == "exited"
    assert docker.inspect(container, ".State.ExitCode") == "42"


def test_start_runs_the_same_container_again(docker: Docker, shared_daemon: ReleasedDaemon) -> None:
    """`docker start` after `docker stop`: the same id gets a new shim and a second life."""
    container = docker.run_detached(*OBEDIENT)
    shared_daemon.excused.add(container)  # the laws are those of one life
    docker("stop", container)

    docker("start", container)
    assert docker.inspect(container, ".State.Running") == "true"
    docker("rm", "--force", container)

    life = ["create", "start", "exit", "delete"]
    eventually(lambda: shared_daemon.events.story(container) == 2 * life, "two whole lives")


def test_remove_by_force_ends_a_running_container(docker: Docker) -> None:
    """`docker rm -f` kills a container that ignores TERM, and its exec with it."""
    container = docker.run_detached("sleep", "1000")
    docker("exec", "--detach", container, "sleep", "1000")

    docker("rm", "--force", container)

    assert docker("ps", "--all", "--quiet").stdout == ""


def test_an_out_of_memory_kill_is_named(docker: Docker) -> None:
    """docker believes the runtime's oom event, and only if it comes before the exit."""
    container = docker.run_detached("tail", "/dev/zero", flags=MEMORY)

    assert docker("wait", container).stdout == "137\n"
    assert docker.inspect(container, ".State.OOMKilled") == "true"


def test_pause_update_and_stats(docker: Docker) -> None:
    """A paused container is shown as such; a new limit reaches its cgroup and its statistics."""
    container = docker.run_detached("sleep", "1000", flags=MEMORY)

    docker("pause", container)
    assert docker.inspect(container, ".State.Status") == "paused"
    docker("unpause", container)
    docker("update", "--memory", "32m", "--memory-swap", "32m", container)

    line = docker("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", container).stdout
    assert line.split()[-2:] == ["32MiB", "1"]


def test_a_program_that_is_not_there(docker: Docker) -> None:
    """docker knows by the text of the error that the command is to blame: status 127."""
    done = docker("run", "--rm", *RUN_FLAGS, IMAGE, "/no/such", status=127)

    assert "/no/such" in done.stderr


def test_an_init_that_reaps(docker: Docker) -> None:
    """`--init` puts docker-init before the command, by a mount of a single file."""
    done = docker("run", "--rm", "--init", *RUN_FLAGS, IMAGE, "cat", "/proc/1/comm")

    assert done.stdout == "docker-init\n"
