"""Health and server reflection: with grpcio's own clients, and by hand where those are polite."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from google.protobuf.descriptor_pool import DescriptorPool
from h2.errors import ErrorCodes

from trioshim.errors import Code
from trioshim.proto import task_v2_pb2 as api
from trioshim.rpc import Service
from trioshim.rpc._grpc_extras import talks_about

from .both_wires import on_a_socket
from .grpc_world import TASK, TASK_PATH, Reply, Tasks, World, framed, open_world, task_service

HEALTH = "/grpc.health.v1.Health"
REFLECTIONS = ["grpc.reflection.v1", "grpc.reflection.v1alpha"]


def info(package: str = REFLECTIONS[0]) -> str:
    return f"/{package}.ServerReflection/ServerReflectionInfo"


def messages() -> tuple[Any, Any]:
    """The classes of question and answer, not ours but grpcio's."""
    reflection = pytest.importorskip(
        "grpc_reflection.v1alpha.reflection_pb2", reason="`grpcio-reflection` is missing"
    )
    return reflection.ServerReflectionRequest, reflection.ServerReflectionResponse


def answers(reply: Reply) -> list[Any]:
    """The messages of a reply that are whole."""
    found, body = [], reply.body
    while body:
        size = 5 + struct.unpack_from(">BI", body)[1]
        if len(body) < size:
            break
        found.append(messages()[1].FromString(body[5:size]))
        body = body[size:]
    return found


async def asked(world: World, **question: Any) -> Any:
    """One question, its answer; the stream ends well."""
    message = messages()[0](**question).SerializeToString()
    reply = await world.peer.called(info(), message)
    assert reply.code == 0
    [answer] = answers(reply)
    return answer


# ---------------------------------------------------------------- with grpcio's clients


async def test_grpcio_asks_for_health(tmp_path: Path) -> None:
    """SERVING for all and for each service, NOT_FOUND for others; Watch is refused, as allowed."""
    health = pytest.importorskip("grpc_health.v1.health_pb2", reason="no `grpcio-health-checking`")
    from grpc_health.v1.health_pb2_grpc import HealthStub

    from .test_grpc_clients import code_of, in_thread

    def use(channel: Any) -> tuple[set[int], int, int]:
        stub = HealthStub(channel)

        def check(service: str) -> int:
            return int(stub.Check(health.HealthCheckRequest(service=service), timeout=30).status)

        def watch() -> list[Any]:
            return list(stub.Watch(health.HealthCheckRequest(), timeout=30))

        served = {check(name) for name in ("", TASK.full_name, "grpc.health.v1.Health")}
        return served, code_of(lambda: check("no.such.Service")), code_of(watch)

    async with on_a_socket(tmp_path / "s", Tasks()):
        found = await in_thread(tmp_path / "s", use)
    assert found == ({health.HealthCheckResponse.SERVING}, Code.NOT_FOUND, Code.UNIMPLEMENTED)


async def test_grpcio_reflects_and_then_calls(tmp_path: Path) -> None:
    """A client without our protos finds services, methods and types, and makes a call of them."""
    database = pytest.importorskip(
        "grpc_reflection.v1alpha.proto_reflection_descriptor_database",
        reason="`grpcio-reflection` is missing",
    )
    from google.protobuf.message_factory import GetMessageClass

    from .test_grpc_clients import in_thread

    def use(channel: Any) -> tuple[list[str], str]:
        source = database.ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(source)
        for name in source.get_services():
            assert pool.FindServiceByName(name).methods
        connect = pool.FindServiceByName(TASK.full_name).FindMethodByName("Connect")
        request = GetMessageClass(connect.input_type)(id="abc")
        call = channel.unary_unary(
            f"{TASK_PATH}/Connect",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(connect.output_type).FromString,
        )
        with pytest.raises(KeyError):
            pool.FindMessageTypeByName("no.such.Message")
        return source.get_services(), call(request, timeout=30).version

    async with on_a_socket(tmp_path / "s", Tasks()):
        services, version = await in_thread(tmp_path / "s", use)
    own = ["grpc.health.v1.Health", *(f"{name}.ServerReflection" for name in REFLECTIONS)]
    assert services == sorted([TASK.full_name, *own])
    assert version == "abc"


