"""Defects in the real kernel's children and strangers (`trioshim.linux`)."""

from __future__ import annotations

from .defect import Defect, Kind

__all__ = ["IN_LINUX"]

KERNEL, CHILD = "linux/_kernel.py", "linux/_child.py"

IN_LINUX = [
    Defect(
        name="strangers that ended in a birth are left",
        kind=Kind.WAKE_UP,
        file=KERNEL,
        old="            if not self._births:\n                self._wake.set()\n",
        new="",
        caught_by=("tests/contract/test_kernel.py::test_linux_keeps_the_promises_of_the_port",),
    ),
    Defect(
        name="a stranger is collected inside of a birth",
        kind=Kind.CHECK,
        file=KERNEL,
        old="        while not self._births:\n",
        new="        while True:\n",
        caught_by=("tests/contract/test_kernel.py::test_linux_keeps_the_promises_of_the_port",),
    ),
    Defect(
        name="the reaper collects a child that has an owner",
        kind=Kind.CHECK,
        file=KERNEL,
        old="            if pid is None or pid in self._owned:\n",
        new="            if pid is None:\n",
        caught_by=("tests/contract/test_kernel.py::test_linux_keeps_the_promises_of_the_port",),
    ),
    Defect(
        name="strangers behind an owned zombie are left",
        kind=Kind.WAKE_UP,
        file=KERNEL,
        old="        del self._owned[pid]\n        self._wake.set()\n",
        new="        del self._owned[pid]\n",
        caught_by=("tests/contract/test_kernel.py::test_linux_keeps_the_promises_of_the_port",),
    ),
    Defect(
        name="a group whose leader was collected is killed",
        kind=Kind.CHECK,
        file=KERNEL,
        old="        if self._owned.get(child.pid) is child:\n",
        new="        if child.pid:\n",
        caught_by=(
            "tests/contract/test_kernel.py::test_the_group_of_a_collected_leader_is_left_alone",
        ),
    ),
    Defect(
        name="the pidfd of another's child stays open",
        kind=Kind.CLOSE,
        file=KERNEL,
        old="        os.close(pidfd)\n        raise ProcessLookupError",
        new="        raise ProcessLookupError",
        caught_by=(
            "tests/contract/test_kernel.py::test_a_process_of_another_parent_is_not_adopted",
        ),
    ),
    Defect(
        name="a child without a pidfd runs on",
        kind=Kind.LEAK,
        file=KERNEL,
        old="Nobody could wait for it: end it and leave it to the reaper.\n"
        "            os.killpg(pid, signal.SIGKILL)\n",
        new="\n",
        caught_by=("tests/contract/test_kernel.py::test_without_a_free_fd_nothing_keeps_running",),
    ),
    Defect(
        name="a pid may be adopted outside of a birth",
        kind=Kind.CHECK,
        file=KERNEL,
        old="        if not self._births:\n            raise RuntimeError(",
        new="        if self._births < 0:\n            raise RuntimeError(",
        caught_by=("tests/contract/test_kernel.py::test_linux_keeps_the_promises_of_the_port",),
    ),
    Defect(
        name="a child may have two owners",
        kind=Kind.CHECK,
        file=KERNEL,
        old="        if pid in self._owned:\n            raise RuntimeError("
        'f"process {pid} has an owner already")\n',
        new="",
        caught_by=("tests/contract/test_kernel.py::test_linux_keeps_the_promises_of_the_port",),
    ),
    Defect(
        name="a cancelled mount is left half made",
        kind=Kind.SHIELD,
        file=KERNEL,
        old="_mounts.mount_all, tuple(mounts), target)",
        new="_mounts.mount_all, tuple(mounts), target, abandon_on_cancel=True)",
        caught_by=("tests/unit/test_found.py::test_a_mount_that_has_begun_is_waited_for",),
    ),
    Defect(
        name="a death by signal looks like an exit code",
        kind=Kind.STATUS,
        file=CHILD,
        old="    return 128 + result.si_status\n",
        new="    return result.si_status\n",
        caught_by=("tests/contract/test_kernel.py::test_linux_keeps_the_promises_of_the_port",),
    ),
    Defect(
        name="closing a child does not wake its waiter",
        kind=Kind.WAKE_UP,
        file=CHILD,
        old="        trio.lowlevel.notify_closing(pidfd)\n",
        new="",
        caught_by=("tests/unit/test_found.py::test_letting_go_of_a_child_wakes_its_waiter",),
    ),
    Defect(
        name="the pidfd of a collected child stays open",
        kind=Kind.CLOSE,
        file=CHILD,
        old="        os.close(pidfd)\n",
        new="",
        caught_by=(
            "tests/contract/test_kernel.py::test_nothing_is_left_of_owned_children_and_strangers",
        ),
    ),
    Defect(
        name="only the first waiter gets the exit",
        kind=Kind.CHECK,
        file=CHILD,
        old="        if self._exit is not None:\n            await trio.lowlevel.checkpoint()\n"
        "            return self._exit\n",
        new="",
        caught_by=("tests/contract/test_kernel.py::test_linux_keeps_the_promises_of_the_port",),
    ),
    Defect(
        name="a signal to a collected child says that it was sent",
        kind=Kind.STATUS,
        file=CHILD,
        old='            raise ProcessLookupError(f"process {self._pid} has ended")\n',
        new="            return\n",
        caught_by=("tests/contract/test_kernel.py::test_linux_keeps_the_promises_of_the_port",),
    ),
]
