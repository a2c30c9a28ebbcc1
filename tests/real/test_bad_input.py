"""What no daemon should ever ask of a shim.

Each test promises three things: the client is told what was wrong, the shim goes on and still
knows its container, and it has no more fds and children than before.
"""

from __future__ import annotations

import os
from contextlib import suppress

import pytest
from google.protobuf.any_pb2 import Any

from trioshim.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    ShimError,
    StatusError,
)
from trioshim.proto import task_v2_pb2 as api
from trioshim.proto.task_types_pb2 import Status

from .shim_parts import open_fifo, until, write_to
from .shim_world import BOX, OBEDIENT, OPTIONS, SLEEP, Shim

BAD_IDS = ["", "..", ".", "a/b", "../box", "a b", "-rf", "a\n", "x" * 77]


async def test_update_without_resources(shim: Shim) -> None:
    """This kills the Go shim."""
    with pytest.raises(InvalidArgumentError, match="update without resources"):
        await shim.client.update(api.UpdateTaskRequest(id=BOX))


@pytest.mark.parametrize("resources", [b"{", b"3", b"\xff", b"[" * 100_000])
async def test_update_with_resources_that_are_none(shim: Shim, resources: bytes) -> None:
    """The text is looked at before the runtime gets it."""
    with pytest.raises(InvalidArgumentError, match=r"resources: .*send an OCI"):
        await shim.client.update(api.UpdateTaskRequest(id=BOX, resources=Any(value=resources)))


async def test_exec_without_a_spec(shim: Shim) -> None:
    """This kills the Go shim."""
    with pytest.raises(InvalidArgumentError, match="exec e1 has no spec"):
        await shim.client.exec(api.ExecProcessRequest(id=BOX, exec_id="e1"))
    with pytest.raises(NotFoundError):
        await shim.start(BOX, "e1")


@pytest.mark.parametrize("spec", [b"{", b"3", b"\xff", b"[" * 100_000])
async def test_exec_with_a_spec_that_is_no_json(shim: Shim, spec: bytes) -> None:
    """Exec itself says so, as containerd's shims do; nothing is registered, no event is sent."""
    request = api.ExecProcessRequest(id=BOX, exec_id="e1", spec=Any(value=spec))
    with pytest.raises(InvalidArgumentError, match=r"exec e1: .*OCI process"):
        await shim.client.exec(request)
    with pytest.raises(NotFoundError):
        await shim.start(BOX, "e1")
    await shim.exec(BOX, "e1", "true")
    await shim.delete(BOX, "e1")
    await until(lambda: "exec-added" in shim.world.daemon.topics(), "the event")
    assert shim.world.daemon.topics().count("exec-added") == 1


@pytest.mark.parametrize("exec_id", BAD_IDS)
async def test_an_exec_id_is_no_path(shim: Shim, exec_id: str) -> None:
    """Empty, too long, or with characters that a file name or a flag could be made of."""
    with pytest.raises(InvalidArgumentError, match="identifier"):
        await shim.exec(BOX, exec_id, "true")


@pytest.mark.parametrize("container", BAD_IDS)
async def test_a_container_id_is_no_path(shim: Shim, container: str) -> None:
    """The same for Create."""
    with pytest.raises(InvalidArgumentError, match="identifier"):
        await shim.create(container, bundle=shim.bundle)


@pytest.mark.parametrize("bundle", ["", "bundle", "./bundle", "../box"])
async def test_a_bundle_is_absolute(shim: Shim, bundle: str) -> None:
    """A relative one would mean another directory for the daemon than for us."""
    with pytest.raises(InvalidArgumentError, match="is not an absolute path"):
        await shim.client.create(api.CreateTaskRequest(id="other", bundle=bundle))


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (None, "No such file"),
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "a JSON object is wanted, not list"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
async def test_a_bundle_has_a_config(shim: Shim, config: bytes | None, complaint: str) -> None:
    """The error names the file and says what it should be; with a good one it works then."""
    bundle = shim.world.make_bundle("other", *SLEEP)
    (bundle / "config.json").unlink()
    if config is not None:
        (bundle / "config.json").write_bytes(config)
    with pytest.raises(InvalidArgumentError, match=f"{bundle}/config.json: .*{complaint}"):
        await shim.create("other", bundle=bundle)
    shim.world.write_config(bundle, *SLEEP)
    assert await shim.create("other", bundle=bundle)


