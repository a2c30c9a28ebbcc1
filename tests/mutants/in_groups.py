"""Defects in groups, in what is done beforehand, and in what `delete` is spared."""

from __future__ import annotations

from .defect import Defect, Kind

__all__ = ["IN_GROUPS"]

HATCH = "tests/unit/test_hatch.py"
GROUPS, LAUNCHES = "tests/sim/test_groups.py", "tests/unit/test_client_launch_ends.py"

IN_GROUPS = [
    Defect(
        name="who has joined a group is not waited for",
        kind=Kind.CHECK,
        file="task/_containers.py",
        old="        self._expected[id_] = trio.current_time() + RESERVED\n",
        new="",
        caught_by=(f"{GROUPS}::test_who_has_joined_is_waited_for",),
    ),
    Defect(
        name="a Shutdown is obeyed that did not know of a later container",
        kind=Kind.CHECK,
        file="task/_service.py",
        old="            self._end_wanted = trio.Event()",
        new="            pass",
        caught_by=(f"{GROUPS}::test_a_container_that_comes_takes_the_shutdown_back",),
    ),
    Defect(
        name="the shim of a group ends though somebody has joined at the last moment",
        kind=Kind.ORDER,
        file="shim.py",
        old="            if service.end_wanted:",
        new="            if True:",
        caught_by=(f"{GROUPS}::test_who_was_let_in_is_served_in_every_order",),
    ),
    Defect(
        name="launch takes a shim from a template for somebody else's",
        kind=Kind.CHECK,
        file="client/_shim_process.py",
        old="        return process.began >= self._age or self._token == process.mark\n",
        new="        return process.began >= self._age\n",
        caught_by=(
            f"{LAUNCHES}::test_a_process_that_is_older_than_its_start_is_known_by_its_mark",
        ),
    ),
    Defect(
        name="delete is told that all is removed while it is still mounted",
        kind=Kind.ORDER,
        file="task/_container.py",
        old="            await self._kernel.unmount(self.rootfs)\n            self.init.did(",
        new='            self._note("deletion", RECEIPT, messages.receipt(self.init))\n'
        "            await self._kernel.unmount(self.rootfs)\n            self.init.did(",
        caught_by=("tests/sim/test_life.py::test_there_is_no_receipt_for_what_was_not_removed",),
    ),
    Defect(
        name="a rehearsal leaves files open",
        kind=Kind.CLOSE,
        file="template/_rehearsal.py",
        old="            os.close(fd)\n    finally:\n",
        new="            pass\n    finally:\n",
        caught_by=(
            "tests/unit/test_template_parts.py::test_a_life_that_nobody_needs_leaves_nothing",
        ),
    ),
    Defect(
        name="a spare turns to somebody else with an open hatch",
        kind=Kind.ORDER,
        file="template/_hatch.py",
        old="            os.rmdir(self._place)\n        except FileNotFoundError",
        new="            pass\n        except FileNotFoundError",
        caught_by=(f"{HATCH}::test_a_hatch_that_is_shut_stays_shut",),
    ),
    Defect(
        name="a spare believes whoever writes into its pipe",
        kind=Kind.CHECK,
        file="template/_hatch.py",
        old="        return int(word) if os.path.samestat(found, os.fstat(_ASKED)) else 0\n",
        new="        return int(word)\n",
        caught_by=(f"{HATCH}::test_who_does_not_say_who_it_is_is_not_heard",),
    ),
    Defect(
        name="a spare serves though nobody has heard its address",
        kind=Kind.CHECK,
        file="template/_hatch.py",
        old='        return os.read(_ASKED, 1) == b"\\n"\n',
        new="        return True\n",
        caught_by=(f"{HATCH}::test_who_is_gone_has_not_heard",),
    ),
    Defect(
        name="a signal that came before anybody was there to take it is forgotten",
        kind=Kind.DROPPED,
        file="cli/_ready.py",
        old="            os.kill(os.getpid(), signum)\n",
        new="            pass\n",
        caught_by=("tests/unit/test_cli_ready_signals.py::test_what_nobody_has_taken_is_ours",),
    ),
]
