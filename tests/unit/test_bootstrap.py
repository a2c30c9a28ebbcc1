"""What every daemon says to `start` and `delete`, and what is understood."""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from hypothesis import given
from hypothesis import strategies as st

import trioshim
from trioshim import bootstrap
from trioshim._mountinfo import cgroup_roots, mounts_below
from trioshim._version import __version__
from trioshim.bootstrap import Arguments, Verb, parse_arguments, read_bootstrap
from trioshim.bootstrap._shim_cgroup import join_cgroup
from trioshim.bootstrap._wire import Fields, block_field, integer_field
from trioshim.proto.bootstrap_pb2 import BootstrapParams
from trioshim.proto.linux_runc_pb2 import CreateOptions
from trioshim.proto.runc_options_pb2 import Options as RuncOptions

NS, ID = "k8s.io", "c0ffee"
A = "/run/containerd/containerd.sock"
SELF = "/usr/bin/containerd"
COMMON = ["-namespace", NS, "-address", A, "-publish-binary", SELF, "-id", ID]
TTRPC = {"TTRPC_ADDRESS": A + ".ttrpc", "GOMAXPROCS": "2"}
SINCE_1_7 = TTRPC | {"GRPC_ADDRESS": A, "NAMESPACE": NS, "MAX_SHIM_VERSION": "2"}


def any_of(name: str, value: bytes) -> bytes:
    """A serialized Any, by hand."""
    return block_field(1, name.encode()) + block_field(2, value)


# `shim_cgroup: "/shims"` in the two messages that have it, byte for byte.
RUNC_ANY = b"\x0a\x1acontainerd.runc.v1.Options\x12\x08\x1a\x06/shims"
OLD_ANY = b"\x0a\x23containerd.linux.runc.CreateOptions\x12\x08\x4a\x06/shims"
CRI_ANY = b"\x0a\x1dcri.runtimeoptions.v1.Options\x12\x03\x0a\x01x"


def params(**changes: object) -> bytes:
    """What a 2.3 daemon sends."""
    values: dict[str, object] = {
        "instance_id": ID,
        "namespace": NS,
        "containerd_version": "2.3.4",
        "containerd_ttrpc_address": A + ".ttrpc",
        "containerd_grpc_address": A,
        "containerd_binary": SELF,
        "socket_dir": "/run/containerd/s",
    }
    return BootstrapParams(**(values | changes)).SerializeToString()  # type: ignore[arg-type]


def with_extension(*options: AnyMessage, **changes: object) -> bytes:
    return params(**changes) + b"".join(
        block_field(8, block_field(1, option.SerializeToString())) for option in options
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
    assert arguments[:5] == (Verb.START, NS, ID, A, SELF)
    assert (arguments.debug or told.debug) is case.debug
    assert arguments.unknown == case.unknown
    assert told.daemon_version == case.version
    assert bootstrap.shim_cgroup(told) == case.cgroup
    assert bootstrap.ttrpc_address(case.environ, arguments) == A + ".ttrpc"


# ---------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    "argv",
    [
        ["-id", ID, "-namespace", NS, "-debug"],
        ["--id", ID, "--namespace", NS, "--debug"],
        ["-id=" + ID, "--namespace=" + NS, "-debug=true"],
        ["-debug=1", "-id", "other", "-id", ID, "-namespace", NS, "--"],
    ],
)
def test_flags_are_read_as_go_reads_them(argv: list[str]) -> None:
    """One dash or two, with `=` or a space; the last one counts."""
    assert parse_arguments(argv) == Arguments(Verb.SERVE, NS, ID, debug=True)


def test_a_flag_after_the_action_belongs_to_the_action() -> None:
    """Go stops to read flags at the first word that is none."""
    assert parse_arguments([*COMMON, "delete", "-debug"]) == parse_arguments([*COMMON, "delete"])
    assert parse_arguments([*COMMON, "delete"]).verb is Verb.DELETE


def test_a_value_may_look_like_a_flag_or_an_action() -> None:
    """The word after a flag with a value is the value."""
    arguments = parse_arguments(["-id", "start", "-namespace", "-debug", "-bundle", "/b", "delete"])
    assert (arguments.id, arguments.namespace, arguments.debug) == ("start", "-debug", False)
    assert arguments.bundle == "/b"


@pytest.mark.parametrize(
    ("argv", "verb"),
    [
        (["-v"], Verb.VERSION),
        (["-version"], Verb.VERSION),
        (["-info"], Verb.INFO),
        (["-v=false"], Verb.SERVE),
        (["-unknown", "start"], Verb.START),
        (["-unknown", "-debug", "delete"], Verb.DELETE),
        (["-socket", "/s", "-debug-socket", "/d"], Verb.SERVE),
    ],
)
def test_the_verb_is_found(argv: list[str], verb: Verb) -> None:
    """An action, a flag that is one, or nothing at all; unknown flags do not hide it."""
    assert parse_arguments(argv).verb is verb


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["-id"], "flag -id needs a value"),
        (["-debug=maybe", "start"], "-debug is true or false, not 'maybe'"),
        (["---id", "x"], "bad flag syntax: ---id"),
        (["-=x"], "bad flag syntax: -=x"),
        (["stop"], "unknown action 'stop'"),
        (["-", "start"], "unknown action '-'"),
    ],
)
def test_a_bad_command_line_is_explained(argv: list[str], complaint: str) -> None:
    """The error says which word is wrong."""
    with pytest.raises(ValueError, match=complaint):
        parse_arguments(argv)


def test_arguments_cannot_be_changed() -> None:
    """What was said stays said."""
    with pytest.raises(AttributeError):
        Arguments().id = "x"


