"""A private containerd for the tests, and a look around after each of them.

Machines without root, runc, containerd or busybox skip these tests and say why; with
`--strict-real`, or where CI=true, that is a failure: a check that did not run has not passed.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import pytest

from . import events, images, leaks
from .daemon import Daemon, watch
from .poll import eventually
from .requirements import (
    BINARIES,
    GO,
    RUNTIMES,
    TRIO,
    missing_from_machine,
    missing_shim,
    shim_program,
)
from .shell_world import compile_package
from .shim_world import Shim, ShimWorld, open_box, open_shim_world

LIMIT = 240  # seconds for one test; the stress tests take most


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--strict-real",
        action="store_true",
        default=False,
        help="fail, not skip, tests with a real containerd that cannot run here",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.real)


@pytest.fixture(scope="session")
def compiled_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our package, as pip installs it."""
    return compile_package(tmp_path_factory.mktemp("package"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what containerd said meanwhile."""
    report = yield
    arguments = getattr(item, "funcargs", {}).values()
    daemons = {value for value in arguments if isinstance(value, Daemon)}
    if report.failed:
        report.sections += [("containerd's log", daemon.log_tail()) for daemon in daemons]
    return report


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    """A shim that never answers fails its test; it does not hang the run."""

    def expired(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the test took more than {LIMIT} seconds")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session", autouse=True)
def no_template_stays() -> Iterator[None]:
    """The shims' template may outlive every test, but not the run."""
    before = leaks.templates()
    yield
    for pid in leaks.templates() - before:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


@pytest.fixture(scope="session")
def give_up(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Call it with a reason: it skips, or fails where skipping is not allowed; "" does nothing."""
    strict = pytestconfig.getoption("--strict-real", default=False)
    strict = strict or os.environ.get("CI") == "true"

    def judge(reason: str) -> None:
        if reason:
            (pytest.fail if strict else pytest.skip)(reason)

    return judge


@pytest.fixture(scope="session")
def machine(give_up: Callable[[str], None]) -> None:
    give_up(missing_from_machine())


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest, machine: None, give_up: Callable[[str], None]) -> str:
    """The runtime under test: the Go shim as the oracle, then ours."""
    name = str(request.param)
    if name not in RUNTIMES:
        pytest.skip(f"TRIOSHIM_RUNTIMES leaves {name} out")
    give_up(missing_shim(name))
    return name


@pytest.fixture
def our_runtime(machine: None, give_up: Callable[[str], None]) -> str:
    """Ours alone, for tests of what no other can do; they call it `runtime`."""
    give_up(missing_shim(TRIO))
    return TRIO


@pytest.fixture(scope="session")
def rootfs(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.make_rootfs(tmp_path_factory.mktemp("rootfs") / "busybox")


@pytest.fixture(scope="session")
def image_tar(rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.make_image(rootfs, tmp_path_factory.mktemp("image") / "busybox.tar")


@pytest.fixture
async def world(
    machine: None, rootfs: Path, give_up: Callable[[str], None]
) -> AsyncIterator[ShimWorld]:
    """Our shim without a containerd; some modules have a `world` of their own."""
    give_up(missing_shim(TRIO))
    async with open_shim_world(rootfs) as world:
        yield world


@pytest.fixture
async def shim(world: ShimWorld) -> AsyncIterator[Shim]:
    """A shim with a running container, `shim_world.BOX`; the same goes for it."""
    async with open_box(world) as shim:
        yield shim


@pytest.fixture(scope="session")
def criu(machine: None, give_up: Callable[[str], None]) -> dict[str, str]:
    """The environment in which runc finds a criu that works."""
    script = Path(__file__).parents[2] / "scripts" / "criu-setup"
    done = subprocess.run([script], capture_output=True, text=True, check=False)
    if done.returncode:
        give_up(f"no criu: {done.stderr[-500:]}")
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


@pytest.fixture
def criu_daemon(
    runtime: str, image_tar: Path, criu: dict[str, str], tmp_path: Path
) -> Iterator[Daemon]:
    """A daemon whose runc can checkpoint, and where `requirements.GO` means the runtime under test.

    containerd and ctr pass the options of a checkpoint on only if the runtime has that name.
    """
    (tmp_path / BINARIES[GO]).symlink_to(str(shim_program(runtime)))
    path = [str(tmp_path), criu["CRIU_PATH"]]
    yield from lend(Daemon(path=path, home=criu["CRIU_HOME"]), image_tar)


@pytest.fixture(scope="session")
def shared_daemon(machine: None, image_tar: Path) -> Iterator[Daemon]:
    with running(Daemon(), image_tar) as daemon:
        yield daemon


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Iterator[Daemon]:
    """A containerd with the image `images.IMAGE`; after the test nothing may be left."""
    yield from clean(shared_daemon)


@pytest.fixture
def own_daemon(image_tar: Path) -> Iterator[Daemon]:
    """The same, for this test alone: it may be killed."""
    yield from lend(Daemon(debug=True), image_tar)


@contextmanager
def running(daemon: Daemon, image_tar: Path) -> Iterator[Daemon]:
    """Start it, with the image; stop it at the end of the block."""
    try:
        daemon.start()
        daemon.ctr("image", "import", str(image_tar))
        yield daemon
    finally:
        daemon.close()


def lend(daemon: Daemon, image_tar: Path) -> Iterator[Daemon]:
    """The life of a daemon for one test."""
    with running(daemon, image_tar):
        yield from clean(daemon)


def clean(daemon: Daemon) -> Iterator[Daemon]:
    """Lend a daemon to a test; then look for what is left, and at the order of all the events."""
    left = watch(daemon)
    known = daemon.events.containers()
    yield daemon
    daemon.remove_all()
    try:
        eventually(lambda: not left(), "the traces to vanish", within=10.0)
    except TimeoutError:
        pytest.fail("left behind:\n" + "\n".join(left()))
    daemon.events.flush()
    for container in daemon.events.containers() - known - daemon.excused:
        assert events.broken_laws(daemon.events.story(container)) == [], container
