"""What can go wrong, told by what the caller can do about it.

One class for each status code that a shim answers.  The class raised in a service is the class
caught in a client: `to_status` and `from_status` are the one seam where classes become numbers
and numbers become classes.  The numbers are those of gRPC, which ttrpc shares.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class Code(IntEnum):
    """The status codes of gRPC and ttrpc."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ShimError(Exception):
    """Base of everything that a shim answers instead of a result.

    Attributes:
        code: the status code sent to the client.
        message: the text sent to the client, without the class suffix.
        details: what tells a program more than the text does: type URL and serialized message.
    """

    code: Code = Code.UNKNOWN
    # containerd's clients tell classes apart by this ending of the text, so it is part of the wire.
    suffix: ClassVar[str] = ""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details: tuple[tuple[str, bytes], ...] = ()

    def __str__(self) -> str:
        return ": ".join(part for part in (self.message, self.suffix) if part)


class InvalidArgumentError(ShimError):
    """The request itself is wrong; sending it again will not help."""

    code = Code.INVALID_ARGUMENT
    suffix = "invalid argument"


class DeadlineExceededError(ShimError):
    """The time for it is over; what was begun may still take effect."""

    code = Code.DEADLINE_EXCEEDED
    suffix = "context deadline exceeded"


class NotFoundError(ShimError):
    """There is no such container, process or cgroup (any more)."""

    code = Code.NOT_FOUND
    suffix = "not found"


class AlreadyExistsError(ShimError):
    """The id is taken."""

    code = Code.ALREADY_EXISTS
    suffix = "already exists"


class ResourceExhaustedError(ShimError):
    """A limit of the protocol or of this process is reached."""

    code = Code.RESOURCE_EXHAUSTED
    suffix = "resource exhausted"


class FailedPreconditionError(ShimError):
    """Not in the state that this call needs."""

    code = Code.FAILED_PRECONDITION
    suffix = "failed precondition"


class UnimplementedError(ShimError):
    """The service, the method or the runtime's part of it does not exist here."""

    code = Code.UNIMPLEMENTED
    suffix = "not implemented"


class InternalError(ShimError):
    """The payload could not be read, or this process is at fault."""

    code = Code.INTERNAL
    suffix = "internal"


class UnavailableError(ShimError):
    """The peer is gone or not there yet; trying again may help."""

    code = Code.UNAVAILABLE
    suffix = "unavailable"


class StatusError(ShimError):
    """A status with no class of its own: UNKNOWN, CANCELLED and the rare ones.

    The state tables of containerd's shims answer UNKNOWN ("cannot start a running process").
    """

    def __init__(self, message: str = "", code: Code = Code.UNKNOWN) -> None:
        super().__init__(message)
        self.code = code


class RuntimeFailedError(ShimError):
    """The runtime's command ended with a failure.

    Attributes:
        argv: the command line.
        status: its exit status (128 + signal number when a signal ended it).
        log: what it said, shortened.
    """

    def __init__(
        self, message: str, *, argv: tuple[str, ...] = (), status: int = 1, log: str = ""
    ) -> None:
        super().__init__(message)
        self.argv = argv
        self.status = status
        self.log = log


_CLASSES: dict[Code, type[ShimError]] = {
    cls.code: cls
    for cls in (
        InvalidArgumentError,
        DeadlineExceededError,
        NotFoundError,
        AlreadyExistsError,
        ResourceExhaustedError,
        FailedPreconditionError,
        UnimplementedError,
        InternalError,
        UnavailableError,
    )
}


def to_status(error: ShimError) -> tuple[int, str]:
    """The code and the text that tell `error` to a client."""
    return int(error.code), str(error)


def from_status(code: int, text: str, details: tuple[tuple[str, bytes], ...] = ()) -> ShimError:
    """The error that a peer's status stands for; the inverse of `to_status`."""
    error = _from_status(code, text)
    error.details = details
    return error


def _from_status(code: int, text: str) -> ShimError:
    try:
        known = Code(code)
    except ValueError:
        known = Code.UNKNOWN
    cls = _CLASSES.get(known)
    if cls is None:
        return StatusError(text, known)
    return cls("" if text == cls.suffix else text.removesuffix(f": {cls.suffix}"))
