"""The generated messages say on the wire what containerd understands.

The tables are written by hand from containerd's published numbers, not from `protos/`: a slip
in one of the two shows here.  A field is `number name type`; a type that is left out is the
default of its table; a name without a dot lives in the table's own package.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf import descriptor_pb2

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "generate_protos.py"
ALIASES = {"TS": "google.protobuf.Timestamp", "ANY": "google.protobuf.Any"}
EMPTY = "google.protobuf.Empty"


@dataclass(frozen=True, slots=True)
class Table:
    """The messages of one module, one a line: `Name: fields`."""

    module: str
    package: str
    text: str
    default: str = "string"


TASK = """
CreateTaskRequest: 1 id; 2 bundle; 3 rootfs rep containerd.types.Mount; 4 terminal bool; 5 stdin;
    6 stdout; 7 stderr; 8 checkpoint; 9 parent_checkpoint; 10 options ANY
CreateTaskResponse: 1 pid uint32
StartRequest: 1 id; 2 exec_id
StartResponse: 1 pid uint32
DeleteRequest: 1 id; 2 exec_id
DeleteResponse: 1 pid uint32; 2 exit_status uint32; 3 exited_at TS
ExecProcessRequest: 1 id; 2 exec_id; 3 terminal bool; 4 stdin; 5 stdout; 6 stderr; 7 spec ANY
ExecProcessResponse:
ResizePtyRequest: 1 id; 2 exec_id; 3 width uint32; 4 height uint32
StateRequest: 1 id; 2 exec_id
StateResponse: 1 id; 2 bundle; 3 pid uint32; 4 status containerd.v1.types.Status; 5 stdin;
    6 stdout; 7 stderr; 8 terminal bool; 9 exit_status uint32; 10 exited_at TS; 11 exec_id
KillRequest: 1 id; 2 exec_id; 3 signal uint32; 4 all bool
CloseIORequest: 1 id; 2 exec_id; 3 stdin bool
PidsRequest: 1 id
PidsResponse: 1 processes rep containerd.v1.types.ProcessInfo
CheckpointTaskRequest: 1 id; 2 path; 3 options ANY
UpdateTaskRequest: 1 id; 2 resources ANY; 3 annotations map<string,string>
WaitRequest: 1 id; 2 exec_id
WaitResponse: 1 exit_status uint32; 2 exited_at TS
StatsRequest: 1 id
StatsResponse: 1 stats ANY
ConnectRequest: 1 id
ConnectResponse: 1 shim_pid uint32; 2 task_pid uint32; 3 version
ShutdownRequest: 1 id; 2 now bool
PauseRequest: 1 id
ResumeRequest: 1 id
"""

TTRPC = """
Request: 1 service; 2 method; 3 payload bytes; 4 timeout_nano int64; 5 metadata rep KeyValue
KeyValue: 1 key; 2 value
Response: 1 status Status; 2 payload bytes
Status: 1 code int32; 2 message; 3 details rep ANY
"""

TYPES = """
Mount: 1 type; 2 source; 3 target; 4 options rep string
Envelope: 1 timestamp TS; 2 namespace; 3 topic; 4 event ANY
Metric: 1 timestamp TS; 2 id; 3 data ANY
Platform: 1 os; 2 architecture; 3 variant; 4 os_version; 5 os_features rep string
RuntimeRequest: 1 runtime_path; 2 options ANY
RuntimeVersion: 1 version; 2 revision
RuntimeInfo: 1 name; 2 version RuntimeVersion; 3 options ANY; 4 features ANY;
    5 annotations map<string,string>
"""

TASK_TYPES = """
ProcessInfo: 1 pid uint32; 2 info ANY
Process: 1 container_id; 2 id; 3 pid uint32; 4 status Status; 5 stdin; 6 stdout; 7 stderr;
    8 terminal bool; 9 exit_status uint32; 10 exited_at TS
"""

EVENTS = """
TaskCreate: 1 container_id; 2 bundle; 3 rootfs rep containerd.types.Mount; 4 io TaskIO;
    5 checkpoint; 6 pid uint32
TaskIO: 1 stdin; 2 stdout; 3 stderr; 4 terminal bool
TaskStart: 1 container_id; 2 pid uint32
TaskDelete: 1 container_id; 2 pid uint32; 3 exit_status uint32; 4 exited_at TS; 5 id
TaskExit: 1 container_id; 2 id; 3 pid uint32; 4 exit_status uint32; 5 exited_at TS
TaskOOM: 1 container_id
TaskExecAdded: 1 container_id; 2 exec_id
TaskExecStarted: 1 container_id; 2 exec_id; 3 pid uint32
TaskPaused: 1 container_id
TaskResumed: 1 container_id
TaskCheckpointed: 1 container_id; 2 checkpoint
"""

RUNC = """
Options: 1 no_pivot_root bool; 2 no_new_keyring bool; 3 shim_cgroup; 4 io_uid uint32;
    5 io_gid uint32; 6 binary_name; 7 root; 8 criu_path; 9 systemd_cgroup bool;
    10 criu_image_path; 11 criu_work_path; 12 task_api_address; 13 task_api_version uint32
