"""What goes over the wire at the start: small protobuf messages, and which wire is to follow.

The small reader of messages agrees with the large one, and refuses what is broken.  gRPC is
announced to who asks for it, if the daemon can speak it; ttrpc to everybody else.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioshim.bootstrap import announced_path, read_bootstrap
from trioshim.bootstrap._dialects import Bootstrap, Wire, announcement, wanted_wire
from trioshim.bootstrap._wire import Fields, block_field, integer_field
from trioshim.proto.bootstrap_pb2 import BootstrapParams

from .bootstrap_world import ID, NS, SINCE_1_7, TTRPC, params

ADDRESS = "unix:///run/containerd/s/0123"
GRPC = {"TRIOSHIM_PROTOCOL": "grpc"}


@given(st.text(), st.text(), st.integers(-(1 << 31), (1 << 31) - 1))
def test_the_reader_agrees_with_protobuf(first: str, second: str, level: int) -> None:
    """Strings and negative enums come out as protobuf put them in."""
    data = BootstrapParams(instance_id=first, socket_dir=second, log_level=level)  # type: ignore[arg-type]
    fields = Fields(data.SerializeToString())
    assert (fields.text(1), fields.text(9), fields.integer(3)) == (first, second, level)


@given(st.integers(0, (1 << 63) - 1), st.binary())
def test_the_writer_agrees_with_the_reader(number: int, block: bytes) -> None:
    """What is written can be read."""
    fields = Fields(integer_field(1, number) + block_field(300, block))
    assert (fields.integer(1), fields.block(300)) == (number, block)


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",
        b"\x0a\x05abc",
        b"\x08",
        b"\x08\x80",
        b"\x08" + b"\xff" * 11,
        b"\x0b",
        b"\x00\x01",
        b"\x0d\1",
    ],
)
def test_broken_messages_are_refused(data: bytes) -> None:
    """Cut short, too long, groups and field 0."""
    with pytest.raises(ValueError, match=r"cut short|longer|wire type|field number"):
        Fields(data)


def test_fixed_width_fields_are_skipped() -> None:
    """Fields of later versions do not stop the reader."""
    assert Fields(b"\x0d\1\2\3\4\x11" + b"\1" * 8 + b"\x1a\1x").text(3) == "x"


# ---------------------------------------------------------------- which wire


@pytest.mark.parametrize("environ", [{}, TTRPC, SINCE_1_7])
@pytest.mark.parametrize("word", [{}, {"TRIOSHIM_PROTOCOL": ""}, {"TRIOSHIM_PROTOCOL": "ttrpc"}])
@pytest.mark.parametrize("told", [Bootstrap(), Bootstrap(daemon_version="2.3.4")])
def test_ttrpc_is_for_everybody(
    environ: dict[str, str], word: dict[str, str], told: Bootstrap
) -> None:
    """On every daemon, unless something else is asked for."""
    assert wanted_wire(environ | word, told) is Wire.TTRPC


def test_grpc_is_for_who_asks() -> None:
    """In the environment that 1.7 gives, and in no other that can be told from it."""
    assert wanted_wire(SINCE_1_7 | GRPC, Bootstrap()) is Wire.GRPC


@pytest.mark.parametrize("word", ["gRPC", "http", " ttrpc", "grpc,ttrpc", "0"])
def test_an_unknown_protocol_is_refused_with_the_choices(word: str) -> None:
    """The line names the variable, what it says, and what it may say."""
    with pytest.raises(ValueError, match=f"TRIOSHIM_PROTOCOL='{word}' .*: choose ttrpc or grpc"):
        wanted_wire(SINCE_1_7 | {"TRIOSHIM_PROTOCOL": word}, Bootstrap())


@pytest.mark.parametrize(
    ("environ", "told", "daemon"),
    [
        (TTRPC, Bootstrap(), "older"),
        (SINCE_1_7, read_bootstrap(params(), ID, NS), "2.3.4"),
    ],
)
def test_grpc_is_refused_where_the_daemon_cannot_speak_it(
    environ: dict[str, str], told: Bootstrap, daemon: str
) -> None:
    """Instead of an answer that 1.6 takes for a socket's name and 2.3 cannot live with."""
    with pytest.raises(ValueError, match=f"1.7 only, and this one is {daemon}: take it out"):
        wanted_wire(environ | GRPC, told)


def test_ttrpc_is_announced_by_the_address_alone() -> None:
    """What every daemon since 1.3.9 understands."""
    assert announcement(ADDRESS, Wire.TTRPC) == ADDRESS


@pytest.mark.parametrize("path", ["/run/containerd/s/0123", '/a"b\\c', "/ä"])
def test_grpc_is_announced_in_json_with_a_bare_path(path: str) -> None:
    """1.7 dials the path as it stands, and knows no gRPC shim of another version than 2."""
    said = json.loads(announcement(f"unix://{path}", Wire.GRPC))
    assert said == {"version": 2, "address": path, "protocol": "grpc"}


@pytest.mark.parametrize("wire", [Wire.TTRPC, Wire.GRPC])
@pytest.mark.parametrize("path", ["/run/containerd/s/0123", '/a"b\\c', "/ä"])
def test_the_path_can_be_read_back(path: str, wire: Wire) -> None:
    """`delete` finds the socket by what `start` has left in the bundle."""
    assert announced_path(announcement(f"unix://{path}", wire)) == path


@pytest.mark.parametrize("wire", [Wire.TTRPC, Wire.GRPC])
def test_a_path_that_is_no_text_cannot_be_announced(wire: Wire) -> None:
    """`start` fails; JSON must not turn it into another path."""
    with pytest.raises(UnicodeEncodeError):
        announcement("unix:///\udcff", wire).encode()


def test_what_another_shim_has_announced_can_be_read() -> None:
    """containerd's own put `unix://` into the JSON of ttrpc."""
    assert announced_path(json.dumps({"version": 3, "address": ADDRESS})) == ADDRESS[7:]
    assert announced_path("/bare") == "/bare"


@pytest.mark.parametrize("text", ["{", "{}", '{"address": 3}', "{]"])
def test_an_announcement_that_is_none_is_refused(text: str) -> None:
    """A ValueError, which `delete` reports, and goes on."""
    with pytest.raises(ValueError, match=r"no address|Expecting"):
        announced_path(text)
