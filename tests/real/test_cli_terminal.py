"""`trioshim run -ti` and `exec -ti` at a terminal that the test holds."""

from __future__ import annotations

import signal
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .cli_world import Cli, open_cli
from .terminal import Terminal, open_terminal

CTRL_C, CTRL_D = "\x03", "\x04"


@pytest.fixture
def cli(machine: None) -> Iterator[Cli]:
    with open_cli() as cli:
        yield cli


@contextmanager
def at_terminal(cli: Cli, *words: str) -> Iterator[Terminal]:
    """Run a command in a terminal; in the end that is as it was before."""
    with open_terminal(cli.argv(*words), rows=30, columns=90) as terminal:
        before = termios.tcgetattr(terminal._master)
        yield terminal
        assert termios.tcgetattr(terminal._master) == before


def test_a_shell_has_our_terminal(cli: Cli) -> None:
    """Its size, also when it changes; its exit status is ours."""
    with at_terminal(cli, "run", "-ti", "sh") as terminal:
        terminal.type("PS1='> '; tty; stty size; echo ready\n")
        terminal.read_until(r"/dev/pts/0\r\n")
        terminal.read_until(r"30 90\r\nready")
        terminal.resize(25, 100)
        terminal.type("while ! stty size | grep '25 100'; do :; done; echo again\n")
        terminal.read_until(r"25 100\r\nagain")
        terminal.type("exit 5\n")
        assert terminal.wait() == 5


def test_ctrl_c_goes_to_what_the_shell_runs(cli: Cli) -> None:
    """The shell itself goes on; Ctrl-D ends it."""
    with at_terminal(cli, "run", "-ti", "sh") as terminal:
        # A child of its own says that it runs: before that the shell itself would take the key.
        terminal.type("PS1='> '; sh -c 'echo r''eady; exec sleep 1000'\n")
        terminal.read_until("ready")
        terminal.type(CTRL_C)
        terminal.read_until("> ")
        terminal.type("echo st''atus=$?\n")
        terminal.read_until("status=130")
        terminal.type(CTRL_D)
        assert terminal.wait() == 0


def test_ctrl_c_ends_a_first_process_that_does_not_hear_it(cli: Cli) -> None:
    """Linux drops the signal for it; people expect it to end."""
    with at_terminal(cli, "run", "-ti", "sh", "-c", "echo ready; exec sleep 1000") as terminal:
        terminal.read_until("ready")
        terminal.type(CTRL_C)
        assert terminal.wait() == 130


def test_ctrl_c_is_a_character_where_a_program_wants_it(cli: Cli) -> None:
    """A terminal that makes no signals of keys gets the key."""
    keys = {CTRL_C: "03", "a": "61", "b": "62", "c": "63"}
    script = "stty -isig -icanon -echo min 1; echo ready; exec od -An -v -tx1 -w1"
    with at_terminal(cli, "run", "-ti", "sh", "-c", script) as terminal:
        terminal.read_until("ready")
        for key, code in keys.items():
            terminal.type(key)
            terminal.read_until(code)
        assert terminal._process is not None
        terminal._process.send_signal(signal.SIGTERM)
        assert terminal.wait() == 143


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminal_that_goes_takes_the_container_with_it(cli: Cli, signum: int) -> None:
    """Shells do not hear SIGTERM; the screen is as it was all the same."""
    with at_terminal(cli, "run", "-ti", "sh", "-c", "echo ready; exec sleep 1000") as terminal:
        terminal.read_until("ready")
        assert terminal._process is not None
        terminal._process.send_signal(signum)
        assert terminal.wait() == 128 + signum


def test_a_terminal_without_input(cli: Cli) -> None:
    """`-t` alone: the program sees a terminal, and we may be a pipe."""
    done = cli("run", "-t", "sh", "-c", "tty; echo $TERM", env={"TERM": "vt52"})
    assert done.stdout == "/dev/pts/0\nvt52\n"  # read as text: without the carriage returns


def test_an_error_leaves_the_terminal_as_it_was(cli: Cli) -> None:
    """And is readable on it."""
    with at_terminal(cli, "run", "-ti", "no-such-program") as terminal:
        terminal.read_until("there is no program 'no-such-program' in the container")
        assert terminal.wait() == 127


def test_a_shell_in_a_container_that_runs(cli: Cli) -> None:
    """`exec -ti`: the same terminal, another process; the container goes on."""
    id_ = cli("run", "-d", "sleep", "1000").stdout.strip()
    with at_terminal(cli, "exec", "-ti", id_, "sh") as terminal:
        terminal.type("PS1='> '; stty size; echo $$ is me\n")
        terminal.read_until(r"30 90\r\n\d+ is me")
        terminal.type("exit 6\n")
        assert terminal.wait() == 6
    assert [row["status"] for row in cli.rows("ps")] == ["running"]


def test_a_table_is_drawn_until_ctrl_c(cli: Cli) -> None:
    """`stats`: numbers that change, in place."""
    id_ = cli("run", "-d", "-m", "64m", "sleep", "1000").stdout.strip()
    with at_terminal(cli, "stats", "--interval", "0.1") as terminal:
        for _ in range(2):
            terminal.read_until(rf"CPU[\s\S]*{id_}[\s\S]*64 MiB")
        assert terminal._process is not None
        terminal._process.send_signal(signal.SIGINT)
        assert terminal.wait() == 130


def test_tables_have_colours_on_a_terminal(cli: Cli) -> None:
    """And none elsewhere."""
    cli("run", "-d", "sleep", "1000")
    assert "\x1b[" not in cli("ps").stdout
    with at_terminal(cli, "ps") as terminal:
        terminal.read_until("\x1b\\[32mrunning")
        assert terminal.wait() == 0