CheckpointOptions: 1 exit bool; 2 open_tcp bool; 3 external_unix_sockets bool; 4 terminal bool;
    5 file_locks bool; 6 empty_namespaces rep string; 7 cgroups_mode; 8 image_path; 9 work_path;
    10 parent_path
ProcessDetails: 1 exec_id
"""

LINUX_RUNC = """
CreateOptions: 1 no_pivot_root bool; 2 open_tcp bool; 3 external_unix_sockets bool;
    4 terminal bool; 5 file_locks bool; 6 empty_namespaces rep string; 7 cgroups_mode;
    8 no_new_keyring bool; 9 shim_cgroup; 10 io_uid uint32; 11 io_gid uint32;
    12 criu_work_path; 13 criu_image_path
"""

RUNTIME_OPTIONS = "Options: 1 type_url; 2 config_path; 3 config_body bytes"

BOOTSTRAP = """
BootstrapParams: 1 instance_id; 2 namespace; 3 log_level LogLevel; 4 containerd_version;
    5 containerd_ttrpc_address; 6 containerd_grpc_address; 7 containerd_binary;
    8 extensions rep Extension; 9 socket_dir optional string
Extension: 1 value ANY
BootstrapResult: 1 version int32; 2 address; 3 protocol; 4 capabilities rep Capability;
    5 metadata map<string,string>
"""

SAME_IN_BOTH_CGROUPS = """\
RdmaStat: 1 current rep RdmaEntry; 2 limit rep RdmaEntry
RdmaEntry: 1 device string; 2 hca_handles uint32; 3 hca_objects uint32
NetworkStat: 1 name string; 2 rx_bytes; 3 rx_packets; 4 rx_errors; 5 rx_dropped; 6 tx_bytes;
    7 tx_packets; 8 tx_errors; 9 tx_dropped
PidsStat: 1 current; 2 limit
"""

CGROUPS_V1 = f"""
Metrics: 1 hugetlb rep HugetlbStat; 2 pids PidsStat; 3 cpu CPUStat; 4 memory MemoryStat;
    5 blkio BlkIOStat; 6 rdma RdmaStat; 7 network rep NetworkStat; 8 cgroup_stats CgroupStats;
    9 memory_oom_control MemoryOomControl
HugetlbStat: 1 usage; 2 max; 3 failcnt; 4 pagesize string
CPUStat: 1 usage CPUUsage; 2 throttling Throttle
CPUUsage: 1 total; 2 kernel; 3 user; 4 per_cpu rep uint64
Throttle: 1 periods; 2 throttled_periods; 3 throttled_time
MemoryStat: 1 cache; 2 rss; 3 rss_huge; 4 mapped_file; 5 dirty; 6 writeback; 7 pg_pg_in;
    8 pg_pg_out; 9 pg_fault; 10 pg_maj_fault; 11 inactive_anon; 12 active_anon;
    13 inactive_file; 14 active_file; 15 unevictable; 16 hierarchical_memory_limit;
    17 hierarchical_swap_limit; 18 total_cache; 19 total_rss; 20 total_rss_huge;
    21 total_mapped_file; 22 total_dirty; 23 total_writeback; 24 total_pg_pg_in;
    25 total_pg_pg_out; 26 total_pg_fault; 27 total_pg_maj_fault; 28 total_inactive_anon;
    29 total_active_anon; 30 total_inactive_file; 31 total_active_file; 32 total_unevictable;
    33 usage MemoryEntry; 34 swap MemoryEntry; 35 kernel MemoryEntry; 36 kernel_tcp MemoryEntry
MemoryEntry: 1 limit; 2 usage; 3 max; 4 failcnt
MemoryOomControl: 1 oom_kill_disable; 2 under_oom; 3 oom_kill
BlkIOStat: 1 io_service_bytes_recursive rep BlkIOEntry; 2 io_serviced_recursive rep BlkIOEntry;
    3 io_queued_recursive rep BlkIOEntry; 4 io_service_time_recursive rep BlkIOEntry;
    5 io_wait_time_recursive rep BlkIOEntry; 6 io_merged_recursive rep BlkIOEntry;
    7 io_time_recursive rep BlkIOEntry; 8 sectors_recursive rep BlkIOEntry
