"""Health and server reflection: what `grpcurl` and probes ask of every gRPC server.

`grpc.health.v1.Health/Check` says SERVING for what is served here; whoever can ask, is served.
`grpc.reflection.v1.ServerReflection` (and v1alpha, the same under an older name) gives the
descriptors that the services are bound to.  Both are functions of bytes: see `_grpc_talk`.

Rules of this file:

* the descriptors of the two protocols are in a pool of their own: a program that uses grpcio's
  packages for them has these names in the default pool already;
* any question has an answer or a status; neither depends on what was asked before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any

from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from ..errors import InternalError, NotFoundError
from ._grpc_talk import Talk
from ._service import Service

__all__ = ["talks_about"]

_HEALTH = "grpc.health.v1"
_REFLECTIONS = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
_SERVING = 1
_NOT_FOUND, _UNIMPLEMENTED = 5, 12  # gRPC's codes, inside of a reflection's answer

# A field: its name, its number and its type, which may be a message of the same file.  Before the
# type comes `repeated`, `enum` or the name of the oneof that it is in.
_Fields = tuple[tuple[str, int, str], ...]

_HEALTH_MESSAGES: dict[str, _Fields] = {
    "HealthCheckRequest": (("service", 1, "string"),),
    "HealthCheckResponse": (("status", 1, "enum ServingStatus"),),
}
_REFLECTION_MESSAGES: dict[str, _Fields] = {
    "ServerReflectionRequest": (
        ("host", 1, "string"),
        ("file_by_filename", 3, "message_request string"),
        ("file_containing_symbol", 4, "message_request string"),
        ("file_containing_extension", 5, "message_request ExtensionRequest"),
        ("all_extension_numbers_of_type", 6, "message_request string"),
        ("list_services", 7, "message_request string"),
    ),
    "ExtensionRequest": (("containing_type", 1, "string"), ("extension_number", 2, "int32")),
    "ServerReflectionResponse": (
        ("valid_host", 1, "string"),
        ("original_request", 2, "ServerReflectionRequest"),
        ("file_descriptor_response", 4, "message_response FileDescriptorResponse"),
        ("all_extension_numbers_response", 5, "message_response ExtensionNumberResponse"),
        ("list_services_response", 6, "message_response ListServiceResponse"),
        ("error_response", 7, "message_response ErrorResponse"),
    ),
    "FileDescriptorResponse": (("file_descriptor_proto", 1, "repeated bytes"),),
    "ExtensionNumberResponse": (
        ("base_type_name", 1, "string"),
        ("extension_number", 2, "repeated int32"),
    ),
    "ListServiceResponse": (("service", 1, "repeated ServiceResponse"),),
    "ServiceResponse": (("name", 1, "string"),),
    "ErrorResponse": (("error_code", 1, "int32"), ("error_message", 2, "string")),
}


def talks_about(services: Iterable[Service]) -> Mapping[tuple[str, str], Talk]:
    """Who answers for health and reflection, by service and method.

    Args:
        services: what is served; one that has the name of ours is served instead of it.
    """
    own = {name: pool.FindServiceByName(name) for pool, name in _own_services()}
    served = own | {service.name: service.descriptor for service in services}
    talks: dict[tuple[str, str], Talk] = {}
    for name, descriptor in own.items():
        if served[name] is descriptor:
            answer = _check if name.startswith(_HEALTH) else _reflect
            method = descriptor.methods[0]
            talks[name, method.name] = partial(_talk, method, answer, served)
    return talks


_Answer = Callable[[Any, Any, Mapping[str, ServiceDescriptor]], None]


def _talk(
    method: Any, answer: _Answer, served: Mapping[str, ServiceDescriptor], question: bytes
) -> bytes:
    request = GetMessageClass(method.input_type)()
    reply: Message = GetMessageClass(method.output_type)()
    try:
        request.ParseFromString(question)
    except DecodeError as error:
        raise InternalError(f"cannot read the payload of {method.name}: {error}") from None
    answer(request, reply, served)
    return reply.SerializeToString()


# ---------------------------------------------------------------- what they answer


def _check(request: Any, reply: Any, served: Mapping[str, ServiceDescriptor]) -> None:
    if request.service and request.service not in served:
        raise NotFoundError(f"service {request.service}")
    reply.status = _SERVING


def _reflect(request: Any, reply: Any, served: Mapping[str, ServiceDescriptor]) -> None:
    reply.valid_host = request.host
    reply.original_request.CopyFrom(request)
    pools = {service.file.pool for service in served.values()}
    match request.WhichOneof("message_request"):
        case "list_services":
            for name in sorted(served):
                reply.list_services_response.service.add(name=name)
        case "file_by_filename":
            name = request.file_by_filename
            _tell_file(reply, name, [partial(pool.FindFileByName, name) for pool in pools])
        case "file_containing_symbol":
            name = request.file_containing_symbol  # of a method, it is that of its service
            names = (name, name.rpartition(".")[0])
            finds = [partial(pool.FindFileContainingSymbol, n) for n in names for pool in pools]
            _tell_file(reply, name, finds)
        case "all_extension_numbers_of_type" | "file_containing_extension":
            _tell_error(reply, _NOT_FOUND, "proto3 has no extensions")
        case _:
            _tell_error(reply, _UNIMPLEMENTED, "a question that nobody knows here")


def _tell_file(reply: Any, name: str, finds: Iterable[Callable[[], FileDescriptor]]) -> None:
    for find in finds:
        try:
            found = find()
        except KeyError:
            continue
        files = {file.name: file.serialized_pb for file in _with_imports(found)}
        reply.file_descriptor_response.file_descriptor_proto.extend(files.values())
        return
    _tell_error(reply, _NOT_FOUND, f"{name}: not found")


def _with_imports(file: FileDescriptor) -> list[FileDescriptor]:
    """Itself first: a client need not ask for the others."""
    return [file, *(deep for near in file.dependencies for deep in _with_imports(near))]


def _tell_error(reply: Any, code: int, message: str) -> None:
    reply.error_response.error_code = code
    reply.error_response.error_message = message


# ---------------------------------------------------------------- their descriptors


def _own_services() -> list[tuple[DescriptorPool, str]]:
    pool = _own_pool()
    names = [f"{_HEALTH}.Health", *(f"{package}.ServerReflection" for package in _REFLECTIONS)]
    return [(pool, name) for name in names]


@cache
def _own_pool() -> DescriptorPool:
    pool = DescriptorPool()
    health = _file(_HEALTH, _HEALTH_MESSAGES)
    values = health.message_type[1].enum_type.add(name="ServingStatus").value
    for number, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        values.add(name=name, number=number)
    service = health.service.add(name="Health")
    types = [f".{_HEALTH}.{name}" for name in _HEALTH_MESSAGES]
    service.method.add(name="Check", input_type=types[0], output_type=types[1])
    service.method.add(
        name="Watch", input_type=types[0], output_type=types[1], server_streaming=True
    )
    pool.Add(health)
    for package in _REFLECTIONS:
        pool.Add(_reflection(package))
    return pool


def _reflection(package: str) -> FileDescriptorProto:
    file = _file(package, _REFLECTION_MESSAGES)
    file.service.add(name="ServerReflection").method.add(
        name="ServerReflectionInfo",
        input_type=f".{package}.ServerReflectionRequest",
        output_type=f".{package}.ServerReflectionResponse",
        client_streaming=True,
        server_streaming=True,
    )
    return file


def _file(package: str, messages: Mapping[str, _Fields]) -> FileDescriptorProto:
    name = package.replace(".", "/") + ".proto"
    file = FileDescriptorProto(name=name, package=package, syntax="proto3")
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for field_name, number, words in fields:
            mark, _, kind = words.rpartition(" ")
            field = message.field.add(name=field_name, number=number)
            field.label = field.LABEL_REPEATED if mark == "repeated" else field.LABEL_OPTIONAL
            if mark.startswith("message_"):
                if not message.oneof_decl:
                    message.oneof_decl.add(name=mark)
                field.oneof_index = 0
            if mark == "enum":
                field.type, field.type_name = field.TYPE_ENUM, f".{package}.{message_name}.{kind}"
            elif kind in messages:
                field.type, field.type_name = field.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind.upper()}")
    return file
