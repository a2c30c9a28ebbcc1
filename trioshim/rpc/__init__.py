"""Two wires, one service: ttrpc and gRPC on the same socket."""

from .._instant import instant as instant
from ._grpc_client import GrpcClient as GrpcClient
from ._grpc_client import open_grpc_client as open_grpc_client
from ._listener import Server as Server
from ._listener import serve_rpc as serve_rpc
from ._purerpc import from_purerpc as from_purerpc
from ._service import Dispatcher as Dispatcher
from ._service import Method as Method
from ._service import Service as Service
