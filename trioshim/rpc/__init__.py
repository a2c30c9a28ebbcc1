"""Two wires, one service: ttrpc and gRPC on the same socket."""

from ._listener import Server as Server
from ._listener import serve_rpc as serve_rpc
from ._service import Dispatcher as Dispatcher
from ._service import Method as Method
from ._service import Service as Service
