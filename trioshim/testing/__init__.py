"""Tools for testing shims and other trio programs: no root, no sleeps, one seed for each order."""

from ._kernel import FakeKernel as FakeKernel
from ._laws import LawBrokenError as LawBrokenError
from ._laws import check_event_order as check_event_order
from ._process import FakeCgroup as FakeCgroup
from ._process import FakeChild as FakeChild
from ._process import FakeProcess as FakeProcess
from ._program import FakeContainer as FakeContainer
from ._program import Program as Program
from ._publisher import MemoryPublisher as MemoryPublisher
from ._publisher import unpack as unpack
from ._runtime import FakeRuntime as FakeRuntime
from ._schedules import Trace as Trace
from ._schedules import check_trio as check_trio
from ._schedules import run_schedule as run_schedule
from ._stdio import FakeStdio as FakeStdio
from ._world import MemoryListener as MemoryListener
from ._world import World as World
from ._world import open_shim as open_shim
