"""The executable's shell and a spare: who gets a shim without Python, and who does not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest

from trioshim.template._hatch import Hatch, file_of, sweep
from trioshim.template._request import RefusalError

ROOT = Path(__file__).parents[2]
NAME = "containerd-shim-trio-v1"
GUARD = 30  # seconds; only against a hanging test run
WORDS = ("-namespace", "n", "-id", "c", "start")

SPARE = """
import os, select, signal, sys, time
from trioshim.template._hatch import ITS_STDIN, Hatch
hatch = Hatch(sys.argv[1])
hatch.open()
print("open", flush=True)
{behaviour}
print("done", flush=True)
"""


class Place:
    """The executable beside a Python that only says so, and what spares write for it."""

    def __init__(self, base: Path) -> None:
        self._open = ExitStack()
        self.directory = base / "t"
        self.directory.mkdir(mode=0o700)
        self.program = base / "with space" / NAME
        self.program.parent.mkdir()
        text = (ROOT / "scripts" / NAME).read_text()
        assert text.count("/run/trioshim-template/") == 1
        self.program.write_text(text.replace("/run/trioshim-template/", f"{self.directory}/"))
        python = self.program.with_name("python3")
        python.write_text("#!/bin/sh\nIFS= read -r line\necho Python $line\n")
        for path in (self.program, python):
            path.chmod(0o755)
        self._stdin = base / "stdin"
        self._stdin.write_text("stdin\n")
        self.file = Path(file_of(str(self.directory), str(self.program)))

    def spare(self, behaviour: str) -> subprocess.Popen[str]:
        """One that is at its hatch, and what it does then; its output is what it says."""
        code = SPARE.format(behaviour=textwrap.dedent(behaviour))
        spare = subprocess.Popen(
            [sys.executable, "-c", code, str(self.file)], stdout=subprocess.PIPE, text=True
        )
        self._open.enter_context(spare)
        self._open.callback(spare.kill)
        assert line(spare) == "open\n"
        while state(spare.pid) == "R":  # who runs is not asked
            os.sched_yield()
        return spare

    def begin(self, *words: str, program: Path | None = None) -> subprocess.Popen[bytes]:
        """`start`, with a word on its standard input."""
        with self._stdin.open() as stdin:
            start = subprocess.Popen(
                [str(program or self.program), *(words or WORDS)],
                env={"PATH": os.environ["PATH"]},
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        return self._open.enter_context(start)

    def start(self, *words: str, program: Path | None = None) -> bytes:
        """What `start` answers, on both outputs."""
        start = self.begin(*words, program=program)
        answer = start.communicate(timeout=GUARD)[0]
        assert start.returncode == 0
        return answer

    def close(self) -> None:
        self._open.close()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def line(spare: subprocess.Popen[str]) -> str:
    stdout: IO[str] | None = spare.stdout
    assert stdout is not None
    return stdout.readline()


@pytest.fixture
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="ts-") as base:
        there = Place(Path(base))
        try:
            yield there
        finally:
            there.close()


PYTHON = b"Python stdin\n"
ANSWER = 'print(hatch.hear() > 0, hatch.tell(b"unix:///a  b"), flush=True)'
# Until the shell has ended, and with it its end of the pipe.
WAIT = "os.read(hatch.fileno(), 1)"


def test_a_shell_is_answered_by_a_spare(place: Place) -> None:
    """Byte for byte, and the spare knows that it was heard."""
    spare = place.spare(ANSWER)
    assert place.start() == b"unix:///a  b"
    assert line(spare) == "True True\n"


@pytest.mark.parametrize("shell", ["bash --posix", "busybox sh", "dash"])
def test_any_shell_will_do(place: Place, shell: str) -> None:
    """Answered, refused, and when it is somebody else's turn."""
    name, _, option = shell.partition(" ")
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"no {name} on this machine")
    text = place.program.read_text()
    assert text.startswith("#!/bin/sh\n")
    place.program.write_text(f"#!{program} {option}\n{text}")
    place.spare(f"{ANSWER}; hatch.close(); hatch.open(); hatch.hear(); os._exit(0)")
    assert place.start() == b"unix:///a  b"
    assert place.start() == PYTHON
    place.spare("open(f'{sys.argv[1]}.{os.getpid()}/taken', 'x'); time.sleep(1000)")
    assert place.start() == PYTHON


