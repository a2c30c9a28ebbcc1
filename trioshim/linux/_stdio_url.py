"""Reads the three texts that a client gives for the standard streams.

Promises: pure, no system call; whatever cannot be understood is an `InvalidArgumentError` that
says which stream and why.

Rules: the scheme of stdout decides for all three streams; a text that begins with "/" is a
path and is used as it stands ("%" and "?" in it mean nothing); only URLs are decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from ..abc import StdioSpec
from ..errors import InvalidArgumentError


class Kind(Enum):
    """What stands at the client's end."""

    NULL = "null"
    FIFO = "fifo"
    FILE = "file"
    BINARY = "binary"


@dataclass(frozen=True, slots=True)
class Route:
    """Where the streams go, ready to be opened.

    Attributes:
        kind: what the outputs are.
        stdin: the path of a fifo, or "".
        stdout, stderr: paths, or ""; empty for a logger, which always gets both.
        argv: the logger's command line.
        strict: the logger must say that it is ready (`binary-v2`).
    """

    kind: Kind
    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    argv: tuple[str, ...] = ()
    strict: bool = False


def parse_route(spec: StdioSpec) -> Route:
    """Where the streams of `spec` go.

    Raises:
        InvalidArgumentError: a scheme that nobody knows, or a bad URL.
    """
    _refuse_nul(spec)
    if not (spec.stdin or spec.stdout or spec.stderr):
        return Route(Kind.NULL)
    stdin = _fifo_path("stdin", spec.stdin)
    url = _split("stdout", spec.stdout)
    match url.scheme:
        case "" | "fifo":
            stdout = _fifo_path("stdout", spec.stdout)
            return Route(Kind.FIFO, stdin, stdout, _fifo_path("stderr", spec.stderr))
        case "file":
            path = _absolute_path(url)
            return Route(Kind.FILE, stdin, path, path if spec.stderr else "")
        case "binary" | "binary-v2":
            argv = (_absolute_path(url), *_arguments(url.query))
            return Route(Kind.BINARY, stdin, argv=argv, strict=url.scheme == "binary-v2")
    raise InvalidArgumentError(
        f"unknown STDIO scheme {url.scheme} in stdout {spec.stdout!r}: "
        "give the path of a fifo, or a file, binary or binary-v2 URL"
    )


def logger_environment(spec: StdioSpec) -> dict[str, str]:
    """The whole environment of a logger; nothing of ours leaks into it."""
    return {"CONTAINER_ID": spec.id, "CONTAINER_NAMESPACE": spec.namespace}


def _refuse_nul(spec: StdioSpec) -> None:
    for name in ("stdin", "stdout", "stderr"):
        text: str = getattr(spec, name)
        if "\0" in (text if text.startswith("/") else unquote(text)):
            raise InvalidArgumentError(f"{name} {text!r} has a NUL byte in it")


def _split(name: str, text: str) -> SplitResult:
    if text.startswith("/"):
        return SplitResult("", "", text, "", "")
    try:
        return urlsplit(text)
    except ValueError as error:
        raise InvalidArgumentError(f"{name} {text!r} is not a URL: {error}") from error


def _fifo_path(name: str, text: str) -> str:
    # A fifo URL is opened under its whole text by containerd's shims, so it never works there.
    url = _split(name, text)
    return _absolute_path(url) if url.scheme == "fifo" else text


def _absolute_path(url: SplitResult) -> str:
    path = unquote(url.path, errors="surrogateescape")
    if url.netloc or not path.startswith("/"):
        raise InvalidArgumentError(
            f"URL {url.geturl()!r} needs an absolute path: {url.scheme}:///path"
        )
    return path


def _arguments(query: str) -> list[str]:
    """Each key and its first value, an empty one too, in the order of the URL."""
    first: dict[str, str] = {}
    pairs = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    for key, value in pairs:
        first.setdefault(key, value)
    return [text for pair in first.items() for text in pair]
