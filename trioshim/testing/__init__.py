"""Tools for testing shims and other trio programs: no root, no sleeps, one seed for each order.

The names are loaded when they are first used: the plugin for pytest lives in this package, and
is loaded by every run of pytest, which must not pay for trio.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._cancel import Blow as Blow
    from ._cancel import Cancellations as Cancellations
    from ._cancel import cancel_everywhere as cancel_everywhere
    from ._explore import Exploration as Exploration
    from ._explore import explore as explore
    from ._explore import replay as replay
    from ._fault_plan import FaultPlan as FaultPlan
    from ._faults import Fault as Fault
    from ._faults import FaultKind as FaultKind
    from ._faults import PortCall as PortCall
    from ._faults import draw_faults as draw_faults
    from ._faults import every_fault as every_fault
    from ._inside_trio import check_trio as check_trio
    from ._kernel import FakeKernel as FakeKernel
    from ._laws import LawBrokenError as LawBrokenError
    from ._laws import check_event_order as check_event_order
    from ._ledger import LeakError as LeakError
    from ._ledger import Ledger as Ledger
    from ._process import FakeCgroup as FakeCgroup
    from ._process import FakeChild as FakeChild
    from ._process import FakeProcess as FakeProcess
    from ._program import FakeContainer as FakeContainer
    from ._program import Program as Program
    from ._publisher import MemoryPublisher as MemoryPublisher
    from ._publisher import unpack as unpack
    from ._runtime import FakeRuntime as FakeRuntime
    from ._schedules import Trace as Trace
    from ._schedules import run_schedule as run_schedule
    from ._stdio import FakeStdio as FakeStdio
    from ._world import MemoryListener as MemoryListener
    from ._world import World as World
    from ._world import open_shim as open_shim
    from .conformance import CASES as CASES
    from .conformance import Case as Case
    from .conformance import PromiseBrokenError as PromiseBrokenError
    from .conformance import ShimUnderTest as ShimUnderTest
    from .conformance import check_task_service as check_task_service

_NAMES = {
    "_cancel": ("Blow", "Cancellations", "cancel_everywhere"),
    "conformance": ("CASES", "Case", "PromiseBrokenError", "ShimUnderTest", "check_task_service"),
    "_explore": ("Exploration", "explore", "replay"),
    "_fault_plan": ("FaultPlan",),
    "_faults": ("Fault", "FaultKind", "PortCall", "draw_faults", "every_fault"),
    "_inside_trio": ("check_trio",),
    "_kernel": ("FakeKernel",),
    "_laws": ("LawBrokenError", "check_event_order"),
    "_ledger": ("LeakError", "Ledger"),
    "_process": ("FakeCgroup", "FakeChild", "FakeProcess"),
    "_program": ("FakeContainer", "Program"),
    "_publisher": ("MemoryPublisher", "unpack"),
    "_runtime": ("FakeRuntime",),
    "_schedules": ("Trace", "run_schedule"),
    "_stdio": ("FakeStdio",),
    "_world": ("MemoryListener", "World", "open_shim"),
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    for module, names in _NAMES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(name for names in _NAMES.values() for name in names)
