"""What the three texts for the standard streams mean."""

from __future__ import annotations

import pytest

from trioshim.abc import StdioSpec
from trioshim.errors import InvalidArgumentError
from trioshim.linux._stdio_url import Kind, Route, logger_environment, parse_route


def route(stdin: str = "", stdout: str = "", stderr: str = "") -> Route:
    return parse_route(StdioSpec(stdin=stdin, stdout=stdout, stderr=stderr))


def test_nothing_given_means_no_streams() -> None:
    """Three empty texts are /dev/null."""
    assert route() == Route(Kind.NULL)


def test_paths_are_fifos_and_are_not_decoded() -> None:
    """A path with URL characters in it is still that path."""
    given = route("/f/in%20?a=b#c", "/f/out:x", "/f/err%00")
    assert given == Route(Kind.FIFO, "/f/in%20?a=b#c", "/f/out:x", "/f/err%00")


def test_stdout_may_be_missing() -> None:
    """Only stdin, or only stderr, are fifos as well; the Go shim fails there."""
    assert route(stdin="/in") == Route(Kind.FIFO, stdin="/in")
    assert route(stderr="/err") == Route(Kind.FIFO, stderr="/err")


def test_fifo_urls_lead_to_their_path() -> None:
    """The scheme is taken off, percent signs are decoded."""
    assert route("fifo:///in", "fifo:///o%20ut", "fifo:///err") == Route(
        Kind.FIFO, "/in", "/o ut", "/err"
    )


def test_a_file_takes_both_outputs() -> None:
    """The path of stdout is used for both; the query means nothing."""
    assert route("/in", "file:///a/b%25?x=y", "file:///other") == Route(
        Kind.FILE, "/in", "/a/b%", "/a/b%"
    )


def test_an_empty_stderr_stays_empty_beside_a_file() -> None:
    """A client that gives no stderr wants none."""
    assert route(stdout="file:///a") == Route(Kind.FILE, stdout="/a")


def test_the_scheme_of_stdout_decides() -> None:
    """Whatever the others say, a logger gets both outputs."""
    given = route("/in", "binary:///bin/log", "/err")
    assert given == Route(Kind.BINARY, "/in", argv=("/bin/log",))


@pytest.mark.parametrize(
    ("query", "arguments"),
    [
        ("z=1&a=2", ("z", "1", "a", "2")),
        ("flag", ("flag", "")),
        ("flag=&x=y", ("flag", "", "x", "y")),
        ("k=1&j=3&k=2", ("k", "1", "j", "3")),
        ("a+b=%2Fc%20d", ("a b", "/c d")),
        ("k=%ff", ("k", "\udcff")),
    ],
)
def test_a_logger_gets_key_and_value_as_arguments(query: str, arguments: tuple[str, ...]) -> None:
    """In the order of the URL, first value only, empty values too, bytes kept."""
    assert route(stdout=f"binary:///bin/log?{query}").argv == ("/bin/log", *arguments)


def test_only_binary_v2_is_strict() -> None:
    """The second version must say that it is ready."""
    assert not route(stdout="binary:///bin/log").strict
    assert route(stdout="binary-v2:///bin/log").strict


def test_a_logger_learns_who_it_logs_for_and_nothing_else() -> None:
    """Two variables, with the id of the process."""
    spec = StdioSpec(id="exec-1", namespace="k8s.io", stdout="binary:///bin/log")
    assert logger_environment(spec) == {
        "CONTAINER_ID": "exec-1",
        "CONTAINER_NAMESPACE": "k8s.io",
    }


def test_an_unknown_scheme_is_named() -> None:
    """The text is the one that containerd's shim gives, and more."""
    with pytest.raises(InvalidArgumentError, match="unknown STDIO scheme http in stdout"):
        route(stdout="http://x/y")


@pytest.mark.parametrize(
    ("stdin", "stdout", "text"),
    [
        ("", "file://a/b", "absolute path"),
        ("", "binary:", "absolute path"),
        ("", "binary-v2:log", "absolute path"),
        ("fifo://x", "/out", "absolute path"),
        ("", "x://[", "is not a URL"),
        ("", "binary:///x%00y", "stdout .* has a NUL"),
        ("/a\0b", "/out", "stdin .* has a NUL"),
    ],
)
def test_bad_texts_are_refused(stdin: str, stdout: str, text: str) -> None:
    """Each error says what is wrong."""
    with pytest.raises(InvalidArgumentError, match=text):
        route(stdin=stdin, stdout=stdout)
