"""What growth and idleness are said to be.  How much it is here and now, is no test."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import _shims, idle
from benchmarks._report import Report, Verdict
from benchmarks.growth import GO, OURS, RUNC, Cost, curve_lines, decades, flat, outbox
from benchmarks.idle import Idleness, Look, bytes_each, exec_slope
from trioshim.linux import LinuxKernel, _cgroup, _mounts

ROUNDS = 200


def cost(figure: float) -> Cost:
    return Cost(create=figure, exec=figure, exit=figure)


# ---------------------------------------------------------------- growth


@pytest.mark.parametrize(
    ("most", "found"), [(1, [1]), (2, [1, 2]), (10, [1, 10]), (500, [1, 10, 100, 500])]
)
def test_a_curve_is_looked_at_in_decades(most: int, found: list[int]) -> None:
    """The first, the tenth, ... and the last, each once."""
    assert decades(most) == found


def test_memory_that_grows_is_seen_by_operation() -> None:
    """Three bytes each."""
    assert bytes_each([(n, 1000 + 3 * n) for n in range(10, 90, 10)]) == pytest.approx(3)


def test_the_first_half_is_to_warm_up() -> None:
    """What was taken then, once, is no slope."""
    assert bytes_each([(1, 0), (2, 5000), (3, 9000), (4, 9000), (5, 9000)]) == 0


def test_one_look_that_is_off_is_no_growth() -> None:
    """A line through all of them, not through the first and the last."""
    looks = [(n, 4096 if n == 199 else 0) for n in range(200)]
    assert bytes_each(looks) < 4096 / 100 / 10


def test_a_cost_is_the_median_of_each() -> None:
    """One slow create says nothing, and nothing of the exec beside it."""
    lives = [Cost(1, 9, 2), Cost(70, 9, 3), Cost(2, 1, 4)]
    assert Cost.of(lives) == Cost(2, 9, 3)


@pytest.mark.parametrize(("last", "met"), [(10.0, True), (13.0, True), (13.1, False)])
def test_flat_is_the_last_by_the_first(last: float, met: bool) -> None:
    """Each phase has a verdict; what lies between does not matter."""
    found = {OURS: {1: cost(10), 10: cost(99), 500: cost(last)}}
    assert [verdict.met for verdict in flat(found)] == [met] * 3


def test_a_verdict_tells_what_others_lose() -> None:
    """A machine that is slower with many containers is so for runc by hand."""
    found = {OURS: {1: cost(1), 9: cost(2)}, RUNC: {1: cost(1), 9: cost(1.5)}}
    assert flat(found)[0] == Verdict(
        "create at 9 containers in a shim, × the first", "≤ 1.3", "2.00 (runc by hand 1.50)", False
    )


@pytest.mark.parametrize(("by_hand", "met"), [(2.0, True), (1.5, False)])
def test_what_the_machine_loses_is_told_from_what_the_shim_does(by_hand: float, met: bool) -> None:
    """Where runc by hand is slower too, the shim is judged by what it adds to that."""
    found = {OURS: {1: cost(1), 9: cost(2.5)}, RUNC: {1: cost(1), 9: cost(by_hand)}}
    assert [(verdict.what.split()[0], verdict.met) for verdict in flat(found)] == [
        ("create", False),
        ("create,", met),
        ("exec", False),
        ("exec,", met),
        ("exit", False),
    ]


def test_a_curve_has_a_row_for_each_number_and_each_who_had_them() -> None:
    """With the ratio to its own first; what there is no figure for is left out."""
    ours = {1: Cost(10, 20, 1, 5, 30, 20), 9: Cost(15, 20, 2, 5, 31, 21)}
    rows = list(curve_lines({OURS: ours, GO: {1: cost(1), 9: cost(1)}}))[2:]
    assert [row.split(" | ")[:2] for row in rows] == [
        ["| 1", OURS],
        ["| 1", GO],
        ["| 9", OURS],
        ["| 9", GO],
    ]
    assert (
        rows[2] == "| 9 | trioshim | 15.0 (1.50) | 20.0 (1.00) | 2.0 (2.00) | 5.0 | 31.0 | 21.0 |"
    )
    assert rows[3].endswith("1.0 (1.00) |  |  |  |")


@pytest.mark.parametrize("real", [False, True])
def test_execs_without_a_runtime_are_served_by_a_real_shim(real: bool) -> None:
    """All of them end well, whether there is a process or none."""
    assert isinstance(exec_slope(20, real=real), float)


def test_the_outbox_and_the_floor_are_measured() -> None:
    """Every event arrives, or this would not end."""
    ours, floor = outbox(20, 1)
    assert min(ours, floor) > 0


# ---------------------------------------------------------------- what must not grow


async def test_the_mount_table_is_read_once_for_all_cgroups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has a line for each container's rootfs."""
    reads = count_calls(monkeypatch, _cgroup, "read_mounts")
    kernel = LinuxKernel()
    for _ in range(3):
        kernel.cgroup(os.getpid()).close()
    assert len(reads) == 1


