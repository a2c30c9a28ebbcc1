"""Lives of containers as a daemon asks for them: what `fault_runs` puts faults into."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from google.protobuf.any_pb2 import Any

from tests.sim import requests as ask
from trioshim.client import TaskClient
from trioshim.proto import task_v2_pb2 as api
from trioshim.testing import Program

__all__ = ["LIVES", "Aside", "Life", "Step"]

Step = Callable[[TaskClient], Awaitable[object]]
FOREVER = Program(after=None)


def start(id_: str = "c1", exec_id: str = "") -> Step:
    return lambda shim: shim.start(ask.start(id_, exec_id))


def create(id_: str = "c1", **more: object) -> Step:
    return lambda shim: shim.create(ask.create(id_, **more))


def add(exec_id: str, id_: str = "c1", *, terminal: bool = False) -> Step:
    request = ask.exec_(id_, exec_id)
    request.terminal = terminal
    return lambda shim: shim.exec(request)


def kill(id_: str = "c1", exec_id: str = "") -> Step:
    return lambda shim: shim.kill(ask.kill(id_, exec_id))


def wait(id_: str = "c1", exec_id: str = "") -> Step:
    return lambda shim: shim.wait(ask.wait(id_, exec_id))


def delete(id_: str = "c1", exec_id: str = "") -> Step:
    return lambda shim: shim.delete(ask.delete(id_, exec_id))


def resize(exec_id: str = "") -> Step:
    request = api.ResizePtyRequest(id="c1", exec_id=exec_id, width=80, height=24)
    return lambda shim: shim.resize_pty(request)


def close_io(exec_id: str = "") -> Step:
    return lambda shim: shim.close_io(api.CloseIORequest(id="c1", exec_id=exec_id, stdin=True))


PIDS: Step = lambda shim: shim.pids(api.PidsRequest(id="c1"))  # noqa: E731
STATS: Step = lambda shim: shim.stats(api.StatsRequest(id="c1"))  # noqa: E731
PAUSE: Step = lambda shim: shim.pause(api.PauseRequest(id="c1"))  # noqa: E731
RESUME: Step = lambda shim: shim.resume(api.ResumeRequest(id="c1"))  # noqa: E731
CHECKPOINT: Step = lambda shim: shim.checkpoint(api.CheckpointTaskRequest(id="c1"))  # noqa: E731
UPDATE: Step = lambda shim: shim.update(  # noqa: E731
    api.UpdateTaskRequest(id="c1", resources=Any(value=b"{}"))
)


@dataclass(frozen=True)
class Aside:
    """What is asked meanwhile, and must be answered before the end."""

    step: Step


@dataclass(frozen=True)
class Life:
    """What is asked of one container after the other, or of two at a time.

    Attributes:
        steps: of c1, in order.
        beside: of another one, at the same time.
        programs: by exec id; "" for the inits of all but the container that must not notice.
        may_be_refused: number of the step that may be, without faults too.
    """

    steps: tuple[Step | Aside, ...]
    beside: tuple[Step | Aside, ...] = ()
    programs: dict[str, Program] = field(default_factory=dict)
    shared_pid_namespace: bool = False
    pid_max: int = 32768
    may_be_refused: int = -1

    def program(self, id_: str, exec_id: str) -> Program:
        return FOREVER if id_ == "other" else self.programs.get(exec_id, FOREVER)


_E1 = (add("e1"), Aside(wait(exec_id="e1")), start(exec_id="e1"))
_E1_ENDS = (kill(exec_id="e1"), wait(exec_id="e1"), delete(exec_id="e1"))
_END = (kill(), wait(), delete())

LIVES = {
    "everything": Life(
        (
            *(create(), start(), *_E1, PIDS, STATS, PAUSE, RESUME, UPDATE, CHECKPOINT),
            *(*_E1_ENDS, add("e2"), start(exec_id="e2"), kill(), wait()),
            *(wait(exec_id="e2"), delete(exec_id="e2"), delete()),
        )
    ),
    "restore": Life((create(checkpoint="/image"), start(), PIDS, STATS, *_E1, *_END)),
    "terminal": Life(
        (
            *(create(terminal=True), resize(), start(), add("e1", terminal=True), resize("e1")),
            *(start(exec_id="e1"), resize("e1"), close_io("e1"), *_E1_ENDS, close_io(), *_END),
        )
    ),
    "side by side": Life(
        (create(), start(), *_E1, PIDS, *_E1_ENDS, *_END),
        beside=(
            *(create("c2"), start("c2"), add("e1", "c2"), start("c2", "e1")),
            *(kill("c2"), wait("c2", "e1"), wait("c2"), delete("c2")),
        ),
    ),
    "shared namespace": Life(
        (
            *(create(), start(), *_E1, PIDS, kill(), wait(exec_id="e1"), wait()),
            *(delete(exec_id="e1"), delete()),
        ),
        programs={"e1": Program(after=None, lingers=0.3)},
        shared_pid_namespace=True,
    ),
    "out of memory": Life(
        (create(), start(), STATS, wait(), PIDS, delete()),
        programs={"": Program(after=1, out_of_memory=True)},
    ),
    "dies in create": Life(
        (create(), start(), wait(), delete()),
        programs={"": Program(status=1, dies="create")},
        may_be_refused=1,
    ),
    "ends at once": Life(
        (create(), start(), wait(), PIDS, delete()),
        programs={"": Program(status=3, dies="start")},
    ),
    "pids come again": Life(
        (
            *(create(), start(), *_E1, *_E1_ENDS, add("e2"), start(exec_id="e2"), PIDS),
            *(kill(exec_id="e2"), wait(exec_id="e2"), *_E1, PIDS, *_END),
        ),
        pid_max=4,  # 2 to 4: one for the container beside it, one for init, one for an exec
    ),
    "never started": Life((create(), add("e1"), delete())),
    "paused to the end": Life((create(), start(), *_E1, PAUSE, *_END)),
}
