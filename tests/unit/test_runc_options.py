"""Options come in four messages from a dozen clients, and none of them can break a shim."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from trioshim.abc import Options
from trioshim.errors import InvalidArgumentError
from trioshim.proto import (
    cri_runtime_options_pb2,
    linux_runc_pb2,
    runc_options_pb2,
    runtime_options_pb2,
)
from trioshim.runc import RuncOptions, parse_options
from trioshim.runc._options import CheckpointOptions, parse_checkpoint_options

RUNC = "containerd.runc.v1.Options"
CHECKPOINT = "containerd.runc.v1.CheckpointOptions"
RUNTIME = "runtimeoptions.v1.Options"


def toml(text: str) -> Options:
    message = runtime_options_pb2.Options(config_body=text.encode())
    return Options(RUNTIME, message.SerializeToString())


def test_runc_options_are_taken_over_field_by_field() -> None:
    """Every field of the dataclass has its twin in containerd.runc.v1.Options."""
    values = {
        "no_pivot_root": True,
        "no_new_keyring": True,
        "shim_cgroup": "/shim",
        "io_uid": 7,
        "io_gid": 8,
        "binary_name": "crun",
        "root": "/run/x",
        "criu_path": "/opt/criu",
        "systemd_cgroup": True,
        "criu_image_path": "/i",
        "criu_work_path": "/w",
    }
    assert {f.name for f in fields(RuncOptions)} == {*values, "notes"}
    message = runc_options_pb2.Options(**values, task_api_version=3)  # type: ignore[arg-type]
    assert parse_options(Options(RUNC, message.SerializeToString())) == RuncOptions(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["", "type.googleapis.com/", "types.containerd.io/", "a/b/"])
def test_only_the_last_part_of_a_type_url_counts(host: str) -> None:
    """Whoever packs the message may put a host in front of its name."""
    value = runc_options_pb2.Options(binary_name="crun").SerializeToString()
    assert parse_options(Options(host + RUNC, value)) == RuncOptions(binary_name="crun")


def test_create_options_of_old_clients_are_understood() -> None:
    """containerd 1.6 and 1.7 send this message to every shim that is not called runc."""
    message = linux_runc_pb2.CreateOptions(
        no_pivot_root=True, open_tcp=True, no_new_keyring=True, io_uid=5, criu_work_path="/w"
    )
    options = Options("containerd.linux.runc.CreateOptions", message.SerializeToString())
    assert parse_options(options) == RuncOptions(
        no_pivot_root=True, no_new_keyring=True, io_uid=5, criu_work_path="/w"
    )


@pytest.mark.parametrize("type_url", ["", RUNC, RUNTIME, "x/y", "containerd.linux.runc.Wrong"])
def test_no_value_means_defaults(type_url: str) -> None:
    """An Any without a value is no options, whatever its type."""
    parsed = parse_options(Options(type_url))
    assert parsed == RuncOptions()
    assert parsed.notes == ()


def test_unknown_types_mean_defaults_and_a_note() -> None:
    """The Go shims crash here; we go on and say so."""
    parsed = parse_options(Options("example.com/my.Options", b"\xff\xff\xff"))
    assert parsed == RuncOptions()
    assert "my.Options" in parsed.notes[0]


@pytest.mark.parametrize(
    "name",
    [
        RUNC,
        RUNTIME,
        "containerd.linux.runc.CreateOptions",
        "cri.runtimeoptions.v1.Options",
    ],
)
def test_known_messages_that_are_broken_are_refused(name: str) -> None:
    """Guessing would run the container in another way than was asked for."""
    with pytest.raises(InvalidArgumentError, match=f"no {name} message"):
        parse_options(Options(name, b"\x0a\xff"))


def test_cri_options_in_toml_are_understood() -> None:
    """The kubelet's way: a table of containerd's configuration, sent as text."""
    options = toml(
        'TypeUrl = "x"\nBinaryName = "crun"\nRoot = "/run/x"\nSystemdCgroup = true\n'
        "NoPivotRoot = true\nNoNewKeyring = true\nIoUid = 3\nIoGid = 4\n"
        'ShimCgroup = "/s"\nCriuPath = "/c"\nCriuImagePath = "/i"\nCriuWorkPath = "/w"\n'
    )
    parsed = parse_options(options)
    assert parsed == RuncOptions(
        no_pivot_root=True,
        no_new_keyring=True,
        shim_cgroup="/s",
        io_uid=3,
        io_gid=4,
        binary_name="crun",
        root="/run/x",
        criu_path="/c",
        systemd_cgroup=True,
        criu_image_path="/i",
        criu_work_path="/w",
    )
    assert parsed.notes == ()


def test_toml_that_is_not_ours_is_noted_and_left_out() -> None:
    """One odd key does not cost the others."""
    parsed = parse_options(
        toml('BinaryName = 5\nSystemdCgroup = 1\nIoUid = -1\nRoot = "/r"\n[Debug]\nx = 1\n')
    )
    assert parsed == RuncOptions(root="/r")
    assert [note.split()[2] for note in parsed.notes] == [
        "BinaryName",
        "SystemdCgroup",
        "IoUid",
        "Debug",
    ]


@pytest.mark.parametrize("text", ["= nonsense", "a = " + "[" * 5000])
def test_text_that_is_no_toml_is_noted(text: str) -> None:
    """Another runtime's configuration may be in any language."""
    parsed = parse_options(toml(text))
    assert parsed == RuncOptions()
    assert "config_body are ignored" in parsed.notes[0]


