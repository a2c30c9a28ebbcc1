"""What `Runc` puts into a bundle, sends to the runtime and makes of its answers.

The runtime is a shell script, the kernel is the real one.  Neither root nor runc is needed.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from trioshim.abc import CheckpointSpec, ContainerSpec, ExecSpec, Options
from trioshim.errors import (
    InvalidArgumentError,
    NotFoundError,
    RuntimeFailedError,
)
from trioshim.proto import runc_options_pb2, runtime_options_pb2

from . import runc_world
from .runc_world import Bench, PlainStdio


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A bench; afterwards no fd and no child with an owner may be left."""
    with runc_world.open_bench(tmp_path) as bench:
        yield bench


async def test_exec_leaves_no_files_and_spares_init_pid(bench: Bench) -> None:
    """An exec called "init" does not overwrite init.pid; its spec is private and removed."""
    (bench.bundle / "init.pid").write_text("12")
    bench.script(
        "stat -c %a $process >$pid.seen; cat $process >>$pid.seen\nsleep 1000 & echo $! >$pid"
    )
    child = await bench.runtime.exec(
        bench.spec, ExecSpec("init", b'{"args":["x"],"terminal":true}'), PlainStdio()
    )
    child.signal(9)
    await child.wait()
    (seen,) = bench.bundle.glob("*.seen")
    mode, text = seen.read_text().split("\n", 1)
    assert mode == "600"
    assert json.loads(text) == {"args": ["x"], "terminal": False}
    assert bench.files == {"init.pid", seen.name}
    assert (bench.bundle / "init.pid").read_text() == "12"


@pytest.mark.parametrize("exec_id", ["../../x", "a/b", "a\0b"])
async def test_an_exec_id_cannot_leave_the_bundle(bench: Bench, exec_id: str) -> None:
    """The id becomes part of a file's name, so it must be one."""
    bench.script("touch ran")
    with pytest.raises(InvalidArgumentError, match="exec id"):
        await bench.runtime.exec(bench.spec, ExecSpec(exec_id, b"{}"), PlainStdio())


async def test_an_exec_without_a_process_is_refused(bench: Bench) -> None:
    """Nothing is run, and nothing is written."""
    bench.use("no-such-runc")
    with pytest.raises(InvalidArgumentError, match="OCI process object"):
        await bench.exec(PlainStdio(), b"[]")
    assert bench.files == set()


@pytest.mark.parametrize(
    ("text", "why"),
    [(None, "No such file"), ("{", "not valid JSON"), ("[]", "a JSON object is wanted")],
)
async def test_a_bundle_without_a_usable_config_is_refused(
    bench: Bench, text: str | None, why: str
) -> None:
    """The error names the file and what it should be."""
    bench.use("runc")
    config = bench.bundle / "config.json"
    config.unlink()
    if text is not None:
        config.write_text(text)
    with pytest.raises(InvalidArgumentError, match=why) as caught:
        await bench.runtime.prepare(bench.spec)
    assert str(config) in caught.value.message


async def test_a_fifo_as_config_does_not_stop_the_shim(bench: Bench) -> None:
    """Opening one for reading would wait for a writer for ever."""
    bench.use("runc")
    (bench.bundle / "config.json").unlink()
    os.mkfifo(bench.bundle / "config.json")
    with pytest.raises(InvalidArgumentError, match="not valid JSON"):
        await bench.runtime.prepare(bench.spec)


async def test_prepare_notes_what_the_delete_action_needs(bench: Bench) -> None:
    """The program's name and all options, private files; a root of our own is among them."""
    bench.use("crun")
    await bench.runtime.prepare(bench.spec)
    assert (bench.bundle / "runtime").read_text() == "crun"
    assert json.loads((bench.bundle / "options.json").read_text()) == {
        "binary_name": "crun",
        "root": str(bench.path / "root"),
    }
    for name in ("runtime", "options.json"):
        assert stat.S_IMODE((bench.bundle / name).stat().st_mode) == 0o600


async def test_options_in_a_file_are_read_once(bench: Bench) -> None:
    """A file that changes while the container lives does not change where its state is."""
    file = bench.path / "options.toml"
    value = runtime_options_pb2.Options(config_path=str(file)).SerializeToString()
    options = Options("runtimeoptions.v1.Options", value)
    spec = ContainerSpec("c1", str(bench.bundle), options=options)
    _write(file, "IoUid = 1")
    await bench.runtime.prepare(spec)
    _write(file, "IoUid = 2")
    assert bench.runtime.io_owner(spec) == (1, 0)


