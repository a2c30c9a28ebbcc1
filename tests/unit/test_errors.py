"""Errors on the wire: classes become numbers and texts, and come back as the same classes."""

from __future__ import annotations

import pytest

from trioshim import errors
from trioshim.errors import Code, RuntimeFailedError, ShimError, StatusError, from_status, to_status

# By hand, from the table of containerd's error classes and gRPC's numbers.
CLASSES = {
    "InvalidArgumentError": (3, "invalid argument"),
    "DeadlineExceededError": (4, "context deadline exceeded"),
    "NotFoundError": (5, "not found"),
    "AlreadyExistsError": (6, "already exists"),
    "ResourceExhaustedError": (8, "resource exhausted"),
    "FailedPreconditionError": (9, "failed precondition"),
    "UnimplementedError": (12, "not implemented"),
    "InternalError": (13, "internal"),
    "UnavailableError": (14, "unavailable"),
}
WITHOUT_A_SUFFIX = {"ShimError", "StatusError", "RuntimeFailedError"}


def class_named(name: str) -> type[ShimError]:
    return getattr(errors, name)


def test_these_are_all_classes() -> None:
    """A new one needs its line above."""
    found = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, ShimError)
    }
    assert found == CLASSES.keys() | WITHOUT_A_SUFFIX


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("message", ["container c1", "", "id e1: already", "100% of: it", "ü"])
def test_a_class_goes_over_the_wire_and_comes_back(name: str, message: str) -> None:
    """The same class, the same message, without the suffix that was added for the way."""
    code, suffix = CLASSES[name]
    status, text = to_status(class_named(name)(message))
    assert status == code
    assert text == (f"{message}: {suffix}" if message else suffix)
    back = from_status(status, text)
    assert type(back) is class_named(name)
    assert (back.code, back.message) == (code, message)
    assert str(back) == text


@pytest.mark.parametrize("name", CLASSES)
def test_only_the_last_suffix_is_the_classs(name: str) -> None:
    """A message that ends with the same words keeps them: one suffix is added, one taken off."""
    _, suffix = CLASSES[name]
    message = f"rpc: {suffix}"
    _, text = to_status(class_named(name)(message))
    assert text == f"rpc: {suffix}: {suffix}"
    assert from_status(int(class_named(name).code), text).message == message


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("text", ["something else", ""])
def test_a_peers_text_without_the_suffix_is_kept(name: str, text: str) -> None:
    """Other shims do not always add it; the number decides."""
    back = from_status(CLASSES[name][0], text)
    assert type(back) is class_named(name)
    assert back.message == text


def test_a_suffix_that_is_part_of_the_text_is_kept() -> None:
    """Only ": not found" or a whole "not found" is a suffix; else the text would change."""
    back = from_status(5, "no such file: it was not found")
    assert back.message == "no such file: it was not found"


@pytest.mark.parametrize(
    "code", [code for code in Code if code not in {number for number, _ in CLASSES.values()}]
)
def test_a_code_without_a_class_keeps_its_number(code: Code) -> None:
    """UNKNOWN, CANCELLED and the rare ones: nothing is added to the text."""
    back = from_status(int(code), "why: not found")
    assert type(back) is StatusError
    assert (back.code, back.message, str(back)) == (code, "why: not found", "why: not found")
    assert to_status(back) == (int(code), "why: not found")


@pytest.mark.parametrize("number", [17, 99, -1, 2**31])
def test_an_unknown_code_is_unknown(number: int) -> None:
    """A peer may be newer than we are, or broken."""
    back = from_status(number, "why")
    assert type(back) is StatusError
    assert (back.code, back.message) == (Code.UNKNOWN, "why")


def test_a_failed_runtime_is_unknown_and_tells_its_command() -> None:
    """containerd gives it no class; its text is the runtime's."""
    error = RuntimeFailedError("OCI runtime create failed: x", argv=("runc",), status=1, log="x")
    assert to_status(error) == (2, "OCI runtime create failed: x")
    assert (error.argv, error.status, error.log) == (("runc",), 1, "x")
    assert type(from_status(*to_status(error))) is StatusError


def test_the_numbers_are_those_of_grpc() -> None:
    """All seventeen, without a gap."""
    assert [code.value for code in Code] == list(range(17))
    assert {code.name: code.value for code in Code}["UNAUTHENTICATED"] == 16
