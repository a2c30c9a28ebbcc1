"""The tools of `trioshim.testing` that judge others: laws, schedules, leaks."""

from __future__ import annotations

import pytest
import trio
from google.protobuf.message import Message

from trioshim.abc import ContainerSpec, StdioSpec
from trioshim.proto import events_pb2 as events
from trioshim.proto.types_pb2 import Envelope
from trioshim.testing import (
    LawBrokenError,
    MemoryListener,
    Trace,
    check_event_order,
    check_trio,
    open_shim,
    run_schedule,
    unpack,
)

from .fresh_python import printed_by

# ---------------------------------------------------------------- the laws


def create(id_: str = "c1") -> Message:
    return events.TaskCreate(container_id=id_, pid=2)


def start(id_: str = "c1") -> Message:
    return events.TaskStart(container_id=id_, pid=2)


def exit_(exec_id: str = "", id_: str = "c1") -> Message:
    return events.TaskExit(container_id=id_, id=exec_id or id_, pid=2)


def delete(exec_id: str = "", id_: str = "c1") -> Message:
    return events.TaskDelete(container_id=id_, id=exec_id, pid=2)


def added(exec_id: str = "e1", id_: str = "c1") -> Message:
    return events.TaskExecAdded(container_id=id_, exec_id=exec_id)


def started(exec_id: str = "e1", id_: str = "c1") -> Message:
    return events.TaskExecStarted(container_id=id_, exec_id=exec_id, pid=3)


def oom(id_: str = "c1") -> Message:
    return events.TaskOOM(container_id=id_)


PAUSED, RESUMED = events.TaskPaused(container_id="c1"), events.TaskResumed(container_id="c1")
LIFE = [create(), start(), exit_(), delete()]