def test_a_link_leads_there(place: Place) -> None:
    """To the place that the spare knows."""
    link = place.directory.with_name("link")
    link.symlink_to(place.program)
    place.spare(ANSWER)
    assert place.start(program=link) == b"unix:///a  b"


def test_the_standard_input_is_the_spares_to_read(place: Place) -> None:
    """Not the pipe that the shell reads from."""
    spare = place.spare(
        """
        pid = hatch.hear()
        with open(f"/proc/{pid}/fd/{ITS_STDIN}") as file:
            print(file.read().strip(), flush=True)
        hatch.tell(b"unix:///a")
        """
    )
    place.start()
    assert line(spare) == "stdin\n"


@pytest.mark.parametrize(
    "behaviour",
    [
        "hatch.hear(); hatch.close()",
        "hatch.hear(); os._exit(0)",
        "select.select([hatch], [], []); os.kill(os.getpid(), signal.SIGKILL)",
        "hatch.hear(); os.write(61, b'unix:///half'); os._exit(0)",
        f"hatch.hear(); os.write(61, bytes([10])); {WAIT}",
    ],
    ids=["refuses", "ends", "is killed before", "half an answer", "nothing"],
)
def test_a_spare_that_does_not_answer_leaves_it_to_python(place: Place, behaviour: str) -> None:
    """At once, and with the standard input as it was."""
    place.spare(behaviour)
    assert place.start() == PYTHON


@pytest.mark.parametrize(
    "words", [("-v",), ("-info",), (*WORDS, "-debug"), (*WORDS[:-1], "delete")]
)
def test_only_start_comes_to_the_hatch(place: Place, words: tuple[str, ...]) -> None:
    """Whatever else is asked."""
    place.spare("time.sleep(1000)")
    assert place.start(*words) == PYTHON
    assert not list(place.directory.glob("*/taken"))


def test_without_a_spare_it_is_left_to_python(place: Place) -> None:
    """Nobody has said anything, nonsense, or it has ended since."""
    assert place.start() == PYTHON
    place.file.write_text("nonsense\n")
    assert place.start() == PYTHON
    place.file.unlink()
    spare = place.spare("time.sleep(1000)")
    spare.kill()
    spare.wait()
    assert place.file.exists()
    assert place.start() == PYTHON


def test_a_spare_that_is_stopped_is_left_alone(place: Place) -> None:
    """It would not answer, and nobody could wait for it with a limit."""
    spare = place.spare("time.sleep(1000)")
    os.kill(spare.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, spare.pid, os.WSTOPPED | os.WNOWAIT)
    assert place.start() == PYTHON
    assert not list(place.directory.glob("*/taken"))


def test_another_process_of_that_number_is_left_alone(place: Place) -> None:
    """When it began tells the one from the other."""
    place.spare("time.sleep(1000)")
    pid, begun, *ends = place.file.read_text().split()
    place.file.write_text(" ".join([pid, str(int(begun) - 1), *ends]) + "\n")
    assert place.start() == PYTHON
    assert not list(place.directory.glob("*/taken"))


def test_one_shell_at_a_time(place: Place) -> None:
    """The second does without, while the first waits."""
    place.spare(f"select.select([hatch], [], []); sys.stdin.read(1); {ANSWER}; {WAIT}")
    first = place.begin()
    while not list(place.directory.glob("*/taken")):
        os.sched_yield()
    assert place.start() == PYTHON
    first.kill()


def test_of_many_one_is_answered(place: Place) -> None:
    """Whoever it is: the others are Python's."""
    place.spare(f"{ANSWER}; {WAIT}")
    starts = [place.begin() for _ in range(12)]
    answers = sorted(start.communicate(timeout=GUARD)[0] for start in starts)
    assert answers == [*[PYTHON] * 11, b"unix:///a  b"]