BlkIOEntry: 1 op string; 2 device string; 3 major; 4 minor; 5 value
CgroupStats: 1 nr_sleeping; 2 nr_running; 3 nr_stopped; 4 nr_uninterruptible; 5 nr_io_wait
{SAME_IN_BOTH_CGROUPS}"""

CGROUPS_V2 = f"""
Metrics: 1 pids PidsStat; 2 cpu CPUStat; 4 memory MemoryStat; 5 rdma RdmaStat; 6 io IOStat;
    7 hugetlb rep HugeTlbStat; 8 memory_events MemoryEvents; 9 network rep NetworkStat
PSIData: 1 avg10 double; 2 avg60 double; 3 avg300 double; 4 total
PSIStats: 1 some PSIData; 2 full PSIData
CPUStat: 1 usage_usec; 2 user_usec; 3 system_usec; 4 nr_periods; 5 nr_throttled;
    6 throttled_usec; 7 psi PSIStats; 8 nr_bursts; 9 burst_usec
MemoryStat: 1 anon; 2 file; 3 kernel_stack; 4 slab; 5 sock; 6 shmem; 7 file_mapped; 8 file_dirty;
    9 file_writeback; 10 anon_thp; 11 inactive_anon; 12 active_anon; 13 inactive_file;
    14 active_file; 15 unevictable; 16 slab_reclaimable; 17 slab_unreclaimable; 18 pgfault;
    19 pgmajfault; 20 workingset_refault; 21 workingset_activate; 22 workingset_nodereclaim;
    23 pgrefill; 24 pgscan; 25 pgsteal; 26 pgactivate; 27 pgdeactivate; 28 pglazyfree;
    29 pglazyfreed; 30 thp_fault_alloc; 31 thp_collapse_alloc; 32 usage; 33 usage_limit;
    34 swap_usage; 35 swap_limit; 36 max_usage; 37 swap_max_usage; 38 psi PSIStats;
    39 workingset_refault_anon; 40 workingset_refault_file; 41 workingset_activate_anon;
    42 workingset_activate_file
MemoryEvents: 1 low; 2 high; 3 max; 4 oom; 5 oom_kill; 6 oom_group_kill
IOStat: 1 usage rep IOEntry; 2 psi PSIStats
IOEntry: 1 major; 2 minor; 3 rbytes; 4 wbytes; 5 rios; 6 wios
HugeTlbStat: 1 current; 2 max; 3 pagesize string; 4 failcnt
{SAME_IN_BOTH_CGROUPS}"""

TABLES = (
    Table("ttrpc", "ttrpc", TTRPC),
    Table("types", "containerd.types", TYPES),
    Table("task_types", "containerd.v1.types", TASK_TYPES),
    Table("task_v2", "containerd.task.v2", TASK),
    Table("task_v3", "containerd.task.v3", TASK),
    Table("events", "containerd.events", EVENTS),
    Table(
        "events_service",
        "containerd.services.events.ttrpc.v1",
        "ForwardRequest: 1 envelope containerd.types.Envelope",
    ),
    Table("runc_options", "containerd.runc.v1", RUNC),
    Table("runtime_options", "runtimeoptions.v1", RUNTIME_OPTIONS),
    Table("cri_runtime_options", "cri.runtimeoptions.v1", RUNTIME_OPTIONS),
    Table("linux_runc", "containerd.linux.runc", LINUX_RUNC),
    Table("cgroups_v1", "io.containerd.cgroups.v1", CGROUPS_V1, default="uint64"),
    Table("cgroups_v2", "io.containerd.cgroups.v2", CGROUPS_V2, default="uint64"),
    Table("bootstrap", "containerd.runtime.bootstrap.v1", BOOTSTRAP),
)

METHODS = {
    "State": ("StateRequest", "StateResponse"),
    "Create": ("CreateTaskRequest", "CreateTaskResponse"),
    "Start": ("StartRequest", "StartResponse"),
    "Delete": ("DeleteRequest", "DeleteResponse"),
    "Pids": ("PidsRequest", "PidsResponse"),
    "Pause": ("PauseRequest", EMPTY),
    "Resume": ("ResumeRequest", EMPTY),
    "Checkpoint": ("CheckpointTaskRequest", EMPTY),
    "Kill": ("KillRequest", EMPTY),
    "Exec": ("ExecProcessRequest", EMPTY),
    "ResizePty": ("ResizePtyRequest", EMPTY),
    "CloseIO": ("CloseIORequest", EMPTY),
    "Update": ("UpdateTaskRequest", EMPTY),
    "Wait": ("WaitRequest", "WaitResponse"),
    "Stats": ("StatsRequest", "StatsResponse"),
    "Connect": ("ConnectRequest", "ConnectResponse"),
    "Shutdown": ("ShutdownRequest", EMPTY),
}

ENUMS = {
    ("task_types", "Status"): {
        "UNKNOWN": 0,
        "CREATED": 1,
        "RUNNING": 2,
        "STOPPED": 3,
        "PAUSED": 4,
        "PAUSING": 5,
    },
    ("bootstrap", "LogLevel"): {
        "LOG_LEVEL_INFO": 0,
        "LOG_LEVEL_TRACE": -8,
        "LOG_LEVEL_DEBUG": -4,
        "LOG_LEVEL_WARN": 4,
        "LOG_LEVEL_ERROR": 8,
        "LOG_LEVEL_FATAL": 10,
        "LOG_LEVEL_PANIC": 12,
    },
    ("bootstrap", "Capability"): {"CAPABILITY_UNSPECIFIED": 0},
}

Fields = dict[int, tuple[str, str]]  # number to name and type


def _wanted(table: Table) -> dict[str, Fields]:
    messages: dict[str, Fields] = {}
    for line in table.text.strip().replace("\n    ", " ").splitlines():
        name, _, fields = line.partition(":")
        messages[name] = dict(
            _wanted_field(table, field.split(maxsplit=2)) for field in fields.split(";") if field
        )
    return messages


def _wanted_field(table: Table, words: list[str]) -> tuple[int, tuple[str, str]]:
    number, name, kind = [*words, table.default][:3]
    modifier, _, last = kind.rpartition(" ")
    last = ALIASES.get(last, last)
    if last[0].isupper():
        last = f"{table.package}.{last}"
    return int(number), (name, f"{modifier} {last}".strip())


def _proto(module: str) -> descriptor_pb2.FileDescriptorProto:
    proto = descriptor_pb2.FileDescriptorProto()
    _load(module).DESCRIPTOR.CopyToProto(proto)
    return proto


def _load(module: str) -> ModuleType:
    return importlib.import_module(f"trioshim.proto.{module}_pb2")


def _actual(message: descriptor_pb2.DescriptorProto) -> Fields:
    maps = {
        nested.name: "map<{},{}>".format(*(_kind(field) for field in nested.field))
        for nested in message.nested_type
        if nested.options.map_entry
    }
    return {
        field.number: (field.name, maps.get(field.type_name.rpartition(".")[2]) or _kind(field))
        for field in message.field
    }


def _kind(field: descriptor_pb2.FieldDescriptorProto) -> str:
    scalar = descriptor_pb2.FieldDescriptorProto.Type.Name(field.type)
    kind = field.type_name.lstrip(".") or scalar.removeprefix("TYPE_").lower()
    if field.proto3_optional:
        return f"optional {kind}"
    return f"rep {kind}" if field.label == field.LABEL_REPEATED else kind


@pytest.mark.parametrize(
    ("table", "name"),
    [pytest.param(t, name, id=f"{t.module}.{name}") for t in TABLES for name in _wanted(t)],
)
def test_a_message_has_the_numbers_names_and_types_of_containerd(table: Table, name: str) -> None:
    """One wrong number and a field arrives as another, or not at all."""
    messages = {message.name: message for message in _proto(table.module).message_type}
    assert _wanted(table)[name] == _actual(messages[name])


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.module)
def test_a_module_has_one_package_and_no_message_beside_the_table(table: Table) -> None:
    """Full names are what clients look up; a message that the table lacks would go unchecked."""
    proto = _proto(table.module)
    assert proto.package == table.package
    assert _wanted(table).keys() == {message.name for message in proto.message_type}
    assert proto.syntax == "proto3"


def test_every_generated_module_has_a_table() -> None:
    """A new .proto text needs numbers from a second source."""
    generated = SCRIPT.parents[1].joinpath("trioshim", "proto").glob("*_pb2.py")
    assert {table.module for table in TABLES} == {p.stem.removesuffix("_pb2") for p in generated}


@pytest.mark.parametrize(("module", "name"), ENUMS)
def test_an_enum_has_the_numbers_of_containerd(module: str, name: str) -> None:
    """States and log levels travel as numbers."""
    enums = {enum.name: enum for enum in _proto(module).enum_type}
    assert ENUMS[module, name] == {value.name: value.number for value in enums[name].value}


@pytest.mark.parametrize("version", [2, 3])
def test_task_has_the_17_methods_in_both_versions(version: int) -> None:
    """One table serves both: the versions differ in the name of the package only."""
    package = f"containerd.task.v{version}"
    [service] = _proto(f"task_v{version}").service
    assert service.name == "Task"
    assert len(METHODS) == len(service.method) == 17
    for method in service.method:
        kinds = (method.input_type, method.output_type)
        short = tuple(kind.removeprefix(f".{package}.").lstrip(".") for kind in kinds)
        assert METHODS[method.name] == short


def test_events_has_forward_and_nothing_else() -> None:
    """The daemon's side of events over ttrpc."""
    [service] = _proto("events_service").service
    [forward] = service.method
    assert (service.name, forward.name) == ("Events", "Forward")
    assert forward.input_type == ".containerd.services.events.ttrpc.v1.ForwardRequest"
    assert forward.output_type == f".{EMPTY}"
