"""What every daemon says to `start` and `delete`, and what is understood."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from hypothesis import given
from hypothesis import strategies as st

from trioshim import bootstrap
from trioshim.bootstrap import Arguments, Verb, parse_arguments, read_bootstrap
from trioshim.proto.bootstrap_pb2 import BootstrapParams
from trioshim.proto.linux_runc_pb2 import CreateOptions
from trioshim.proto.runc_options_pb2 import Options as RuncOptions

from .bootstrap_world import (
    COMMON,
    CRI_ANY,
    ID,
    NS,
    OLD_ANY,
    RUNC_ANY,
    SELF,
    SINCE_1_7,
    TTRPC,
    A,
    any_of,
    params,
    with_extension,
)


@dataclass(frozen=True)
class Case:
    """One daemon's way to run `start`."""

    argv: list[str]
    environ: dict[str, str]
    stdin: bytes = b""
    debug: bool = False
    cgroup: str = ""
    version: str = ""
    unknown: tuple[str, ...] = field(default=())


PREFIXED = AnyMessage(
    type_url="type.googleapis.com/containerd.runc.v1.Options",
    value=RuncOptions(shim_cgroup="/shims").SerializeToString(),
)
DAEMONS = {
    "1.3 without options": Case([*COMMON, "start"], TTRPC),
    "1.3 from CRI": Case([*COMMON, "start"], TTRPC, CRI_ANY),
    "1.4 at debug": Case([*COMMON, "-debug", "start"], TTRPC, RUNC_ANY, True, "shims"),
    "1.6": Case([*COMMON, "start"], TTRPC | {"SCHED_CORE": "1"}, RUNC_ANY, cgroup="shims"),
    "1.6 with an old client": Case([*COMMON, "start"], TTRPC, OLD_ANY, cgroup="shims"),
    "1.7": Case([*COMMON, "start"], SINCE_1_7, RUNC_ANY, cgroup="shims"),
    "2.0 to 2.2": Case([*COMMON, "-debug", "start"], SINCE_1_7, RUNC_ANY, True, "shims"),
    "2.3": Case([*COMMON, "start"], SINCE_1_7, params(), version="2.3.4"),
    "2.3 with options": Case(
        [*COMMON, "start"], SINCE_1_7, with_extension(PREFIXED), False, "shims", "2.3.4"
    ),
    "2.3 that logs at debug": Case(
        [*COMMON, "start"], SINCE_1_7, params(log_level=-4), True, "", "2.3.4"
    ),
    "2.3 that logs at trace": Case(
        [*COMMON, "start"], SINCE_1_7, params(log_level=-8), True, "", "2.3.4"
    ),
    "2.3 that logs warnings": Case(
        [*COMMON, "start"], SINCE_1_7, params(log_level=4), False, "", "2.3.4"
    ),
    "a later one with a new flag": Case(
        [*COMMON, "-shiny", "x", "-new=1", "start"],
        SINCE_1_7,
        params(),
        version="2.3.4",
        unknown=("-shiny", "x", "-new=1"),
    ),
}


@pytest.mark.parametrize("daemon", DAEMONS)
def test_every_daemon_is_understood(daemon: str) -> None:
    """Flags, environment and standard input of each daemon give the same facts."""
    case = DAEMONS[daemon]
    arguments = parse_arguments(case.argv)
    bootstrap.check_arguments(arguments)
    told = read_bootstrap(case.stdin, arguments.id, arguments.namespace)
    assert (arguments.verb, arguments.namespace, arguments.id) == (Verb.START, NS, ID)
    assert (arguments.address, arguments.publish_binary) == (A, SELF)
    assert (arguments.debug or told.debug) is case.debug
    assert arguments.unknown == case.unknown
    assert told.daemon_version == case.version
    assert bootstrap.shim_cgroup(told) == case.cgroup
    assert bootstrap.ttrpc_address(case.environ, arguments) == A + ".ttrpc"


# ---------------------------------------------------------------- standard input


def test_params_of_another_container_are_options() -> None:
    """BootstrapParams must repeat id and namespace; else the bytes mean what they always meant."""
    for changes in ({"instance_id": "other"}, {"namespace": "other"}):
        told = read_bootstrap(params(**changes), ID, NS)
        assert told.daemon_version == told.socket_dir == ""


def test_options_that_decode_as_params_stay_options() -> None:
    """An Any's type name sits where BootstrapParams has the id: it does not become one."""
    BootstrapParams.FromString(RUNC_ANY)
    told = read_bootstrap(RUNC_ANY, ID, NS)
    assert told.options == (("containerd.runc.v1.Options", b"\x1a\x06/shims"),)
    assert told.daemon_version == ""


def test_params_that_decode_as_any_stay_params() -> None:
    """And the other way round: the id is no type name."""
    AnyMessage.FromString(params())
    told = read_bootstrap(params(socket_dir="/run/s"), ID, NS)
    assert told.options == ()
    assert (told.socket_dir, told.address, told.ttrpc_address) == ("/run/s", A, A + ".ttrpc")


@given(st.binary(max_size=64))
def test_any_standard_input_is_survived(data: bytes) -> None:
    """Garbage counts as no options; it stops no container."""
    bootstrap.shim_cgroup(read_bootstrap(data, ID, NS))


def test_unreadable_options_count_as_none() -> None:
    """A known type with a broken value is passed over, and the next one is looked at."""
    broken = AnyMessage(type_url="containerd.runc.v1.Options", value=b"\x1a\xff")
    told = read_bootstrap(with_extension(broken, PREFIXED), ID, NS)
    assert bootstrap.shim_cgroup(told) == "shims"


def test_golden_options_are_what_protobuf_writes() -> None:
    """The bytes written by hand above are the real ones."""
    runc = RuncOptions(shim_cgroup="/shims").SerializeToString()
    assert any_of("containerd.runc.v1.Options", runc) == RUNC_ANY
    old = CreateOptions(shim_cgroup="/shims").SerializeToString()
    assert any_of("containerd.linux.runc.CreateOptions", old) == OLD_ANY


def test_the_runtime_binary_comes_from_the_options() -> None:
    """`-info` asks the runtime that the options name."""
    options = RuncOptions(binary_name="crun").SerializeToString()
    assert bootstrap.runtime_binary(any_of("containerd.runc.v1.Options", options)) == "crun"
    assert bootstrap.runtime_binary(any_of("other.Options", options)) == "runc"
    assert bootstrap.runtime_binary(b"") == "runc"


# ---------------------------------------------------------------- addresses and the server


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_address_follows_containerds_rule() -> None:
    """SHA-256 of the joined path of daemon, namespace and id, under /run/containerd/s."""
    expected = digest(f"{A}/{NS}/{ID}")
    assert bootstrap.socket_address(A, NS, ID) == f"unix:///run/containerd/s/{expected}"
    assert bootstrap.socket_address(A, NS, ID, "/x//y/") == f"unix:///x/y/{expected}"


@pytest.mark.parametrize(
    "address", ["//run//containerd/containerd.sock", "/run/x/../containerd/./containerd.sock/"]
)
def test_the_address_is_joined_as_go_joins_paths(address: str) -> None:
    """Doubled slashes and dots do not make another shim."""
    assert bootstrap.socket_address(address, NS, ID) == bootstrap.socket_address(A, NS, ID)


def test_an_empty_daemon_address_is_left_out() -> None:
    """As Go's path join does."""
    assert bootstrap.socket_address("", NS, ID).endswith("/" + digest(f"{NS}/{ID}"))


def test_the_longest_directory_of_containerd_fits() -> None:
    """containerd 2.3 allows 42 characters; one more is refused with an explanation."""
    address = bootstrap.socket_address(A, NS, ID, "/" + "d" * 41)
    assert len(bootstrap.plain_path(address)) == 107
    with pytest.raises(ValueError, match="108 bytes, at most 107"):
        bootstrap.socket_address(A, NS, ID, "/" + "d" * 42)


def test_a_relative_socket_directory_is_refused() -> None:
    """It would depend on the bundle."""
    with pytest.raises(ValueError, match="must be an absolute path"):
        bootstrap.socket_address(A, NS, ID, "s")


def test_the_ttrpc_address() -> None:
    """From the environment, else from the daemon's address; never with a scheme."""
    arguments = Arguments(address="unix://" + A)
    assert bootstrap.ttrpc_address({}, arguments) == A + ".ttrpc"
    assert bootstrap.ttrpc_address({"TTRPC_ADDRESS": "unix:///t"}, arguments) == "/t"
    assert bootstrap.ttrpc_address({}, Arguments()) == ""


def test_the_server_is_isolated_from_python_variables() -> None:
    """The server's command line is the reference shim's, behind `python -I -m trioshim`."""
    argv = bootstrap.server_argv("/py", Arguments(Verb.START, NS, ID, A, debug=True))
    flags = ["-namespace", NS, "-id", ID, "-address", A, "-debug"]
    assert argv == ["/py", "-I", "-m", "trioshim", *flags]
    again = parse_arguments(argv[4:])
    assert again == Arguments(Verb.SERVE, NS, ID, A, debug=True)


def test_the_server_does_not_speak_to_systemd() -> None:
    """NOTIFY_SOCKET stays behind; the daemon's words win over what fills the gaps."""
    told = read_bootstrap(params(), ID, NS)
    environ = bootstrap.server_environment({"NOTIFY_SOCKET": "/n", "GRPC_ADDRESS": "/own"}, told)
    assert environ == {"GRPC_ADDRESS": "/own", "TTRPC_ADDRESS": A + ".ttrpc"}