@pytest.mark.parametrize("name", ["a", "A9", "a.b-c_d", "0" * 76, "k8s.io", "moby"])
def test_identifiers(name: str) -> None:
    """What containerd calls a container is accepted."""
    bootstrap.check_identifier(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../../x",
        "a/b",
        "a..b",
        ".a",
        "a.",
        "-a",
        "a--b",
        "a b",
        "a\n",
        "é",
        "0" * 77,
        "٣",
    ],
)
@pytest.mark.parametrize("where", ["namespace", "id"])
def test_what_is_no_identifier_is_refused(name: str, where: str) -> None:
    """Neither a path nor a flag can come in as an id or a namespace."""
    arguments = Arguments(Verb.START, NS, ID)._replace(**{where: name})
    with pytest.raises(ValueError, match=rf"shim {where} \(-{where}\)"):
        bootstrap.check_arguments(arguments)


def test_version_and_info_need_no_namespace() -> None:
    """Serving needs no id; these two need nothing."""
    for verb in (Verb.VERSION, Verb.INFO):
        bootstrap.check_arguments(Arguments(verb))
    bootstrap.check_arguments(Arguments(Verb.SERVE, NS))


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


def test_the_shim_cgroup_stays_in_the_hierarchy() -> None:
    """`..` is refused, leading slashes mean nothing."""
    options = RuncOptions(shim_cgroup="/a/../../b").SerializeToString()
    told = read_bootstrap(any_of("containerd.runc.v1.Options", options), ID, NS)
    with pytest.raises(ValueError, match=r"must not contain '\.\.'"):
        bootstrap.shim_cgroup(told)


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


# ---------------------------------------------------------------- the wire


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


# ---------------------------------------------------------------- mounts and cgroups

MOUNTINFO = rb"""22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:26 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw
31 22 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
40 22 0:40 / /b/rootfs rw - overlay overlay rw
41 40 0:41 / /b/rootfs/a\040b rw master:1 - tmpfs tmpfs rw
42 22 0:42 / /b/rootfs rw - tmpfs tmpfs rw
43 42 0:43 / /b/rootfs/c rw - tmpfs tmpfs rw
44 22 0:44 / /b/rootfs2 rw - tmpfs tmpfs rw
"""


def test_mounts_are_found_layer_by_layer() -> None:
    """The last mounted first, each layer once, and no neighbour with a longer name."""
    expected = ["/b/rootfs/c", "/b/rootfs", "/b/rootfs/a b", "/b/rootfs"]
    assert mounts_below(MOUNTINFO, "/b/rootfs") == expected


def test_a_hybrid_host_has_cgroups_of_version_1() -> None:
    """The unified hierarchy of such a host controls nothing."""
    assert cgroup_roots(MOUNTINFO) == (["/sys/fs/cgroup/memory"], True)
    unified = b"30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    assert cgroup_roots(unified) == (["/sys/fs/cgroup"], False)


def test_the_cgroup_is_made_and_joined_everywhere(tmp_path: Path) -> None:
    """One membership in each hierarchy; the way there is made."""
    roots = [tmp_path / "memory", tmp_path / "pids"]
    join_cgroup("a/b", 4711, map(str, roots), legacy=True)
    assert [(root / "a/b/cgroup.procs").read_text() for root in roots] == ["4711", "4711"]


def test_a_new_cpuset_is_filled_before_it_is_joined(tmp_path: Path) -> None:
    """An empty cpuset of version 1 takes no process; one that is filled keeps what it has."""
    inner = tmp_path / "a"
    inner.mkdir()
    for name, outer_text, inner_text in (("cpus", "0-3\n", "\n"), ("mems", "0\n", "1\n")):
        (tmp_path / f"cpuset.{name}").write_text(outer_text)
        (inner / f"cpuset.{name}").write_text(inner_text)
    join_cgroup("a", 1, [str(tmp_path)], legacy=False)
    assert (inner / "cpuset.cpus").read_text() == "\n"
    join_cgroup("a", 1, [str(tmp_path)], legacy=True)
    assert (inner / "cpuset.cpus").read_text() == "0-3\n"
    assert (inner / "cpuset.mems").read_text() == "1\n"


# ---------------------------------------------------------------- the cost of a helper

SLOW = {
    *("trio", "google", "asyncio", "logging", "typing", "dataclasses", "inspect", "subprocess"),
    *("json", "ctypes", "hashlib", "socket", "signal", "contextlib", "importlib.metadata"),
}
PROGRAM = """
import os, sys
sys.path[:0] = {path!r}
sys.executable = "/bin/true"
sys.argv = ["shim", *{argv!r}]
from trioshim.__main__ import main
status = main()
names = "\\n".join(sys.modules).encode()
os.write(os.open({report!r}, os.O_WRONLY | os.O_CREAT), names)
sys.exit(status)
"""


@pytest.fixture
def sockets() -> Iterator[str]:
    """A directory for sockets: pytest's own have names that are too long."""
    with tempfile.TemporaryDirectory(prefix="ts-") as directory:
        yield directory


@pytest.mark.parametrize("verb", ["start", "delete", "-v"])
def test_helpers_import_little(verb: str, tmp_path: Path, sockets: str) -> None:
    """Each import is paid once for each container: the slow ones stay out."""
    argv = [verb] if verb == "-v" else [*COMMON, verb]
    root = str(Path(trioshim.__file__).parent.parent)
    report = tmp_path / "report"
    program = PROGRAM.format(path=[root], argv=argv, report=str(report))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        cwd=tmp_path,
        env={"TRIOSHIM_SOCKET_DIR": sockets, "PATH": "/nowhere"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(report.read_text().split("\n"))
    assert "trioshim.__main__" in loaded
    assert loaded & SLOW == set()


def test_the_version_is_told_once() -> None:
    """The constant and the package's metadata agree."""
    assert importlib.metadata.version("trioshim") == __version__