@pytest.mark.parametrize(
    "message",
    [runtime_options_pb2.Options, cri_runtime_options_pb2.Options],
)
def test_a_file_of_options_is_read(
    tmp_path: Path,
    message: type[runtime_options_pb2.Options] | type[cri_runtime_options_pb2.Options],
) -> None:
    """`ctr --runtime-config-path` and CRI's ConfigPath name a file."""
    file = tmp_path / "o.toml"
    file.write_text('BinaryName = "crun"')
    name = message.DESCRIPTOR.full_name
    options = Options(name, message(config_path=str(file)).SerializeToString())
    assert parse_options(options) == RuncOptions(binary_name="crun")


def test_a_file_that_cannot_be_read_is_noted() -> None:
    """The note names the file."""
    value = runtime_options_pb2.Options(config_path="/no/such.toml").SerializeToString()
    parsed = parse_options(Options(RUNTIME, value))
    assert parsed == RuncOptions()
    assert "/no/such.toml" in parsed.notes[0]


def test_the_text_beats_the_file() -> None:
    """containerd sends the text only where no file is set; both means the text is newer."""
    message = runtime_options_pb2.Options(config_path="/no", config_body=b'Root = "/r"')
    assert parse_options(Options(RUNTIME, message.SerializeToString())) == RuncOptions(root="/r")


def test_options_json_is_what_go_would_write() -> None:
    """Names of the message in its order, defaults left out, no notes."""
    options = RuncOptions(systemd_cgroup=True, binary_name="crun", io_uid=1, notes=("n",))
    assert options.to_json() == b'{"io_uid":1,"binary_name":"crun","systemd_cgroup":true}'
    assert json.loads(RuncOptions().to_json()) == {}


def test_checkpoint_options_are_taken_over_field_by_field() -> None:
    """Every field but the two that are the daemon's."""
    values = {
        "exit": True,
        "open_tcp": True,
        "external_unix_sockets": True,
        "terminal": True,
        "file_locks": True,
        "empty_namespaces": ("network",),
        "work_path": "/w",
        "parent_path": "../p",
    }
    assert {f.name for f in fields(CheckpointOptions)} == {*values, "notes"}
    message = runc_options_pb2.CheckpointOptions(**values)  # type: ignore[arg-type]
    options = Options("h/" + CHECKPOINT, message.SerializeToString())
    assert parse_checkpoint_options(options) == CheckpointOptions(**values)  # type: ignore[arg-type]


def test_checkpoint_options_of_another_type_mean_defaults() -> None:
    """No options at all made the Go shim crash; a strange type is only noted."""
    assert parse_checkpoint_options(Options()) == CheckpointOptions()
    parsed = parse_checkpoint_options(Options(RUNC, b"\x08\x01"))
    assert parsed == CheckpointOptions()
    assert parsed.notes


def test_broken_checkpoint_options_are_refused() -> None:
    """Stopping a container that should run on, or the reverse, is not a guess to make."""
    with pytest.raises(InvalidArgumentError):
        parse_checkpoint_options(Options(CHECKPOINT, b"\x0a\xff"))