async def test_odd_options_are_logged_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A note about options appears when a container is prepared, not with every command."""
    bench.script("exit 0")
    bench.spec = ContainerSpec("c1", str(bench.bundle), options=Options("a/odd.Type", b"x"))
    await bench.runtime.prepare(bench.spec)
    bench.runtime.io_owner(bench.spec)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "odd.Type" in caplog.text


async def test_the_owner_of_pipes_comes_from_the_options(bench: Bench) -> None:
    """io_uid and io_gid, before and after prepare."""
    value = runc_options_pb2.Options(io_uid=3, io_gid=4).SerializeToString()
    spec = ContainerSpec(
        "c", str(bench.bundle), options=Options("containerd.runc.v1.Options", value)
    )
    assert bench.runtime.io_owner(spec) == (3, 4)
    await bench.runtime.prepare(spec)
    assert bench.runtime.io_owner(spec) == (3, 4)


async def test_update_sends_the_resources_on_standard_input(bench: Bench) -> None:
    """Whole, however large."""
    bench.script(f"cat >{bench.bundle}/all.seen")
    resources = json.dumps({"unified": {str(n): "x" * 100 for n in range(3000)}}).encode()
    await bench.runtime.update(bench.spec, resources)
    (seen,) = bench.bundle.glob("*.seen")
    assert seen.read_bytes() == resources


@pytest.mark.parametrize("resources", [b"", b"null", b"{"])
async def test_update_without_resources_is_refused(bench: Bench, resources: bytes) -> None:
    """A nil here ends the Go shim."""
    bench.use("no-such-runc")
    with pytest.raises(InvalidArgumentError, match="resources"):
        await bench.runtime.update(bench.spec, resources)


async def test_a_failed_update_is_told_raw(bench: Bench) -> None:
    """containerd passes on the runtime's output here, without looking into its log."""
    bench.script('echo \'{"level":"error","msg":"logged"}\' >>$log; echo said >&2; exit 1')
    with pytest.raises(RuntimeFailedError, match=r"^\S+ did not terminate .* status 1: said$"):
        await bench.runtime.update(bench.spec, b"{}")


async def test_a_failed_checkpoint_keeps_crius_log(bench: Bench) -> None:
    """The work directory goes, its log is copied, and the error says where to."""
    bench.script("mkdir $work; echo details >$work/dump.log; echo criu failed >&2; exit 1")
    kept = bench.bundle / "criu-dump.log"
    with pytest.raises(RuntimeFailedError, match=f"criu failed path= {kept}$"):
        await bench.runtime.checkpoint(bench.spec, CheckpointSpec("/image"))
    assert kept.read_text() == "details\n"
    assert list((bench.bundle / "work").iterdir()) == []


async def test_a_work_path_of_the_callers_is_left_alone(bench: Bench) -> None:
    """Only the directory of our own is removed."""
    bench.script("mkdir $work; echo details >$work/dump.log")
    work = bench.path / "mine"
    value = runc_options_pb2.CheckpointOptions(work_path=str(work)).SerializeToString()
    options = Options("containerd.runc.v1.CheckpointOptions", value)
    await bench.runtime.checkpoint(bench.spec, CheckpointSpec("/image", options))
    assert (work / "dump.log").exists()


@pytest.mark.parametrize(
    "said", ["container does not exist", "error opening file `/r/c1/status`: No such file"]
)
async def test_deleting_what_is_gone_is_no_failure(bench: Bench, said: str) -> None:
    """After a checkpoint that ends the container, the runtime has forgotten it."""
    bench.script(f"cat >&2 <<'END'\n{said}\nEND\nexit 1")
    await bench.runtime.delete(bench.spec)


async def test_other_failures_of_delete_are_told(bench: Bench) -> None:
    """In containerd's words."""
    bench.script("echo busy >&2; exit 1")
    with pytest.raises(RuntimeFailedError, match=r"failed to delete task: .*: busy"):
        await bench.runtime.delete(bench.spec)


async def test_nothing_is_killed_where_the_kernel_has_done_it(bench: Bench) -> None:
    """A private pid namespace ends with its init: no command is run."""
    bench.use("no-such-runc")
    config = bench.bundle / "config.json"
    config.write_text('{"linux": {"namespaces": [{"type": "pid"}]}}')
    await bench.runtime.prepare(bench.spec)
    config.write_text("{}")  # what it was made from counts
    await bench.runtime.kill_remaining(bench.spec)
    await bench.runtime.prepare(bench.spec)
    with pytest.raises(RuntimeFailedError):
        await bench.runtime.kill_remaining(bench.spec)


async def test_a_failed_killall_says_so_unless_nothing_was_there(bench: Bench) -> None:
    """Nothing left to kill is what was wanted."""
    bench.script("echo container not running >&2; exit 1")
    await bench.runtime.kill_remaining(bench.spec)
    bench.script("echo frozen >&2; exit 1")
    with pytest.raises(RuntimeFailedError, match="OCI runtime killall failed: "):
        await bench.runtime.kill_remaining(bench.spec)


async def test_kill_of_what_has_ended_is_not_found(bench: Bench) -> None:
    """Clients go on after it."""
    child = bench.kernel.spawn(["true"])
    await child.wait()
    bench.script("echo container not running >&2; exit 1")
    with pytest.raises(NotFoundError, match="process already finished"):
        await bench.runtime.kill(bench.spec, child, 15, all=False)


def _write(path: Path, text: str) -> None:
    path.write_text(text)
