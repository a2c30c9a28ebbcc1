"""ttrpc without containers: a server and a client on one unix socket.

    python examples/ttrpc_echo.py

The payload of a call is bytes; protobuf is the usual way to make them, not the only one.
"""

import socket
import tempfile

import trio

from trioshim.errors import NotFoundError, UnimplementedError
from trioshim.ttrpc import Request, open_client, serve_connection


async def answer(request: Request) -> bytes:
    """What the server does with a call: give bytes back, or raise a status."""
    match (request.service, request.method):
        case ("example.Echo", "Say"):
            return request.payload
        case ("example.Echo", "Find"):
            raise NotFoundError(f"there is no {request.payload.decode()} here")
    raise UnimplementedError(f"{request.service}/{request.method}")


async def serve(stream: trio.abc.Stream) -> None:
    await serve_connection(stream, answer)


async def call(path: str) -> None:
    async with open_client(await trio.open_unix_socket(path)) as client:
        reply = await client.call("example.Echo", "Say", b"hello", timeout=5)
        print("the server says:", reply.decode())
        try:
            await client.call("example.Echo", "Find", b"treasure")
        except NotFoundError as error:
            print("the server says:", error)


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/echo.sock"
        sock = trio.socket.socket(socket.AF_UNIX)
        await sock.bind(path)
        sock.listen()
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, serve, [trio.SocketListener(sock)])
            await call(path)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
