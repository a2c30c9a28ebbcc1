"""What can be cut short: every RPC, with what has to be there before it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from google.protobuf.any_pb2 import Any

from tests.sim import requests as ask
from trioshim.client import TaskClient
from trioshim.proto import task_v2_pb2 as api
from trioshim.testing import Program

Call = Callable[[TaskClient], Awaitable[object]]
FOREVER = Program(after=None)


@dataclass(frozen=True)
class Rpc:
    """One call, and what has to be there before it.

    Attributes:
        until_stopped: what is probed ends with the shim and not with the answer.
    """

    call: Call
    before: tuple[Call, ...] = ()
    program: Program = FOREVER
    until_stopped: bool = False


CREATE: Call = lambda shim: shim.create(ask.create("c1"))  # noqa: E731
START: Call = lambda shim: shim.start(ask.start("c1"))  # noqa: E731
ADD: Call = lambda shim: shim.exec(ask.exec_("c1", "e1"))  # noqa: E731
RUN: Call = lambda shim: shim.start(ask.start("c1", "e1"))  # noqa: E731
PAUSE: Call = lambda shim: shim.pause(api.PauseRequest(id="c1"))  # noqa: E731
KILL: Call = lambda shim: shim.kill(ask.kill("c1"))  # noqa: E731
KILL_EXEC: Call = lambda shim: shim.kill(ask.kill("c1", "e1"))  # noqa: E731
WAIT_EXEC: Call = lambda shim: shim.wait(ask.wait("c1", "e1"))  # noqa: E731
WAIT: Call = lambda shim: shim.wait(ask.wait("c1"))  # noqa: E731
SHUTDOWN: Call = lambda shim: shim.shutdown(ask.shutdown())  # noqa: E731
RUNNING = (CREATE, START)
RESOURCES = Any(value=json.dumps({"pids": {"limit": 9}}).encode())

RPCS = {
    "Create": Rpc(CREATE),
    "Create (restore)": Rpc(lambda s: s.create(ask.create("c1", checkpoint="/image"))),
    "Start": Rpc(START, (CREATE,)),
    "Start (ends at once)": Rpc(START, (CREATE,), Program(status=3, dies="start")),
    "Start (restore)": Rpc(START, (lambda s: s.create(ask.create("c1", checkpoint="/image")),)),
    "Exec": Rpc(ADD, RUNNING),
    "Start (exec)": Rpc(RUN, (*RUNNING, ADD)),
    "Wait": Rpc(WAIT, RUNNING, Program(status=7, after=0.5)),
    "State": Rpc(lambda s: s.state(ask.state("c1")), RUNNING),
    "Pids": Rpc(lambda s: s.pids(api.PidsRequest(id="c1")), RUNNING),
    "Stats": Rpc(lambda s: s.stats(api.StatsRequest(id="c1")), RUNNING),
    "Connect": Rpc(lambda s: s.connect(api.ConnectRequest(id="c1")), RUNNING),
    "Pause": Rpc(PAUSE, RUNNING),
    "Resume": Rpc(lambda s: s.resume(api.ResumeRequest(id="c1")), (*RUNNING, PAUSE)),
    "Kill": Rpc(KILL, RUNNING),
    "Kill (exec)": Rpc(KILL_EXEC, (*RUNNING, ADD, RUN)),
    "ResizePty": Rpc(lambda s: s.resize_pty(api.ResizePtyRequest(id="c1")), RUNNING),
    "CloseIO": Rpc(lambda s: s.close_io(api.CloseIORequest(id="c1")), RUNNING),
    "Update": Rpc(lambda s: s.update(api.UpdateTaskRequest(id="c1", resources=RESOURCES)), RUNNING),
    "Checkpoint": Rpc(lambda s: s.checkpoint(api.CheckpointTaskRequest(id="c1")), RUNNING),
    "Delete": Rpc(lambda s: s.delete(ask.delete("c1")), (*RUNNING, KILL, WAIT)),
    "Delete (never started)": Rpc(lambda s: s.delete(ask.delete("c1")), (CREATE,)),
    "Delete (exec)": Rpc(
        lambda s: s.delete(ask.delete("c1", "e1")),
        (
            *RUNNING,
            ADD,
            RUN,
            lambda s: s.kill(ask.kill("c1", "e1")),
            lambda s: s.wait(ask.wait("c1", "e1")),
        ),
    ),
    "Shutdown": Rpc(SHUTDOWN),
    "Shutdown (until it is done)": Rpc(
        SHUTDOWN, (*RUNNING, KILL, WAIT, lambda s: s.delete(ask.delete("c1"))), until_stopped=True
    ),
}
