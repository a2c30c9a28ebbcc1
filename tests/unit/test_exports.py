"""The public names: a new one is a decision, made here."""

from __future__ import annotations

import importlib

import pytest

NAMES = {
    "trioshim": {
        "__version__",
        "abc",
        "client",
        "containers",
        "errors",
        "open_container",
        "rpc",
        "run_container",
        "serve",
        "testing",
        "ttrpc",
    },
    "trioshim.client": {
        "Caller",
        "Event",
        "EventSink",
        "LaunchError",
        "LaunchedShim",
        "TaskClient",
        "Wire",
        "connect",
        "launch",
        "open_caller",
        "open_event_sink",
    },
    "trioshim.containers": {
        "DEVNULL",
        "PIPE",
        "Bind",
        "CompletedContainer",
        "Container",
        "ContainerFailedError",
        "ContainerOptions",
        "ContainerProcess",
        "Image",
        "LaunchError",
        "Stats",
        "Terminal",
        "Tmpfs",
        "open_container",
        "run_container",
        "unpack_image",
    },
    "trioshim.rpc": {
        "Dispatcher",
        "GrpcClient",
        "Method",
        "Server",
        "Service",
        "from_purerpc",
        "instant",
        "open_grpc_client",
        "serve_rpc",
    },
    "trioshim.testing": {
        "Blow",
        "CASES",
        "Cancellations",
        "Case",
        "Exploration",
        "FakeCgroup",
        "FakeChild",
        "FakeContainer",
        "FakeKernel",
        "FakeProcess",
        "FakeRuntime",
        "FakeStdio",
        "Fault",
        "FaultKind",
        "FaultPlan",
        "LawBrokenError",
        "LeakError",
        "Ledger",
        "MemoryListener",
        "MemoryPublisher",
        "PortCall",
        "Program",
        "PromiseBrokenError",
        "ShimUnderTest",
        "Trace",
        "World",
        "cancel_everywhere",
        "check_event_order",
        "check_task_service",
        "check_trio",
        "draw_faults",
        "every_fault",
        "explore",
        "open_shim",
        "replay",
        "run_schedule",
        "unpack",
    },
    "trioshim.ttrpc": {
        "MAX_LENGTH",
        "NEED_DATA",
        "BadFrame",
        "Client",
        "Connection",
        "ConnectionClosed",
        "Data",
        "Event",
        "LocalProtocolError",
        "Mode",
        "NeedData",
        "ProtocolError",
        "RemoteProtocolError",
        "Request",
        "Response",
        "Role",
        "open_client",
        "serve_connection",
    },
}


@pytest.mark.parametrize("module", NAMES)
def test_the_public_names_are_these(module: str) -> None:
    """Nothing is public by accident, and nothing has gone."""
    loaded = importlib.import_module(module)
    public = {name for name in dir(loaded) if not name.startswith("_") or name == "__version__"}
    modules = {name for name in public if type(getattr(loaded, name)).__name__ == "module"}
    if module != "trioshim":
        public -= modules
    assert public - {"annotations", "TYPE_CHECKING"} == NAMES[module]


def test_unknown_names_are_refused() -> None:
    """The lazy package says which name it does not have."""
    package = importlib.import_module("trioshim")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing
