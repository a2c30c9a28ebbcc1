"""Which containers share a shim, what `start` says of it, and how it joins one."""

from __future__ import annotations

import hashlib
import json
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trioshim import bootstrap
from trioshim._version import __version__
from trioshim.bootstrap import _dialects, _group, _sockets
from trioshim.bootstrap._arguments import Arguments, Verb
from trioshim.bootstrap._group import ANNOTATIONS, WHOLE_NAMESPACE, annotated_group, find_group
from trioshim.bootstrap._sockets import SocketLock
from trioshim.rpc import _listener

from .bootstrap_world import ID, NS, A

OURS, GO, CRI = ANNOTATIONS


def config(**annotations: object) -> bytes:
    return json.dumps({"ociVersion": "1.0.2", "annotations": annotations}).encode()


def never() -> bytes:
    raise AssertionError("config.json is read for nothing")


# ---------------------------------------------------------------- what config.json says


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_an_annotation_names_the_group(name: str) -> None:
    """Each of the three does."""
    assert annotated_group(config(**{name: "pod-1"})) == "pod-1"


def test_the_first_annotation_counts() -> None:
    """Ours before that of containerd's shim, and both before CRI's, in whatever order they are."""
    every = {CRI: "c", GO: "g", OURS: "o"}
    assert annotated_group(config(**every)) == "o"
    assert annotated_group(config(**{CRI: "c", GO: "g"})) == "g"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"no JSON, and nothing in it that matters",
        config(),
        config(other="x"),
        b'{"annotations": null}',
        json.dumps({"annotations": None, "process": {"args": ["echo", OURS]}}).encode(),
        json.dumps({"annotations": [OURS], "hostname": CRI}).encode(),
        json.dumps({"annotations": {"note": f"{OURS} is not set"}}).encode(),
        json.dumps({"process": {"annotations": {OURS: "x"}}}).encode(),
        json.dumps([{"annotations": {OURS: "x"}}]).encode(),
        json.dumps(OURS).encode(),
    ],
)
def test_without_an_annotation_it_is_alone(text: bytes) -> None:
    """Also if the name stands elsewhere, or within another text."""
    assert annotated_group(text) == ""


def test_a_value_may_be_escaped() -> None:
    """JSON has two ways to write a letter; of an annotation's name there is only the plain one."""
    text = b'{"annotations": {"%s": "po\\u0064"}}' % OURS.encode()
    assert annotated_group(text) == "pod"
    escaped = b'{"annotations": {"%s": "pod"}}' % OURS.replace("o", "\\u006f").encode()
    assert json.loads(escaped)["annotations"] == {OURS: "pod"}
    assert annotated_group(escaped) == ""


def test_white_space_and_order_do_not_matter() -> None:
    """The last of two equal names counts, as everywhere in JSON."""
    twice = f'"{OURS}"\r\n : "x", "{OURS}":"y"'
    text = '{ "a": 1,\n"annotations" :\t{ ' + twice + ' } , "b": [] }'
    assert annotated_group(text.encode()) == "y"


def test_ten_megabytes_are_no_trouble() -> None:
    """A config with a long environment is read whole."""
    text = json.dumps({"annotations": {GO: "pod"}, "process": {"env": ["x" * 100] * 100_000}})
    assert len(text) > 10_000_000
    assert annotated_group(text.encode()) == "pod"


def test_more_than_create_takes_is_refused() -> None:
    """Read in part, it would be no JSON; what is wrong is its length."""
    text = config(**{GO: "pod"}) + b" " * _group.CONFIG_LIMIT
    with pytest.raises(ValueError, match=r"config\.json is longer than 16777216 bytes"):
        annotated_group(text)


@pytest.mark.parametrize("text", [b'{"%s": ' % OURS.encode(), OURS.encode(), b"[" * 200_000])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    """If it matters; else Create tells."""
    with pytest.raises(ValueError, match=r"config\.json is no JSON, so its group is not known"):
        annotated_group(text + OURS.encode())


@pytest.mark.parametrize(
    ("group", "why"),
    [
        ("", "is empty"),
        ("../x", "letters and digits"),
        ("a b", "letters and digits"),
        ("x" * 77, "at most 76"),
        (WHOLE_NAMESPACE, "letters and digits"),
        (7, "it is 7, not a text"),
        (None, "it is None, not a text"),
    ],
)
def test_a_group_is_called_like_a_container(group: object, why: str) -> None:
    """The error says which annotation, what is wrong and what can be done."""
    with pytest.raises(ValueError, match=why) as caught:
        annotated_group(config(**{CRI: group}))
    assert str(caught.value).startswith(f"annotation {CRI}: ")
    assert str(caught.value).endswith("; correct it, or set TRIOSHIM_GROUP=off")


# ---------------------------------------------------------------- what the environment says


def test_the_environment_decides_who_is_asked() -> None:
    """`off` and `namespace` do not even look at config.json."""
    assert find_group({"TRIOSHIM_GROUP": "off"}, never) == ""
    assert find_group({"TRIOSHIM_GROUP": "namespace"}, never) == WHOLE_NAMESPACE
    for environ in ({}, {"TRIOSHIM_GROUP": ""}, {"TRIOSHIM_GROUP": "pod"}):
        assert find_group(environ, lambda: config(**{GO: "pod-1"})) == "pod-1"


def test_an_unknown_word_is_refused() -> None:
    """With the words that are known."""
    with pytest.raises(ValueError, match="'Pod' is not known: choose off, pod or namespace"):
        find_group({"TRIOSHIM_GROUP": "Pod"}, never)


def test_cores_are_not_shared_by_a_namespace() -> None:
    """SCHED_CORE would silently protect nobody; of a pod it protects the pod."""
    with pytest.raises(ValueError, match="take out one of them"):
        find_group({"TRIOSHIM_GROUP": "namespace", "SCHED_CORE": "1"}, never)
    assert find_group({"SCHED_CORE": "1"}, lambda: config(**{GO: "x"})) == "x"


# ---------------------------------------------------------------- where it listens


def address(group: str = "", id_: str = ID, daemon: str = A, namespace: str = NS) -> str:
    return _group.shim_address(Arguments(Verb.START, namespace, id_, daemon, group=group), "/s")


def test_alone_is_as_ever() -> None:
    """containerd's own rule."""
    assert address() == bootstrap.socket_address(A, NS, ID, "/s")


def test_a_group_has_one_address() -> None:
    """Whichever container asks; another daemon, namespace or name has another."""
    assert address("pod", "a") == address("pod", "b")
    ways = [address(), address("pod"), address("pod2"), address(WHOLE_NAMESPACE)]
    ways += [address("pod", daemon=A + "2"), address("pod", namespace="default")]
    ways += [address("pod", daemon=A, namespace=NS + "-x"), address(ID)]
    assert len(set(ways)) == len(ways)


@pytest.mark.parametrize("group", ["pod", ID, WHOLE_NAMESPACE])
def test_a_go_shim_is_never_met(group: str) -> None:
    """It hashes a cleaned path, whatever the annotation is; ours is over one that is not clean."""
    digest = address(group).rpartition("/")[2]
    key = f"{A}//{NS}//{group}//{__version__}"
    assert digest == hashlib.sha256(key.encode()).hexdigest()
    assert "//" in key
    for value in (group, f"/{group}", f"/{NS}//{group}//{__version__}", f"//{group}"):
        assert address(group) != bootstrap.socket_address(A, NS, value, "/s")
    assert address(group) != bootstrap.socket_address("", key, "", "/s")


def test_the_server_is_told_its_group() -> None:
    """And one that has none hears nothing of it."""
    arguments = Arguments(Verb.START, NS, ID, A, group="pod")
    argv = bootstrap.server_argv("/py", arguments)
    assert bootstrap.parse_arguments(argv[4:]) == arguments.replace(verb=Verb.SERVE)
    assert "-group" not in bootstrap.server_argv("/py", arguments.replace(group=""))


@pytest.mark.parametrize(("group", "good"), [("", 1), ("*", 1), ("pod", 1), ("-x", 0), ("*a", 0)])
def test_a_wrong_group_is_refused(group: str, good: int) -> None:
    """A command line that `start` would not make."""
    arguments = Arguments(Verb.SERVE, NS, ID, A, group=group)
    if good:
        bootstrap.check_arguments(arguments)
    else:
        with pytest.raises(ValueError, match="-group"):
            bootstrap.check_arguments(arguments)


# ---------------------------------------------------------------- the announcement


