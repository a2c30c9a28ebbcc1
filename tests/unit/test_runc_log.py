"""What runc says becomes the right error, with the words that clients look for."""

import errno
import json

import pytest

from trioshim.errors import FailedPreconditionError, NotFoundError, RuntimeFailedError
from trioshim.runc import _log
from trioshim.runc._argv import Verb
from trioshim.runc._log import Excerpt, Result, last_error


def log(*entries: object) -> bytes:
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


def error(message: str) -> dict[str, str]:
    return {"level": "error", "msg": message, "time": "2024-01-01T00:00:00Z"}


def failed(verb: Verb = Verb.CREATE, output: str = "", logged: str = "", **more: str) -> Result:
    return Result(verb, ("runc", "..."), 1, output, logged, **more)


def test_the_last_error_counts() -> None:
    """Warnings and earlier errors are not why it failed."""
    text = log(error("first"), error(" last\n"), {"level": "warning", "msg": "w"})
    assert last_error(text) == "last"


@pytest.mark.parametrize("text", [b"", b"\n\n", b"null\n7\n", log({"level": "info", "msg": "i"})])
def test_a_log_without_errors_says_nothing(text: bytes) -> None:
    """No error entry: an empty text."""
    assert last_error(text) == ""


def test_broken_lines_are_passed_over() -> None:
    """A cut first line, rubbish and endless nesting do not hide the error."""
    text = b'evel":"error"}\n' + log(error("why")) + b"rubbish\n\xff\n" + b"[" * 100_000
    assert last_error(text) == "why"


def test_an_endless_error_is_shortened() -> None:
    """A megabyte of text is neither kept nor sent."""
    text = last_error(log(error("begin " + "x" * 2**20 + " end")))
    assert text.startswith("begin ")
    assert text.endswith(" end")
    assert len(text) < 70_000


def test_an_excerpt_keeps_short_texts_whole() -> None:
    """Nothing is left out of what fits, however it is cut into pieces."""
    text = bytes(range(32, 127)) * 600
    excerpt = Excerpt()
    for start in range(0, len(text), 1000):
        excerpt.add(text[start : start + 1000])
    assert excerpt.text() == text.decode().strip()


def test_an_excerpt_keeps_both_ends_and_says_how_much_is_missing() -> None:
    """The beginning tells what was tried, the end why it failed."""
    excerpt = Excerpt()
    excerpt.add(b"A" * Excerpt.HEAD)
    excerpt.add(b"B" * 1000)
    excerpt.add(b"C" * Excerpt.TAIL)
    assert excerpt.text() == ("A" * Excerpt.HEAD + "\n[1000 bytes left out]\n" + "C" * Excerpt.TAIL)


@pytest.mark.parametrize(
    ("verb", "text"),
    [
        (Verb.CREATE, "OCI runtime create failed: why"),
        (Verb.START, "OCI runtime start failed: why"),
        (Verb.EXEC, "OCI runtime exec failed: why"),
        (Verb.RESTORE, "OCI runtime restore failed: why"),
        (Verb.PAUSE, "OCI runtime pause failed: why"),
        (Verb.RESUME, "OCI runtime resume failed: why"),
        (Verb.DELETE, "failed to delete task: why"),
    ],
)
def test_failures_begin_with_containerds_words(verb: Verb, text: str) -> None:
    """docker and the kubelet look for these beginnings."""
    assert str(_log.failed(failed(verb, "output", "why"))) == text


def test_without_an_error_in_the_log_the_output_tells() -> None:
    """Then it is the exit status and what was written."""
    told = _log.failed(failed(output="oops"))
    assert str(told) == (
        "OCI runtime create failed: runc did not terminate successfully: exit status 1: oops"
    )
    assert (told.status, told.argv, told.log) == (1, ("runc", "..."), "oops")


def test_a_signal_is_told_by_its_name() -> None:
    """Somebody, often the OOM killer, has killed runc itself."""
    result = Result(Verb.START, ("runc",), 137)
    assert "exit status 137 (SIGKILL)" in str(_log.failed(result))
    assert Result(Verb.EXEC, ("runc",), 255).failure.endswith("exit status 255")


