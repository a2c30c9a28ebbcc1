"""Services that were written for purerpc, served on our socket."""

from __future__ import annotations

from typing import Any

import purerpc
import pytest
import trio.testing
from google.protobuf.empty_pb2 import Empty
from purerpc.rpc import Cardinality, RPCSignature

from trioshim.errors import NotFoundError
from trioshim.proto import task_v2_pb2 as api
from trioshim.rpc import from_purerpc
from trioshim.testing import MemoryListener
from trioshim.ttrpc import open_client

from .both_wires import serving
from .grpc_world import TASK, TASK_PATH, Peer, Tasks


class Servicer(purerpc.Servicer):  # type: ignore[misc]
    """As protoc-gen-purerpc makes it: methods with the names of the proto, and a `service`."""

    async def State(self, message: api.StateRequest) -> api.StateResponse:  # noqa: N802
        return api.StateResponse(id=message.id)

    async def CloseIO(self, message: Any, request: Any) -> Empty:  # noqa: N802
        assert request is None
        return Empty()

    async def Kill(self, message: Any) -> Empty:  # noqa: N802
        raise ExceptionGroup("a nursery", [purerpc.NotFoundError("container x")])

    async def Pause(self, message: Any) -> Empty:  # noqa: N802
        raise LookupError("a bug")

    async def Wait(self, messages: Any) -> None:  # noqa: N802
        raise AssertionError

    @property
    def service(self) -> purerpc.Service:
        service = purerpc.Service(TASK.full_name)
        for name in ("State", "CloseIO", "Kill", "Pause"):
            types = TASK.methods_by_name[name]
            request, response = (
                getattr(api, types.input_type.name),
                getattr(api, types.output_type.name, Empty),
            )
            signature = RPCSignature(Cardinality.UNARY_UNARY, request, response)
            service.add_method(name, getattr(self, name), signature)
        streaming = RPCSignature(Cardinality.STREAM_UNARY, api.WaitRequest, api.WaitResponse)
        service.add_method("Wait", self.Wait, streaming)
        return service


async def test_it_answers_on_both_wires(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same object, the same statuses: its own, and ours for what it did not mean to raise."""
    bound = from_purerpc(Servicer().service, reads={"State"})
    assert bound.methods["State"].reads
    assert not bound.methods["Kill"].reads
    monkeypatch.setattr("tests.unit.both_wires.task_service", lambda _: bound)
    listener = MemoryListener()
    async with serving(listener, Tasks()):
        async with listener.connect() as stream:
            peer = Peer(stream)
            peer.h2.initiate_connection()
            message = api.StateRequest(id="abc").SerializeToString()
            reply = await peer.called(f"{TASK_PATH}/State", message)
            assert api.StateResponse.FromString(reply.message).id == "abc"
            told = [await peer.called(f"{TASK_PATH}/{name}") for name in ("Kill", "Pause", "Wait")]
            assert [reply.code for reply in told] == [5, 2, 12]
            assert [reply.text for reply in told[:2]] == ["container x: not found", "a bug"]
            assert (await peer.called(f"{TASK_PATH}/CloseIO")).code == 0
        async with open_client(listener.connect()) as client:
            assert await client.call(TASK.full_name, "State", message) == message
            with pytest.raises(NotFoundError, match="container x"):
                await client.call(TASK.full_name, "Kill", b"")
        await trio.testing.wait_all_tasks_blocked()


def test_a_service_of_no_proto_is_refused() -> None:
    """There are no types to decode with; the message says what to do."""
    service = purerpc.Service("no.such.Greeter")
    signature = RPCSignature(Cardinality.UNARY_UNARY, api.StateRequest, api.StateResponse)
    service.add_method("State", Servicer().State, signature)
    with pytest.raises(ValueError, match=r"no\.such\.Greeter: import"):
        from_purerpc(service)