@pytest.mark.parametrize(
    ("version", "promised"),
    [
        *(("2.4.0", True), ("v2.4.0-beta.1", True), ("2.10", True), ("3.0.0", True)),
        *(("2.4-dev", True), ("2.3.4", False), ("2.3.4+x", False), ("1.7.24", False)),
        *(("", False), ("v2", False), ("2.x.1", False), ("main", False), ("2.", False)),
        *(("²·4", False), ("2.²", False)),
    ],
)
def test_version_3_is_for_who_can_have_it(version: str, promised: bool) -> None:
    """Only a daemon that said so is taken for one; and never for a container that is alone."""
    assert _group.promises_several("pod", version) is promised
    assert not _group.promises_several("", version)


def test_version_3_is_json() -> None:
    """With `unix://`, as the ttrpc dialer wants it; gRPC is announced as before."""
    said = _dialects.announcement("unix:///s/x", _dialects.Wire.TTRPC, several=True)
    assert json.loads(said) == {"version": 3, "address": "unix:///s/x", "protocol": "ttrpc"}
    assert bootstrap.announced_path(said) == "/s/x"
    grpc = _dialects.announcement("unix:///s/x", _dialects.Wire.GRPC, several=True)
    assert json.loads(grpc) == {"version": 2, "address": "/s/x", "protocol": "grpc"}


# ---------------------------------------------------------------- joining


@pytest.fixture
def path() -> Iterator[Path]:
    """A free place for a socket; pytest's own directories have names that are too long."""
    with tempfile.TemporaryDirectory(prefix="ts-") as directory:
        yield Path(directory, "s")


@contextmanager
def shim(path: Path, talk: Callable[[socket.socket], object]) -> Iterator[list[bytes]]:
    """Whoever connects is listened to and answered, each in turn; what they said."""
    heard: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                heard.append(client.recv(100))
                talk(client)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield heard
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_both_sides_say_the_same() -> None:
    """`start` does not import what the shim has; so the words stand in two places."""
    assert (_sockets.JOIN, _sockets.JOINED) == (_listener.JOIN, _listener.JOINED)


def test_nobody_there(path: Path) -> None:
    """No socket, or one that nobody listens to: then `start` makes a shim."""
    assert _sockets.join(str(path), "c1") == 0
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert _sockets.join(str(path), "c1") == 0


def test_a_shim_gives_its_word(path: Path) -> None:
    """It hears the container's id and tells its pid, in as many pieces as it likes."""

    def talk(client: socket.socket) -> None:
        for piece in (b"+1", b"23", b"\n"):
            client.sendall(piece)

    with shim(path, talk) as heard:
        assert _sockets.join(str(path), "c1") == 123
    assert heard == [b"Jc1\n"]


def test_a_shim_that_is_about_to_end_is_asked_again(path: Path) -> None:
    """Until it lets one in, or does not listen any more."""
    answers = iter([b"", b"+1", b"?7\n", b"+5\n"])
    with shim(path, lambda client: client.sendall(next(answers))) as heard:
        assert _sockets.join(str(path), "c1") == 5
    assert len(heard) == 4


def test_a_shim_that_ends_meanwhile(path: Path) -> None:
    """It has taken the connection and does not listen any more."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def end() -> None:
            client, _ = listener.accept()
            listener.close()
            client.close()  # with "Jc1" unread: a reset

        thread = threading.Thread(target=end)
        thread.start()
        assert _sockets.join(str(path), "c1") == 0
        thread.join()


@pytest.mark.parametrize("backlog", [0, 5])
def test_a_shim_that_says_nothing(
    path: Path, backlog: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user is told where to look, and is not left waiting; a full backlog is the same."""
    monkeypatch.setattr(_sockets, "JOIN_TIMEOUT", 0.1)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(str(path))
        listener.listen(backlog)
        other.connect(str(path))
        with pytest.raises(TimeoutError, match=f"listens at {path} and has not answered in 0.1 s"):
            _sockets.join(str(path), "c1")


def test_a_lock_that_is_taken_now_or_not(path: Path) -> None:
    """Who cannot wait is told; nothing is left of the lock in the end."""
    lock, other = SocketLock(str(path)), SocketLock(str(path))
    assert lock.enter_now()
    assert not other.enter_now()
    lock.leave()
    assert other.enter_now()
    other.leave()
    with lock:
        assert not other.enter_now()
    assert list(path.parent.iterdir()) == []