async def test_cgroups_that_have_moved_are_looked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The table is read again when what it said is not there."""
    moved = [replace(mount, point="/nowhere") for mount in _cgroup.read_mounts()]
    kernel = LinuxKernel()
    with monkeypatch.context() as before:
        before.setattr(_cgroup, "read_mounts", lambda: moved)
        with pytest.raises(FileNotFoundError):
            kernel.cgroup(os.getpid())
    kernel.cgroup(os.getpid()).close()


@pytest.mark.parametrize(
    ("errors", "reads"),
    [
        ([], 1),
        ([None, None], 1),
        ([errno.EBUSY], 1),
        ([errno.EINVAL, None, None], 2),
        ([errno.EBUSY, None, errno.EBUSY], 2),
    ],
)
def test_the_mount_table_is_read_again_only_if_that_can_help(
    monkeypatch: pytest.MonkeyPatch, errors: list[int | None], reads: int
) -> None:
    """Some have gone and some are left: only then may one have hidden another."""
    left, answers = [f"/b/{number}" for number in range(len(errors))], iter(errors)
    found = count_calls(monkeypatch, _mounts, "mounts_below", lambda *_: list(left))
    monkeypatch.setattr(_mounts, "_mountinfo", lambda: b"")

    def unmount(point: str) -> OSError | None:
        error = next(answers, None) if len(found) == 1 else None
        if error is None:
            left.remove(point)
            return None
        return OSError(error, "left")

    monkeypatch.setattr(_mounts, "_unmount_point", unmount)
    _mounts.unmount_pass("/b")
    assert len(found) == reads


# ---------------------------------------------------------------- idleness


def test_a_process_that_sleeps_does_not_wake() -> None:
    """Nothing is counted, however often we look."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        echo(cat)
        settle(cat.pid)
        begun = Look.at(cat.pid)
        looks = [Look.at(cat.pid) for _ in range(20)]
        assert looks == [begun] * 20


def test_a_process_that_works_wakes() -> None:
    """Every time is counted, and that it ran."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        echo(cat)
        settle(cat.pid)  # it has started, and waits
        begun = Look.at(cat.pid)
        for _ in range(ROUNDS):
            echo(cat)
            settle(cat.pid)
        ended = Look.at(cat.pid)
        assert ended.switches - begun.switches >= ROUNDS
        assert ended.runs - begun.runs >= ROUNDS
        assert Idleness("cat", 1, begun, ended, 1).ran > 0


@pytest.mark.parametrize(
    ("begun", "ended"), [(Look(5, 5, 0), Look(6, 5, 0)), (Look(5, 5, 0), Look(5, 6, 0))]
)
def test_either_counter_is_a_wake(begun: Look, ended: Look) -> None:
    """Slept, or put on a processor: one of the two is enough."""
    found = Idleness(_shims.TRIO, 10, begun, ended, 1)
    assert found.wakes == 1
    assert not idle.verdict([found]).met


def test_idle_is_ours_without_a_wake() -> None:
    """What Go's does is told and not judged."""
    still, awake = Look(5, 5, 7), Look(9, 9, 7000)
    found = [Idleness(_shims.GO, 10, still, awake, 9), Idleness(_shims.TRIO, 10, still, still, 1)]
    assert idle.verdict(found) == Verdict("an idle shim", "0 wake-ups", "0 in 10 s, 0 µs", True)


def test_what_was_not_measured_is_not_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason stands where the figure would."""
    monkeypatch.setattr(_shims, "missing", lambda _: "not root")
    done = idle.report(quick=True)
    assert done.verdicts == (
        Verdict("an idle shim", "0 wake-ups", "not measured: not root", False),
    )
    assert f"Left out: {_shims.TRIO}: not root." in done.lines


def test_a_report_reads_as_a_page() -> None:
    """Heading, lines, and what each verdict asked and found."""
    verdicts = (Verdict("a", "1", "2", False), Verdict("b", "1", "1", True))
    assert str(Report("T", ("x",), verdicts)).splitlines() == [
        "## T",
        "",
        "x",
        "",
        "* a: asked 1, measured 2: NOT MET",
        "* b: asked 1, measured 1: met",
    ]


def echo(cat: subprocess.Popen[bytes]) -> None:
    """A line there and back."""
    assert cat.stdin is not None
    assert cat.stdout is not None
    cat.stdin.write(b"x\n")
    cat.stdin.flush()
    assert cat.stdout.readline() == b"x\n"


def settle(pid: int) -> None:
    """Until it sleeps again."""
    while Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "S":
        continue


def count_calls(
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    name: str,
    instead: Callable[..., Any] | None = None,
) -> list[tuple[object, ...]]:
    """The arguments of every call from now on."""
    calls: list[tuple[object, ...]] = []
    call = instead or getattr(module, name)

    def counted(*args: object) -> object:
        calls.append(args)
        return call(*args)

    monkeypatch.setattr(module, name, counted)
    return calls
