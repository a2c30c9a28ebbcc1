"""ttrpc on trio: a client, a server, and the protocol without I/O.  Knows nothing of containers."""

from ._client import Client as Client
from ._client import open_client as open_client
from ._connection import Connection as Connection
from ._events import NEED_DATA as NEED_DATA
from ._events import BadFrame as BadFrame
from ._events import ConnectionClosed as ConnectionClosed
from ._events import Data as Data
from ._events import Event as Event
from ._events import LocalProtocolError as LocalProtocolError
from ._events import Mode as Mode
from ._events import NeedData as NeedData
from ._events import ProtocolError as ProtocolError
from ._events import RemoteProtocolError as RemoteProtocolError
from ._events import Request as Request
from ._events import Response as Response
from ._events import Role as Role
from ._frames import MAX_LENGTH as MAX_LENGTH
from ._server import serve_connection as serve_connection
