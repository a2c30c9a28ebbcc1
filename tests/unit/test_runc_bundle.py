"""config.json and exec specs: read shallowly, trusted in nothing."""

import json

import pytest

from trioshim.abc import ExecSpec, StdioSpec
from trioshim.errors import InvalidArgumentError
from trioshim.runc._bundle import Config, json_object, parse_config, process_json


def config(*namespaces: object) -> bytes:
    return json.dumps({"linux": {"namespaces": namespaces}}).encode()


def test_a_new_pid_namespace_is_the_containers_own() -> None:
    """A pid namespace without a path is made for the container."""
    assert parse_config(config({"type": "mount"}, {"type": "pid"})).own_pid_namespace
    assert parse_config(config({"type": "pid", "path": ""})).own_pid_namespace


def test_a_pid_namespace_with_a_path_is_somebody_elses() -> None:
    """A path joins an existing namespace: a pod's, or another container's."""
    assert not parse_config(config({"type": "pid", "path": "/proc/1/ns/pid"})).own_pid_namespace


def test_the_cgroups_path_is_read() -> None:
    """linux.cgroupsPath comes as it stands."""
    text = b'{"linux": {"cgroupsPath": "/a/b", "namespaces": null}}'
    assert parse_config(text) == Config(cgroups_path="/a/b")


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b'{"linux": null}',
        b'{"linux": {"namespaces": "pid", "cgroupsPath": 7}}',
        b'{"linux": {"namespaces": ["pid", 1, null, {"path": "/x"}]}}',
    ],
)
def test_odd_parts_count_as_absent(text: bytes) -> None:
    """A part of the wrong type is no reason to fail: runc will say what is wrong with it."""
    assert parse_config(text) == Config()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "not valid JSON"),
        (b'{"linux": ', "not valid JSON"),
        (b"\xff\xfe\xff", "not valid JSON"),
        (b"[1]", "not list"),
        (b"null", "not NoneType"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_json_object_is_an_error_that_says_so(text: bytes, why: str) -> None:
    """Whatever the bytes, the error is ValueError and tells the reason."""
    with pytest.raises(ValueError, match=why):
        json_object(text)


def test_only_a_private_pid_namespace_spares_the_kill() -> None:
    """The kernel ends a private pid namespace; everything else may have survivors."""
    assert parse_config(config({"type": "pid"})).own_pid_namespace
    assert not parse_config(config({"type": "pid", "path": "/proc/1/ns/pid"})).own_pid_namespace
    assert not parse_config(config({"type": "mount"})).own_pid_namespace
    assert not parse_config(b"{}").own_pid_namespace


def test_the_requests_terminal_beats_the_specs() -> None:
    """`terminal` is set from the request, also where the spec says nothing."""
    with_terminal = ExecSpec("e", b'{"args": ["sh"]}', StdioSpec(terminal=True))
    without = ExecSpec("e", b'{"terminal": true}')
    assert json.loads(process_json(with_terminal)) == {"args": ["sh"], "terminal": True}
    assert json.loads(process_json(without)) == {"terminal": False}


def test_unknown_fields_of_a_process_are_kept() -> None:
    """A newer runtime may know fields that we do not, and big numbers stay whole."""
    spec = {"args": ["sh"], "scheduler": {"deadline": 2**64 - 1}, "é": "ü"}
    text = process_json(ExecSpec("e", json.dumps(spec).encode()))
    assert json.loads(text) == {**spec, "terminal": False}


@pytest.mark.parametrize("text", [b"", b"nonsense", b"[]"])
def test_a_process_that_is_no_object_is_refused_by_name(text: bytes) -> None:
    """The error names the exec and says what is expected."""
    with pytest.raises(InvalidArgumentError, match=r"exec e7: .*OCI process object"):
        process_json(ExecSpec("e7", text))