GOOD = {
    "nothing": [],
    "a life": LIFE,
    "never started": [create(), exit_(), delete()],
    "to be restored, and never was": [create(), delete()],
    "restored": [events.TaskCreate(container_id="c1", checkpoint="/i"), *LIFE[1:]],
    "paused and killed for memory": [create(), start(), PAUSED, RESUMED, oom(), exit_(), delete()],
    "the id again": [*LIFE, *LIFE],
    "the id again, after an oom": [create(), start(), oom(), exit_(), delete(), *LIFE],
    "an exec": [create(), start(), added(), started(), exit_("e1"), exit_(), delete()],
    "an exec that never ran": [create(), start(), added(), exit_(), delete()],
    "an exec's id again": [
        create(),
        start(),
        *[added(), started(), exit_("e1")] * 2,
        exit_(),
        delete(),
    ],
    "the id of an exec that never ran again": [
        create(),
        start(),
        *[added(), added(), started(), exit_("e1")],
        exit_(),
        delete(),
    ],
    "an exec whose delete is told": [
        create(),
        start(),
        *[added(), started(), exit_("e1"), delete("e1")] * 2,
        exit_(),
        delete(),
    ],
    "an exec without a start of init": [
        create(),
        *[added(), started(), exit_("e1")],
        exit_(),
        delete(),
    ],
    "two containers": [
        *[create(), create("c2"), start("c2"), start(), exit_()],
        *[exit_(id_="c2"), delete(id_="c2"), delete()],
    ],
    "execs of one name in two containers": [
        *[create(), create("c2"), added(), added(id_="c2"), started(), started(id_="c2")],
        *[exit_("e1"), exit_("e1", "c2"), exit_(), exit_(id_="c2"), delete(), delete(id_="c2")],
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_good_streams_are_accepted(name: str) -> None:
    """Whole, and at every point in between."""
    stream = GOOD[name]
    check_event_order(stream)
    for length in range(len(stream)):
        check_event_order(stream[:length], complete=False)


BAD = [
    (1, "start before create", [start()]),
    (1, "exit before create", [exit_()]),
    (1, "delete before create", [delete()]),
    (1, "oom before create", [oom()]),
    (1, "paused before create", [PAUSED]),
    (1, "exec added before create", [added()]),
    (1, "created twice", [create(), create()]),
    (1, "started twice", [create(), start(), start()]),
    (1, "start after exit", [create(), exit_(), start()]),
    (1, "start after delete", [create(), delete(), start()]),
    (1, "exit after delete", [create(), start(), delete(), exit_()]),
    (1, "deleted twice", [*LIFE, delete()]),
    (1, "exec started before it was added", [create(), start(), started()]),
    (1, "exec ended before it started", [create(), start(), added(), exit_("e1")]),
    (1, "exec started twice", [create(), added(), started(), started()]),
    (1, "exec added while it runs", [create(), added(), started(), added()]),
    (1, "exec started after its exit", [create(), added(), started(), exit_("e1"), started()]),
    (1, "exec deleted before it was added", [create(), delete("e1")]),
    (1, "exec ended after its delete", [create(), added(), started(), delete("e1"), exit_("e1")]),
    (2, "ended twice", [create(), start(), exit_(), exit_()]),
    (2, "exec ended twice", [create(), added(), started(), exit_("e1"), exit_("e1")]),
    (3, "init ended while an exec runs", [create(), added("e0"), added(), started(), exit_()]),
    (3, "exec started after the exit of init", [create(), added(), exit_(), started()]),
    (4, "oom after the exit", [create(), start(), exit_(), oom()]),
    (4, "oom after the delete", [*LIFE, oom()]),
]


@pytest.mark.parametrize(
    ("law", "stream"), [pytest.param(law, stream, id=name) for law, name, stream in BAD]
)
def test_each_law_is_broken_once(law: int, stream: list[Message]) -> None:
    """Found at the last event, not earlier, in a stream that is still going on."""
    check_event_order(stream[:-1], complete=False)
    with pytest.raises(LawBrokenError) as caught:
        check_event_order(stream, complete=False)
    assert caught.value.law == law
    assert str(caught.value).startswith(f"law {law}: ")


@pytest.mark.parametrize(
    "stream",
    [
        [create(), start(), delete()],
        [create(), start(), delete(), *LIFE],  # the id is used again
        [create(), added(), started()],
        [create(), added("e0"), started("e0"), exit_("e0"), added(), started()],
    ],
)
def test_a_complete_stream_misses_no_exit(stream: list[Message]) -> None:
    """What was started has its exit, or law 2 is broken; in a stream that goes on it may come."""
    with pytest.raises(LawBrokenError, match="no exit") as caught:
        check_event_order(stream)
    assert caught.value.law == 2
    if stream[-1] != LIFE[-1]:
        check_event_order(stream, complete=False)


def test_an_envelope_is_unpacked_by_its_type() -> None:
    """With or without a host before the name; what is no event of containerd is refused."""
    envelope = Envelope()
    envelope.event.value = exit_("e1").SerializeToString()
    for url in ("containerd.events.TaskExit", "types.googleapis.com/containerd.events.TaskExit"):
        envelope.event.type_url = url
        assert unpack(envelope) == exit_("e1")
    envelope.event.type_url = "containerd.events.Nothing"
    with pytest.raises(KeyError, match="Nothing"):
        unpack(envelope)


# ---------------------------------------------------------------- schedules


async def crowd() -> None:
    """Ten tasks of different names that wait for each other and for the clock."""

    async def member(number: int) -> None:
        await trio.sleep(number % 3)
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(member, number, name=f"member {number}")


def digest_of(seed: int) -> str:
    trace = Trace()
    run_schedule(crowd, seed=seed, trace=trace)
    assert trace.steps > 10
    return trace.digest


def test_a_seed_decides_the_order() -> None:
    """The same seed: the same digest; and seeds differ."""
    digests = [digest_of(seed) for seed in range(20)]
    assert digests == [digest_of(seed) for seed in range(20)]
    assert len(set(digests)) > 15


@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
def test_a_seed_means_the_same_in_every_process(hash_seed: str) -> None:
    """Whatever the order of sets and the hashes of texts there."""
    program = (
        "from tests.sim.worlds import run_day; from trioshim.testing import Trace;"
        "trace = Trace(); run_day(7, trace); print(trace.digest)"
    )
    from tests.sim.worlds import run_day

    trace = Trace()
    run_day(7, trace)
    assert printed_by("-c", program, hash_seed=hash_seed).strip() == trace.digest


def test_a_schedule_gives_its_result_and_takes_no_time() -> None:
    """The clock is virtual."""

    async def sleep() -> float:
        await trio.sleep(80_000)
        return trio.current_time()

    assert run_schedule(sleep, seed=1) == pytest.approx(80_000)


def test_trio_is_left_as_it_was() -> None:
    """Also when the scenario fails: other tests are not seeded."""
    import trio._core._run as run

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    before = run._r, run._ALLOW_DETERMINISTIC_SCHEDULING
    with pytest.raises(ZeroDivisionError):
        run_schedule(fail, seed=1)
    assert (run._r, run._ALLOW_DETERMINISTIC_SCHEDULING) == before


@pytest.mark.parametrize("name", ["_ALLOW_DETERMINISTIC_SCHEDULING", "_r", "GLOBAL_RUN_CONTEXT"])
def test_another_trio_is_told_apart(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A private name that we need is gone: the error says which, before anything is run."""
    import trio._core._run as run

    check_trio()
    monkeypatch.delattr(run, name)
    with pytest.raises(RuntimeError, match=f"{trio.__version__} has no trio._core._run.{name}"):
        check_trio()
    with pytest.raises(RuntimeError, match=name):
        run_schedule(crowd, seed=1)


# ---------------------------------------------------------------- the world


async def test_a_memory_listener_connects() -> None:
    """Both ends of a connection, in the order of connecting."""
    listener = MemoryListener()
    first, second = listener.connect(), listener.connect()
    await first.send_all(b"1")
    await second.send_all(b"2")
    assert await (await listener.accept()).receive_some() == b"1"
    assert await (await listener.accept()).receive_some() == b"2"


async def test_a_closed_memory_listener_refuses() -> None:
    """Whoever waits in accept is told, and whoever connects."""
    listener = MemoryListener()

    async def accept() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()
    await accept()
    with pytest.raises(trio.BrokenResourceError):
        listener.connect()


async def test_what_is_left_is_named() -> None:
    """Each kind of thing that a shim may leave behind, and not the things it has put away."""
    async with open_shim() as world:
        world.check_nothing_left()
        stdio = await world.kernel.open_stdio(StdioSpec()).__aenter__()
        with pytest.raises(AssertionError, match="streams left"):
            world.check_nothing_left()
        await stdio.__aexit__(None, None, None)
        await world.kernel.mount([], "/rootfs")
        world.kernel.mounts.append("/rootfs")
        with pytest.raises(AssertionError, match=r"mounts left: .*/rootfs"):
            world.check_nothing_left()
        await world.kernel.unmount("/rootfs")
        spec = ContainerSpec("c1", "/bundle")
        init = await world.runtime.create(spec, stdio)
        with pytest.raises(AssertionError, match="processes left"):
            world.check_nothing_left()
        world.kernel.kill_group(init)
        cgroup = world.kernel.cgroup(init.pid)
        await init.wait()
        with pytest.raises(AssertionError, match="open cgroups left"):
            world.check_nothing_left()
        cgroup.close()
        with pytest.raises(AssertionError, match=r"containers of the runtime left: \['c1'\]"):
            world.check_nothing_left()
        await world.runtime.delete(spec)
        world.check_nothing_left()
