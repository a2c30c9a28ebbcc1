"""The command `trioshim` without root: its words, its exit statuses, what it says."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from trioshim import cli
from trioshim.cli import _container_run, _found, _kill, _logs, _main, _output, _run
from trioshim.cli._failures import CannotRunError, CliError, cannot_start, explain, the_one
from trioshim.errors import RuntimeFailedError

from .cli_world import make_place


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    """We are taken for root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """Obey `trioshim run true` where running raises this; returns the exit status."""

    def obey(error: BaseException) -> int:
        def fail(*_: object, **__: object) -> int:
            raise error

        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(_container_run, "run_in_front", fail)
        return _main.obey(["run", "--shim", "x", "true"])

    return obey


# ---------------------------------------------------------------- words


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """And each of them is there, with a help of its own."""
    assert _main.obey(["--help"]) == 0
    out = capsys.readouterr().out
    for name in _main._COMMANDS:
        assert f"\n  {name} " in out
        assert _main.obey([name, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"Usage: trioshim {name} ")


@pytest.mark.parametrize(
    ("argv", "status"), [(["bogus"], 2), (["ps", "--bogus"], 2), (["run", "--bogus", "x"], 125)]
)
def test_a_wrong_word_is_a_usage_error(
    argv: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """2; 125 where smaller numbers are the container's."""
    assert _main.obey(argv) == status
    assert "bogus" in capsys.readouterr().err


def test_the_words_of_the_container_are_its_own() -> None:
    """What stands behind the first of them is no option of ours."""
    with _run.command.make_context("run", ["-m", "64m", "ls", "-m", "--help"]) as context:
        assert context.params["memory"] == "64m"
        assert context.params["args"] == ("ls", "-m", "--help")


def test_run_imports_no_tables() -> None:
    """Neither rich nor gRPC is loaded before a container is on its way."""
    code = (
        "import sys; from trioshim.cli import _main; import trioshim.cli._container_run;"
        "from trioshim.cli import _run;"
        "print([name for name in ('rich', 'h2', 'purerpc') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_without_click_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, no traceback."""
    monkeypatch.setattr(sys, "argv", ["trioshim", "ps"])
    with monkeypatch.context() as without:
        without.setattr(importlib.util, "find_spec", lambda _: None)
        assert cli.main() == 1
    assert "pip install 'trioshim[cli]'" in capsys.readouterr().err
    assert importlib.util.find_spec("click") is not None


# ---------------------------------------------------------------- failures


def test_an_error_of_the_world_is_one_line(
    failing: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, with 125."""
    assert failing(FileNotFoundError(2, "No such file or directory", "/i.tar")) == 125
    assert capsys.readouterr().err == "trioshim: /i.tar: No such file or directory\n"


def test_errors_in_groups_are_unwrapped(failing: Callable[[BaseException], int]) -> None:
    """trio puts one error into as many groups as there are nurseries."""
    error = CannotRunError("no", 127)
    assert failing(ExceptionGroup("", [ExceptionGroup("", [error])])) == 127
    assert the_one(ExceptionGroup("", [error])) is error


def test_a_defect_is_not_hidden(failing: Callable[[BaseException], int]) -> None:
    """It keeps its traceback."""
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError())


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), 130), (BrokenPipeError(32, "Broken pipe"), 141)]
)
def test_ends_that_need_no_words(error: BaseException, status: int) -> None:
    """Ctrl-C, and a reader that has read enough."""
    code = (
        "import sys; from trioshim.cli import _main, _ps, _found\n"
        f"def fail(*_, **__): raise {error!r}\n"
        "_found.find_places = fail\n"
        "sys.exit(_main.obey(['ps']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (status, "", "")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ('exec: "nope": executable file not found in $PATH', 127),
        ('exec: "/nope": stat /nope: no such file or directory', 127),
        ("executable file `nope` not found in $PATH: No such file or directory", 127),
        ('exec: "/etc/passwd": permission denied', 126),
        ("open executable: Permission denied", 126),
        ("exec user process caused: exec format error", 126),
        ("cannot allocate memory", 125),
    ],
)
def test_why_a_program_was_not_started(said: str, status: int) -> None:
    """As a shell and docker tell it, from the words of runc and crun."""
    error = cannot_start(["nope"], RuntimeFailedError(f"OCI runtime create failed: {said}"))
    assert error.status == status
    assert ("'nope'" in str(error)) == (status != 125)


def test_who_is_not_root_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is tried."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert _main.obey(["run", "true"]) == 125
    assert _main.obey(["ps"]) == 1
    assert capsys.readouterr().err.count("only root can do this: put sudo in front of it") == 2


@pytest.mark.usefixtures("root")
def test_a_machine_without_runc_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _main.obey(["run", "true"]) == 125
    assert "apt-get install runc" in capsys.readouterr().err


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (["run", "-d", "-t", "true"], "leave out"),
        (["run", "--log", "f", "true"], "--log is for -d"),
        (["run", "-i", "-t", "true"], "leave out -t"),
        (["exec", "-i", "-t", "box", "true"], "leave out -t"),
    ],
)
def test_options_that_contradict_each_other(
    argv: list[str], hint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says which one to leave out."""
    monkeypatch.setattr(os, "isatty", lambda _: False)
    assert _main.obey(argv) == 125
    assert hint in capsys.readouterr().err


def test_what_is_no_error_of_the_world_has_no_words() -> None:
    """So that it is not taken for one."""
    assert explain(AssertionError("x")) is None
    assert explain(CliError("do this")) == "do this"


# ---------------------------------------------------------------- options of run


def test_environment_as_docker_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value, our own value, or nothing if we have none; a terminal has our TERM."""
    monkeypatch.setenv("OURS", "1")
    monkeypatch.setenv("TERM", "vt52")
    monkeypatch.delenv("NOT_OURS", raising=False)
    words = ["A=b=c", "OURS", "NOT_OURS", "EMPTY="]
    assert _run.read_env(words, tty=False) == {"A": "b=c", "OURS": "1", "EMPTY": ""}
    assert _run.read_env([], tty=True) == {"TERM": "vt52"}


def test_only_what_was_said_is_passed_on() -> None:
    """Under the names of `open_container`; a directory of ours is made absolute."""
    argv = ["--name", "box", "-m", "64m", "-v", "./d:/d:ro", "--read-only", "true"]
    with _run.command.make_context("run", argv) as context:
        given = {
            name: context.params[name]
            for name in context.params
            if name not in ("args", "interactive", "tty", "detach", "log", "env")
        }
    assert _run._options(given, {"A": "1"}) == {
        "id": "box",
        "memory": "64m",
        "mounts": [f"{Path.cwd()}/d:/d:ro"],
        "read_only": True,
        "namespace": "trioshim",
        "env": {"A": "1"},
    }


# ---------------------------------------------------------------- small commands


@pytest.mark.parametrize("text", ["TERM", "sigterm", "15"])
def test_signals_have_names_and_numbers(text: str) -> None:
    """With and without SIG."""
    assert _kill.read_signal(text) == signal.SIGTERM


@pytest.mark.parametrize("text", ["", "0", "65", "-1", "NOPE"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    """It says where to look."""
    with pytest.raises(CliError, match="kill -l"):
        _kill.read_signal(text)


@pytest.mark.usefixtures("root")
def test_logs_are_shown(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """As they are, byte for byte."""
    place = make_place(tmp_path)
    (place.bundle / _container_run.LOG_FILE).write_bytes(b"out\n\xff")
    assert _main.obey(["logs", "--state-dir", str(tmp_path), "box"]) == 0
    assert capfdbinary.readouterr().out == b"out\n\xff"


@pytest.mark.usefixtures("root")
def test_logs_are_followed_until_the_container_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """What is written just before that is shown too."""
    place = make_place(tmp_path)
    log = place.bundle / _container_run.LOG_FILE
    log.write_bytes(b"one\n")

    def write(data: bytes) -> None:
        with log.open("ab") as file:
            file.write(data)

    def vanish() -> None:
        write(b"three\n")
        log.unlink()
        (place.bundle / "config.json").unlink()
        place.bundle.rmdir()

    steps = iter([lambda: write(b"two\n"), vanish])
    monkeypatch.setattr(_logs.time, "sleep", lambda _: next(steps)())
    assert _main.obey(["logs", "-f", "--state-dir", str(tmp_path), "box"]) == 0
    assert capfdbinary.readouterr().out == b"one\ntwo\nthree\n"


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("name", ["logs", "dump", "kill"])
def test_a_container_that_is_not_there(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error says where to look for one."""
    assert _main.obey([name, "--state-dir", str(tmp_path), "nobody"]) == 1
    assert "there is no container nobody: `trioshim ps`" in capsys.readouterr().err


@pytest.mark.usefixtures("root")
def test_the_same_id_in_two_namespaces(tmp_path: Path) -> None:
    """Has to be told apart."""
    for namespace in ("a", "b"):
        make_place(tmp_path, namespace=namespace)
    with pytest.raises(CliError, match=r"several namespaces \(a, b\): say which one with -n"):
        _found.find_place("box", [str(tmp_path)])
    assert _found.find_place("box", [str(tmp_path)], namespace="b").namespace == "b"


# ---------------------------------------------------------------- tables


ROWS = [{"id": "a", "n": 1, "words": ["x", "y"]}, {"id": "long", "n": None, "words": []}]


def test_a_table_in_a_pipe_is_plain() -> None:
    """Columns below each other, no blank at the end of a line, "-" for what is not known."""
    assert _output.plain_table(["id", "n", "words"], ROWS) == (
        "ID    N  WORDS\na     1  x y\nlong  -"
    )


def test_a_table_as_json_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """One object in each line, the columns that are not shown too."""
    _output.print_table(["id"], ROWS, as_json=True)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == ROWS


def test_a_table_on_a_terminal_has_the_same_cells() -> None:
    """Text in brackets is text, not markup."""
    from rich.console import Console

    console = Console(width=60, force_terminal=False, file=open(os.devnull, "w"))  # noqa: SIM115
    with console, console.capture() as captured:
        console.print(_output.rich_table(["id"], [{"id": "[red]box"}]))
    console.file.close()
    assert captured.get().split() == ["ID", "[red]box"]


def test_the_group_is_clicks() -> None:
    """So completion and help work as in every program made with it."""
    assert isinstance(_main.program, click.Group)


# ---------------------------------------------------------------- the page


PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")
GENERAL = {"--help", "-n", "--namespace", "--state-dir"}


@pytest.mark.parametrize("name", _main._COMMANDS)
def test_the_page_has_every_option(name: str) -> None:
    """And no other one."""
    command = _main.program.get_command(click.Context(_main.program), name)
    assert command is not None
    options = {flag for param in command.params for flag in param.opts if flag.startswith("-")}
    section = re.search(rf"^## {name}\n(.*?)(?:^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None
    told = set(re.findall(r"`(-[a-z]|--[a-z-]+)\b", section[1]))
    rows = [line for line in section[1].splitlines() if line.startswith("| `-")]
    listed = {flag for row in rows for flag in re.findall(r"`(-[a-z]|--[a-z-]+)\b", row[:40])}
    assert options - GENERAL <= told
    assert listed - GENERAL <= options