@pytest.mark.parametrize(
    "said",
    [
        "os: process already finished",
        "container not running",
        "unable to signal init: No such process",
    ],
)
def test_killing_what_has_ended_is_not_found(said: str) -> None:
    """containerd and CRI go on after exactly this text."""
    for result in (failed(Verb.KILL, output=said), failed(Verb.KILL, logged=said)):
        told = _log.kill_failed(result)
        assert isinstance(told, NotFoundError)
        assert str(told) == "process already finished: not found"


@pytest.mark.parametrize(
    "said",
    [
        "container does not exist",
        'container "c" does not exist',
        "error opening file `/run/crun/c/status`: No such file or directory",
        "cannot open directory '/run/crun/c': No such file or directory",
    ],
)
def test_killing_an_unknown_container_is_not_found(said: str) -> None:
    """runc and crun have different words for it."""
    result = failed(Verb.KILL, output=said)
    assert result.no_container
    assert str(_log.kill_failed(result)) == "no such container: not found"


@pytest.mark.parametrize(
    "said",
    [
        "cannot start an already running container",
        "cannot open `/run/crun/c/exec.fifo`: No such file or directory",
    ],
)
def test_starting_what_runs_is_told_apart(said: str) -> None:
    """runc and crun have different words for it; the text stays the runtime's."""
    for result in (failed(Verb.START, output=said), failed(Verb.START, "noise", said)):
        told = _log.start_failed(result)
        assert isinstance(told, FailedPreconditionError)
        assert told.message.startswith("OCI runtime start failed: ")
        assert told.message.endswith(said)


@pytest.mark.parametrize(
    "said",
    [
        "cannot start a container that has stopped",
        "cannot start a container in the paused state",
        "container does not exist",
        "error opening file `/run/crun/c/status`: No such file or directory",
        "cannot open `/run/crun/c/config.json`: No such file or directory",
    ],
)
def test_other_failures_of_start_are_the_runtimes(said: str) -> None:
    """None of them means that it runs."""
    assert isinstance(_log.start_failed(failed(Verb.START, said)), RuntimeFailedError)


@pytest.mark.parametrize("said", ["container not paused", "the container `c` is not running"])
def test_resuming_what_is_not_paused_is_told_apart(said: str) -> None:
    """runc says the first of what runs or has ended, crun the second of what has ended."""
    told = _log.resume_failed(failed(Verb.RESUME, logged=said))
    assert isinstance(told, FailedPreconditionError)
    assert told.message == f"OCI runtime resume failed: {said}"


def test_other_failures_of_resume_are_the_runtimes() -> None:
    """It may still be paused then."""
    for said in ("container does not exist", "unable to thaw: Device or resource busy"):
        told = _log.resume_failed(failed(Verb.RESUME, logged=said))
        assert isinstance(told, RuntimeFailedError)


def test_other_failures_of_kill_are_passed_on() -> None:
    """The text says that it is not one of the known ones."""
    told = _log.kill_failed(failed(Verb.KILL, output="permission denied"))
    assert isinstance(told, RuntimeFailedError)
    assert str(told).startswith("unknown error after kill: runc did not terminate")
    assert str(told).endswith(": permission denied")


def test_a_missing_program_is_told_with_what_to_do() -> None:
    """docker looks for "executable file not found in $PATH"."""
    told = _log.not_started(Verb.CREATE, ("crun",), FileNotFoundError(errno.ENOENT, "x"))
    assert str(told).startswith(
        'OCI runtime create failed: exec: "crun": executable file not found in $PATH'
    )
    assert "binary_name" in str(told)


def test_a_program_that_cannot_be_run_is_told_by_the_kernels_words() -> None:
    """Other reasons keep their own text."""
    told = _log.not_started(Verb.EXEC, ("/x",), PermissionError(errno.EACCES, "Permission denied"))
    assert str(told) == 'OCI runtime exec failed: exec: "/x": Permission denied'


def test_a_failed_checkpoint_is_one_line_and_the_place_of_crius_log() -> None:
    """The form that containerd's users know."""
    told = _log.criu_failed(failed(Verb.CHECKPOINT, "criu failed\nmore"), "/b/criu-dump.log")
    assert str(told) == (
        "runc did not terminate successfully: exit status 1: criu failed path= /b/criu-dump.log"
    )