async def test_a_config_that_the_runtime_refuses(shim: Shim) -> None:
    """JSON, but nothing that a container could be made of: runc's own words come through."""
    bundle = shim.world.make_bundle("other", *SLEEP)
    (bundle / "config.json").write_text("{}")
    with pytest.raises(StatusError, match="OCI runtime create failed: "):
        await shim.create("other", bundle=bundle)


async def test_a_program_that_is_not_there(shim: Shim) -> None:
    """The text that docker and kubelet look for."""
    with pytest.raises(StatusError, match=r'exec: "nosuch": executable file not found in \$PATH'):
        await shim.run("other", "nosuch")


async def test_options_that_are_no_message(shim: Shim) -> None:
    """A type that is known, and bytes that are not of it."""
    options = Any(type_url=OPTIONS, value=b"\xff\xff")
    with pytest.raises(
        InvalidArgumentError, match=r"the value is no containerd\.runc\.v1\.Options"
    ):
        await shim.create("other", options=options)


async def test_an_id_is_taken_once(shim: Shim) -> None:
    """The second Create fails and does the first one no harm."""
    with pytest.raises(AlreadyExistsError, match="container box"):
        await shim.client.create(api.CreateTaskRequest(id=BOX, bundle=str(shim.bundle)))
    await shim.exec(BOX, "e1", "true")
    with pytest.raises(AlreadyExistsError, match="id e1"):
        await shim.exec(BOX, "e1", "true")
    await shim.delete(BOX, "e1")


@pytest.mark.parametrize("exec_id", ["", "e1"])
async def test_signals_that_are_none(shim: Shim, exec_id: str) -> None:
    """0 only asks whether there is a process; other numbers fail and harm nobody."""
    if exec_id:
        await shim.exec(BOX, exec_id, *SLEEP)
        await shim.start(BOX, exec_id)
    await shim.kill(BOX, 0, exec_id)
    for signum in (65, 999, 2**31 - 1):
        with pytest.raises(ShimError, match=r"(?i)invalid argument"):
            await shim.kill(BOX, signum, exec_id)
    if exec_id:
        await shim.kill(BOX, 9, exec_id)
        assert await shim.wait(BOX, exec_id) == 137
        with pytest.raises(NotFoundError, match="process already finished"):
            await shim.kill(BOX, 0, exec_id)
        await shim.delete(BOX, exec_id)


@pytest.mark.parametrize("exec_id", ["", "e1"])
@pytest.mark.parametrize("signum", [2**31, 2**32 - 1])
async def test_signals_that_no_int_can_hold(shim: Shim, exec_id: str, signum: int) -> None:
    """The wire has 32 bits for it, the kernel 31."""
    await shim.exec(BOX, "e1", *SLEEP)
    await shim.start(BOX, "e1")
    with pytest.raises(ShimError, match=r"(?i)invalid argument"):
        await shim.kill(BOX, signum, exec_id)
    await shim.kill(BOX, 9, "e1")
    await shim.wait(BOX, "e1")
    await shim.delete(BOX, "e1")


async def test_verbs_out_of_order(shim: Shim) -> None:
    """Each refusal says what state forbids it."""
    await shim.exec(BOX, "e1", *SLEEP)
    with pytest.raises(ShimError, match="process"):
        await shim.kill(BOX, 9, "e1")
    await shim.start(BOX, "e1")
    for exec_id in ("", "e1"):
        with pytest.raises(StatusError, match="cannot start a running process"):
            await shim.start(BOX, exec_id)
        with pytest.raises(StatusError, match="cannot delete a running process"):
            await shim.delete(BOX, exec_id)
    with pytest.raises(StatusError, match="cannot resume a running process"):
        await shim.client.resume(api.ResumeRequest(id=BOX))
    await shim.kill(BOX, 9, "e1")
    await shim.wait(BOX, "e1")
    await shim.delete(BOX, "e1")


