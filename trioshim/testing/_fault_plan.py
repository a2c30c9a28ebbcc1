"""FaultPlan: puts itself between a shim and its ports, counts the calls, and acts at the planned.

It wraps whatever implements the ports, fakes or the real ones, and changes nothing but the
planned calls.
"""

from __future__ import annotations

import errno
import os
from collections import Counter

import trio

from ..abc import Kernel, Publisher, Runtime
from ..errors import DeadlineExceededError, RuntimeFailedError, UnavailableError
from ._faults import Fault, FaultKind, PortCall
from ._faulty_ports import FaultyKernel, FaultyPublisher, FaultyRuntime
from ._kernel import FakeKernel

__all__ = ["FaultPlan"]


class FaultPlan:
    """Some faults, for one run; without any it only takes notes.

    Its repr is the Python that makes it again.

    Args:
        faults: at different calls.

    Attributes:
        faults: the same.
        calls: what was called, in order: what `every_fault` and `draw_faults` ask for.
        happened: those whose call has come.

    Raises:
        ValueError: two faults at one call.
    """

    def __init__(self, *faults: Fault) -> None:
        self.faults = faults
        self.calls: list[PortCall] = []
        self.happened: list[Fault] = []
        self._at = {(fault.call, fault.nth): fault for fault in faults}
        self._counts: Counter[str] = Counter()
        self._back = -1.0  # when the daemon is back
        self._kernel: Kernel | None = None
        if len(self._at) < len(faults):
            raise ValueError(f"two faults at one call: {', '.join(map(str, faults))}")

    def __repr__(self) -> str:
        return f"FaultPlan({', '.join(map(repr, self.faults))})"

    @property
    def missed(self) -> list[Fault]:
        """Those whose call has not come."""
        return [fault for fault in self.faults if fault not in self.happened]

    # ------------------------------------------------------------ ports

    def kernel(self, kernel: Kernel) -> Kernel:
        """The same, with the faults.

        Raises:
            TypeError: only a `FakeKernel` can reuse a pid when it is asked to.
        """
        if not isinstance(kernel, FakeKernel) and any(
            fault.kind is FaultKind.REUSES for fault in self.faults
        ):
            raise TypeError(f"{type(kernel).__name__} cannot be told to reuse a pid")
        self._kernel = kernel
        return FaultyKernel(kernel, self)

    def runtime(self, runtime: Runtime) -> Runtime:
        """The same, with the faults.  It is given the streams as they are without them."""
        return FaultyRuntime(runtime, self)

    def publisher(self, publisher: Publisher) -> Publisher:
        """The same, with the faults."""
        return FaultyPublisher(publisher, self)

    # ------------------------------------------------------------ for the wrapped ports

    def arrive(self, name: str, about: object) -> Fault | None:
        """A call has come: note it; its fault, if one is planned."""
        self._counts[name] += 1
        call = PortCall(len(self.calls) + 1, name, self._counts[name], str(about))
        self.calls.append(call)
        fault = self._at.get((name, call.nth))
        if fault is not None:
            self.happened.append(fault)
            if fault.kind is FaultKind.AWAY:
                self._back = trio.current_time() + fault.limit
        return fault

    def check_daemon(self) -> None:
        """Raise UnavailableError while the daemon is away."""
        if trio.current_time() < self._back:
            raise UnavailableError("the daemon is away")

    def reuse_pid(self) -> None:
        if isinstance(self._kernel, FakeKernel):
            self._kernel.reuse_pid()

    def befall_at_once(self, fault: Fault | None) -> None:
        """What a fault does to a call that cannot wait."""
        if fault is None:
            return
        if fault.kind is FaultKind.FAILS:
            raise OSError(fault.errno, os.strerror(fault.errno))
        if fault.kind is FaultKind.DIES:
            raise RuntimeFailedError(f"runc {fault.text}", status=137)

    async def befall(self, fault: Fault | None) -> None:
        """What a fault does to a call that can wait."""
        self.befall_at_once(fault)
        if fault is None or fault.kind not in (FaultKind.SLOW, FaultKind.HANGS):
            return
        if fault.kind is FaultKind.HANGS and fault.call == "publisher.publish":
            await trio.sleep_forever()
        await trio.sleep(fault.limit)
        if fault.kind is FaultKind.HANGS:
            if fault.call in ("kernel.mount", "kernel.unmount"):
                raise OSError(errno.ETIMEDOUT, fault.text)
            raise DeadlineExceededError(f"{fault.text}; it was killed")