def test_who_is_gone_has_not_heard(place: Place) -> None:
    """So that no shim lives that nobody knows."""
    spare = place.spare(
        """
        pid = hatch.hear()
        os.kill(pid, signal.SIGKILL)
        try:
            print(hatch.tell(b"unix:///a"), flush=True)
        except BrokenPipeError:
            print(False, flush=True)
        """
    )
    start = place.begin()
    assert line(spare) == "False\n"
    assert start.wait() == -signal.SIGKILL


def test_a_hatch_that_is_shut_stays_shut(place: Place) -> None:
    """For who has read where it is before: nothing of what the process has now is opened."""
    spare = place.spare(
        """
        print(hatch.shut(), flush=True)
        fifo = sys.argv[1] + "-fifo"
        os.mkfifo(fifo)
        os.dup2(os.open(fifo, os.O_RDWR), hatch.fileno())  # as a shim might have one there
        select.select([hatch], [], [], 2)
        print(select.select([hatch], [], [], 0)[0], flush=True)
        """
    )
    assert line(spare) == "True\n"
    assert place.start() == PYTHON
    assert line(spare) == "[]\n"


def test_a_hatch_that_is_taken_cannot_be_shut(place: Place) -> None:
    """Then the shell comes first."""
    spare = place.spare(
        f"select.select([hatch], [], []); print(hatch.shut(), flush=True); {ANSWER}"
    )
    assert place.start() == b"unix:///a  b"
    assert line(spare) == "False\n"


@pytest.mark.parametrize(
    "word", ["b''", "b'1'", "b'999999999'", "str(os.getppid()).encode()", "b'x'"]
)
def test_who_does_not_say_who_it_is_is_not_heard(place: Place, word: str) -> None:
    """Another pid namespace, or no shell at all."""
    spare = place.spare(
        f"""
        with open("/proc/self/fd/60", "wb") as pipe:
            pipe.write({word} + b"\\n" if {word} else b"")
            pipe.flush()
            print(hatch.hear(), flush=True)
        """
    )
    assert line(spare) == "0\n"


@pytest.mark.parametrize("answer", [b"unix:///\xc3\xa4", b"a\nb", b"\x81"])
def test_what_a_shell_could_not_repeat_is_refused(answer: bytes, tmp_path: Path) -> None:
    """Then Python says it."""
    with pytest.raises(RefusalError):
        Hatch(str(tmp_path / "x")).tell(answer)


def test_a_hatch_leaves_nothing(place: Place) -> None:
    """Nor does one that was taken by a shell which died."""
    spare = place.spare(
        """
        open(f"{sys.argv[1]}.{os.getpid()}/taken", "x").close()
        before = set(os.listdir("/proc/self/fd"))
        hatch.close()
        hatch.open()
        print(before == set(os.listdir("/proc/self/fd")), flush=True)
        hatch.close()
        hatch.close()
        """
    )
    assert line(spare) == "True\n"
    assert line(spare) == "done\n"
    assert list(place.directory.iterdir()) == []


def test_only_what_is_its_own_is_removed(place: Place) -> None:
    """Another spare may have said where it is in the meantime."""
    spare = place.spare('open(sys.argv[1], "w").write("1 2 3 4"); hatch.close()')
    assert line(spare) == "done\n"
    assert place.file.read_text() == "1 2 3 4"


def test_what_killed_spares_left_is_swept(place: Place) -> None:
    """And nobody else's."""
    killed = place.spare("time.sleep(1000)")
    (place.directory / f"{place.file.name}.{killed.pid}" / "taken").touch()
    killed.kill()
    killed.wait()
    living = place.spare("time.sleep(1000)")
    sweep(str(place.file))
    assert {path.name for path in place.directory.iterdir()} == {
        place.file.name,
        f"{place.file.name}.{living.pid}",
    }


def test_who_is_not_root_has_another_directory(place: Place) -> None:
    """XDG_RUNTIME_DIR, where the other one is not theirs."""
    runtime = place.directory.with_name("runtime")
    runtime.mkdir()
    place.directory.rename(runtime / "trioshim-template")
    place.file = runtime / "trioshim-template" / place.file.name
    place.spare(ANSWER)
    assert place.start() == PYTHON
    done = subprocess.run(
        [str(place.program), *WORDS],
        env={"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(runtime)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=GUARD,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"unix:///a  b", b"")