async def test_what_is_not_there(shim: Shim) -> None:
    """Every method that names a process answers NOT_FOUND for one that is unknown."""
    for container, exec_id in [("nobody", ""), ("nobody", "e1"), (BOX, "nobody"), ("../box", "")]:
        with pytest.raises(NotFoundError):
            await shim.wait(container, exec_id)
        with pytest.raises(NotFoundError):
            await shim.start(container, exec_id)
        with pytest.raises(NotFoundError):
            await shim.kill(container, 9, exec_id)
        with pytest.raises(NotFoundError):
            await shim.delete(container, exec_id)
        with pytest.raises(NotFoundError):
            await shim.client.close_io(api.CloseIORequest(id=container, exec_id=exec_id))
    with pytest.raises(NotFoundError):
        await shim.client.stats(api.StatsRequest(id="nobody"))


async def test_calls_that_have_nothing_to_do(shim: Shim) -> None:
    """A size without a terminal, an end of input twice or without an input: no failure."""
    for _ in range(2):
        await shim.client.resize_pty(api.ResizePtyRequest(id=BOX, width=2**32 - 1, height=0))
        await shim.client.close_io(api.CloseIORequest(id=BOX, stdin=True))


async def test_the_end_of_input_can_be_told_twice(shim: Shim) -> None:
    """The container has read all of it, once."""
    stdin, stdout = shim.world.fifo("in"), shim.world.fifo("out")
    with open_fifo(stdout) as output:
        await shim.run("other", "cat", stdin=stdin, stdout=stdout)
        write_to(stdin, b"hello")
        for _ in range(2):
            await shim.client.close_io(api.CloseIORequest(id="other", stdin=True))
        assert await shim.wait("other") == 0
        await shim.delete("other")
        assert os.read(output, 99) == b"hello"


@pytest.mark.parametrize("size", [0, 2**16, 2**32 - 1])
async def test_sizes_that_no_terminal_has(shim: Shim, size: int) -> None:
    """The kernel counts rows in 16 bits, the wire in 32; no answer but a clear one."""
    with open_fifo(shim.world.fifo("out")):
        await shim.run("other", terminal=True, stdout=str(shim.world.base / "out"))
        with suppress(InvalidArgumentError):
            request = api.ResizePtyRequest(id="other", width=size, height=size)
            await shim.client.resize_pty(request)
        assert (await shim.state("other")).status == Status.RUNNING
        await shim.remove("other")


async def test_stats_after_the_exit(shim: Shim) -> None:
    """Numbers or NOT_FOUND, never another failure."""
    stdin = shim.world.fifo("in")
    await shim.run("other", *OBEDIENT, stdin=stdin)
    write_to(stdin)
    assert await shim.wait("other") == 42
    with suppress(NotFoundError):
        assert (await shim.client.stats(api.StatsRequest(id="other"))).stats.value
    assert await shim.delete("other") == 42
    with pytest.raises(NotFoundError):
        await shim.client.stats(api.StatsRequest(id="other"))


@pytest.mark.parametrize(
    ("stdout", "error", "complaint"),
    [
        ("/nowhere/out", StatusError, "cannot open stdout: No such file or directory"),
        ("pigeon:///out", InvalidArgumentError, "unknown STDIO scheme pigeon"),
        ("file://host/out", InvalidArgumentError, "needs an absolute path"),
        ("binary:///nowhere/logger", StatusError, "No such file .*/nowhere/logger"),
        ("/", InvalidArgumentError, "neither a fifo nor a file"),
        ("/\0", InvalidArgumentError, "NUL"),
    ],
)
@pytest.mark.parametrize("terminal", [False, True])
async def test_output_that_cannot_be_opened(
    shim: Shim, stdout: str, error: type[ShimError], complaint: str, terminal: bool
) -> None:
    """Create and the start of an exec fail before the runtime is asked."""
    with pytest.raises(error, match=complaint):
        await shim.create("other", stdout=stdout, terminal=terminal)
    await shim.exec(BOX, "e1", "true", stdout=stdout, terminal=terminal)
    with pytest.raises(error, match=complaint):
        await shim.start(BOX, "e1")
    await shim.delete(BOX, "e1")