@pytest.mark.parametrize("package", REFLECTIONS)
async def test_both_names_of_reflection_answer(package: str) -> None:
    """grpcurl asks v1 first, grpcio v1alpha only; the messages are the same."""
    async with open_world() as world:
        message = messages()[0](list_services="*").SerializeToString()
        reply = await world.peer.called(info(package), message)
        [answer] = answers(reply)
        assert TASK.full_name in [each.name for each in answer.list_services_response.service]


def test_the_default_pool_is_left_alone() -> None:
    """A program that uses grpcio's own health and reflection has these names there already."""
    program = (
        "from trioshim.rpc import _grpc_extras\n"
        "_grpc_extras.talks_about([])\n"
        "from google.protobuf import descriptor_pool as pools\n"
        "for name in ('grpc.health.v1.Health', 'grpc.reflection.v1.ServerReflection'):\n"
        "    try: pools.Default().FindServiceByName(name)\n"
        "    except KeyError: print('free')\n"
    )
    argv = [sys.executable, "-W", "error", "-c", program]
    run = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("free\nfree\n", "")


def test_a_service_of_the_user_comes_before_ours() -> None:
    """Whoever binds the name of ours is asked."""
    ours = talks_about([task_service(Tasks())])
    assert ("grpc.health.v1.Health", "Check") in ours
    theirs = Service(TASK, object(), name="grpc.health.v1.Health")
    assert ("grpc.health.v1.Health", "Check") not in talks_about([theirs])


# ---------------------------------------------------------------- by hand


async def test_questions_are_answered_one_by_one() -> None:
    """Each when it comes, before the next is asked: a stream, not a list."""
    async with open_world() as world:
        request = messages()[0]
        stream_id = await world.peer.call(info(), body=b"", end=False)
        reply = world.peer.replies[stream_id]
        asked_for = ["trioshim/proto/task_v2.proto", "no.proto", api.DESCRIPTOR.name]
        for number, name in enumerate(asked_for, 1):
            question = framed(request(file_by_filename=name).SerializeToString())
            for piece in (question[:3], question[3:]):  # a message may come in pieces
                world.peer.h2.send_data(stream_id, piece)
                await world.peer.flush()
            await world.peer.receive_until(lambda number=number: len(answers(reply)) == number)
        world.peer.h2.end_stream(stream_id)
        await world.peer.flush()
        assert (await world.peer.reply(stream_id)).code == 0
        found = [answer.WhichOneof("message_response") for answer in answers(reply)]
        assert found == ["file_descriptor_response", "error_response", "file_descriptor_response"]
        assert reply.reset is None


@pytest.mark.parametrize(
    ("question", "code"),
    [
        ({"file_containing_symbol": "no.such.Symbol"}, Code.NOT_FOUND),
        ({"file_containing_symbol": ""}, Code.NOT_FOUND),
        ({"file_by_filename": "../../etc/passwd"}, Code.NOT_FOUND),
        ({"all_extension_numbers_of_type": "x"}, Code.NOT_FOUND),
        ({"file_containing_extension": {"containing_type": "x"}}, Code.NOT_FOUND),
        ({}, Code.UNIMPLEMENTED),
    ],
)
async def test_what_is_not_there_is_told_in_the_answer(question: dict[str, Any], code: int) -> None:
    """The stream goes on: only that question has failed."""
    async with open_world() as world:
        answer = await asked(world, host="here", **question)
        assert answer.error_response.error_code == code
        assert (answer.valid_host, answer.original_request.host) == ("here", "here")


