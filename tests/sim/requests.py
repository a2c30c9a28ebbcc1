"""Short names for the requests of the Task service."""

from __future__ import annotations

import json

from google.protobuf.any_pb2 import Any

from trioshim.proto import task_v2_pb2 as api
from trioshim.proto.types_pb2 import Mount


def create(id_: str, **more: object) -> api.CreateTaskRequest:
    request = api.CreateTaskRequest(
        id=id_,
        bundle=f"/bundles/{id_}",
        rootfs=[Mount(type="bind", source="/images/busybox", options=["rbind"])],
    )
    for name, value in more.items():
        setattr(request, name, value)
    return request


def start(id_: str, exec_id: str = "") -> api.StartRequest:
    return api.StartRequest(id=id_, exec_id=exec_id)


def exec_(id_: str, exec_id: str) -> api.ExecProcessRequest:
    process = json.dumps({"args": ["true"], "cwd": "/"}).encode()
    return api.ExecProcessRequest(id=id_, exec_id=exec_id, spec=Any(type_url="p", value=process))


def wait(id_: str, exec_id: str = "") -> api.WaitRequest:
    return api.WaitRequest(id=id_, exec_id=exec_id)


def state(id_: str, exec_id: str = "") -> api.StateRequest:
    return api.StateRequest(id=id_, exec_id=exec_id)


def kill(id_: str, exec_id: str = "", signal: int = 9, *, all_: bool = False) -> api.KillRequest:
    return api.KillRequest(id=id_, exec_id=exec_id, signal=signal, all=all_)


def delete(id_: str, exec_id: str = "") -> api.DeleteRequest:
    return api.DeleteRequest(id=id_, exec_id=exec_id)


def shutdown(id_: str = "") -> api.ShutdownRequest:
    return api.ShutdownRequest(id=id_)
