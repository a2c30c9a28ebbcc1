"""`run_container` and `open_container` on a real shim and runc: what they promise, one by one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.unit.image_files import write_tar
from trioshim.client import open_event_sink
from trioshim.containers import (
    DEVNULL,
    Bind,
    Container,
    _options,
    open_container,
    run_container,
    unpack_image,
)

from . import container_world
from .container_world import (
    KILLED,
    SLEEP,
    Place,
    topics,
    until_true,
)

place = container_world.place


# ---------------------------------------------------------------- where the root comes from


async def test_hello(place: Place) -> None:
    """Nothing but a command line is needed: it runs on the host's own root."""
    done = await run_container(["echo", "hello"], capture_stdout=True, **place.where)
    assert done.args == ["echo", "hello"]
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", None)


async def test_a_folder_is_the_root(place: Place) -> None:
    """What is written there is still there when the container is gone."""
    mine = place.base / "mine"
    shutil.copytree(place.rootfs, mine, symlinks=True)
    box = place.box | {"rootfs": mine}
    await run_container(["sh", "-c", "echo kept > /file"], **box)
    assert (mine / "file").read_text() == "kept\n"


async def test_a_bundle_says_it_all(place: Place) -> None:
    """Its config.json is used as it is, but for the command line."""
    bundle = place.base / "bundle"
    bundle.mkdir()
    config = {
        "ociVersion": "1.0.2",
        "process": {
            "args": ["sh", "-c", 'echo "$MINE"'],
            "cwd": "/",
            "env": ["PATH=/bin", "MINE=yes", f"WORLD={place.base}"],
            "user": {"uid": 0, "gid": 0},
        },
        "root": {"path": str(place.rootfs), "readonly": True},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "cgroupsPath": f"/{place.base.name}@bundle",
            "namespaces": [{"type": "pid"}, {"type": "mount"}],
        },
    }
    (bundle / "config.json").write_text(json.dumps(config))
    done = await run_container(bundle=bundle, capture_stdout=True, **place.where)
    assert done.stdout == b"yes\n"
    done = await run_container(["echo", "no"], bundle=bundle, capture_stdout=True, **place.where)
    assert done.stdout == b"no\n"


@pytest.fixture
def unpacked_here(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = partial(unpack_image, cache=place.base / "images")
    monkeypatch.setattr(_options, "unpack_image", cached)


async def run_image(place: Place, image: Path) -> None:
    """Its own command is run, or another; what one changes, the next one does not see."""
    run = partial(run_container, image=image, env=place.env, capture_stdout=True, **place.where)
    script = "cat /etc/passwd; echo x > /etc/passwd; cat /etc/passwd"
    for _ in range(2):
        said = (await run(["sh", "-c", script])).stdout
        assert said == b"root:x:0:0:root:/root:/bin/sh\nx\n"
    assert (await run(stdin=b"echo from stdin")).stdout == b"from stdin\n"


@pytest.mark.usefixtures("unpacked_here")
async def test_an_oci_layout_is_an_image(
    place: Place, image_tar: Path, give_up: Callable[[str], None]
) -> None:
    """As `umoci` and `skopeo` write it."""
    give_up("" if shutil.which("umoci") else "not installed: umoci (scripts/setup installs it)")
    await run_image(place, image_tar)


@pytest.mark.usefixtures("unpacked_here")
async def test_a_docker_archive_is_an_image(
    place: Place, image_tar: Path, give_up: Callable[[str], None]
) -> None:
    """As `docker save` writes it."""
    absent = [name for name in ("umoci", "skopeo") if shutil.which(name) is None]
    give_up(f"not installed: {absent} (scripts/setup installs it)" if absent else "")
    archive = place.base / "docker.tar"
    target = f"docker-archive:{archive}:box:1"
    await trio.run_process(
        ["skopeo", "--insecure-policy", "copy", "-q", f"oci-archive:{image_tar}", target]
    )
    await run_image(place, archive)


@pytest.mark.usefixtures("unpacked_here")
async def test_what_is_no_image_is_refused(place: Place) -> None:
    """Before anything is started; the error has the file's name."""
    broken = write_tar(place.base / "broken.tar", {"readme": b"no image"})
    with pytest.raises(ValueError, match=r"broken\.tar"):
        await run_container(image=broken, **place.where)


# ---------------------------------------------------------------- what it is given


async def test_it_is_given_what_was_asked_for(place: Place) -> None:
    """Variables, directory, user, hostname and mounts."""
    (place.base / "in").mkdir()
    (place.base / "in" / "file").write_text("precious\n")
    script = "echo $A; pwd; id -u; id -g; hostname; cat /in/file; touch /in/x || echo refused"
    done = await run_container(
        ["sh", "-c", script],
        capture_stdout=True,
        **place.box | {"env": place.env | {"A": "b c"}},
        cwd="/tmp",
        user="7:8",
        hostname="inside",
        mounts=[Bind(str(place.base / "in"), "/in", read_only=True)],
    )
    assert done.stdout == b"b c\n/tmp\n7\n8\ninside\nprecious\nrefused\n"


async def test_the_network_is_its_own_or_the_hosts(place: Place) -> None:
    """As the namespace tells."""
    argv = ["readlink", "/proc/self/ns/net"]
    ours = os.readlink(argv[1]).encode()
    alone = await run_container(argv, capture_stdout=True, **place.box)
    host = await run_container(argv, capture_stdout=True, network="host", **place.box)
    assert (alone.stdout or b"").strip() != ours
    assert (host.stdout or b"").strip() == ours


async def test_too_much_memory_kills_it(place: Place) -> None:
    """SIGKILL from the kernel; and there is an event that says why."""
    async with open_event_sink() as sink, sink.subscribe() as events:
        eater = ["sh", "-c", "x=0123456789abcdef; while :; do x=$x$x; done"]
        async with open_container(eater, memory="16m", events=sink, **place.box) as container:
            assert await container.wait() == KILLED
        told = await topics(sink, events)
    assert told == ["create", "start", "oom", "exit", "delete"]


async def test_processor_time_is_limited(place: Place) -> None:
    """Who wants more than his share is throttled."""
    busy = ["sh", "-c", "while :; do :; done"]
    async with open_container(busy, cpus=0.1, **place.box) as container:
        await until_true(lambda: throttled(container))


async def throttled(container: Container) -> bool:
    return (await container.stats()).throttled_seconds > 0


async def test_processes_are_limited(place: Place) -> None:
    """One more than there may be cannot be made."""
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 100 & done; echo all"
    done = await run_container(
        ["sh", "-c", script], pids=5, check=False, capture_stderr=True, stdout=DEVNULL, **place.box
    )
    assert done.returncode != 0
    assert b"can't fork" in (done.stderr or b"")


async def test_the_same_name_in_two_namespaces_is_two_containers(place: Place) -> None:
    """What is done to one does nothing to the other: they share no cgroup."""
    async with (
        open_container(SLEEP, id="box", **place.box) as one,
        open_container(
            SLEEP, id="box", **place.box | {"namespace": f"{place.base.name}x"}
        ) as other,
    ):
        await one.kill()
        assert await one.wait() == KILLED
        assert (await other.stats()).processes == 1
        assert other.returncode is None
    (Path("/run/containerd/runc") / f"{place.base.name}x").rmdir()