async def test_a_file_comes_with_all_that_it_imports() -> None:
    """Itself first; no second question is needed."""
    async with open_world() as world:
        answer = await asked(world, file_containing_symbol=f"{TASK.full_name}.Create")
        files = answer.file_descriptor_response.file_descriptor_proto
        assert files[0] == api.DESCRIPTOR.serialized_pb
        assert len(files) == len(set(files)) > len(api.DESCRIPTOR.dependencies)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (framed(b"\xff"), Code.INTERNAL),
        (b"\1\0\0\0\0", Code.UNIMPLEMENTED),
        (struct.pack(">BI", 0, 1_000_000), Code.RESOURCE_EXHAUSTED),
        (b"\0\0\0", Code.INVALID_ARGUMENT),
        (framed(b"") * 10_000, Code.RESOURCE_EXHAUSTED),
    ],
    ids=["no protobuf", "compressed", "too long", "cut off", "too many"],
)
async def test_a_bad_question_ends_its_stream_only(body: bytes, code: int) -> None:
    """What was asked before it is answered, as far as there is room."""
    async with open_world() as world:
        good = framed(messages()[0](list_services="*").SerializeToString())
        reply = await world.peer.called(info(), body=good + body)
        assert reply.code == code
        assert answers(reply)[0].HasField("list_services_response")
        assert await world.peer.still_served()


async def test_a_stream_that_is_refused_need_not_be_sent_to_its_end() -> None:
    """RST_STREAM(NO_ERROR) after the status."""
    async with open_world() as world:
        stream_id = await world.peer.call(info(), body=b"\1\0\0\0\0", end=False)
        await world.peer.receive_until(lambda: world.peer.replies[stream_id].reset is not None)
        reply = world.peer.replies[stream_id]
        assert (reply.code, reply.reset) == (Code.UNIMPLEMENTED, ErrorCodes.NO_ERROR)
        assert await world.peer.still_served()


async def test_who_asks_and_reads_nothing_is_told_so() -> None:
    """Answers wait for the window, questions do not pile up behind them."""
    async with open_world() as world:
        world.peer.opens_window = False
        question = framed(messages()[0](file_containing_symbol=TASK.full_name).SerializeToString())
        stream_id = await world.peer.call(info(), body=question * 60, end=False)
        reply = world.peer.replies[stream_id]
        await world.peer.receive_until(lambda: len(reply.body) == 65535)
        for _ in range(70):
            world.peer.h2.send_data(stream_id, question)
        await world.peer.flush()
        await trio.testing.wait_all_tasks_blocked()
        world.peer.h2.increment_flow_control_window(2**24)
        world.peer.h2.increment_flow_control_window(2**24, stream_id)
        await world.peer.flush()
        assert (await world.peer.reply(stream_id)).code == Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("end", ["reset", "vanish", "stop"])
async def test_the_end_of_a_stream_that_waits(end: str) -> None:
    """A reset, a client that is gone, our own stop: none waits for a question that never comes."""
    async with open_world() as world:
        stream_id = await world.peer.call(info(), body=b"", end=False)
        await trio.testing.wait_all_tasks_blocked()
        if end == "reset":
            world.peer.h2.reset_stream(stream_id, ErrorCodes.CANCEL)
            assert await world.peer.still_served()
        elif end == "vanish":
            await world.peer.stream.aclose()
            await world.ended.wait()
        else:
            world.reading.cancel()
            assert (await world.peer.reply(stream_id)).code == 0
            await world.ended.wait()


async def test_a_stream_has_a_deadline_too(autojump_clock: trio.testing.MockClock) -> None:
    """As every call."""
    async with open_world() as world:
        headers = {"grpc-timeout": "2S"}
        stream_id = await world.peer.call(info(), body=b"", end=False, **headers)
        assert (await world.peer.reply(stream_id)).code == Code.DEADLINE_EXCEEDED
        assert trio.current_time() == 2


async def test_a_bug_of_ours_ends_the_stream_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """UNKNOWN with its text, and a traceback in the log."""

    def fail(question: bytes) -> bytes:
        raise LookupError("a bug")

    monkeypatch.setattr(
        "trioshim.rpc._grpc.talks_about", lambda _: {("grpc.health.v1.Health", "Check"): fail}
    )
    async with open_world() as world:
        reply = await world.peer.called(f"{HEALTH}/Check", b"")
        assert (reply.code, reply.text) == (Code.UNKNOWN, "a bug")
        assert await world.peer.still_served()
