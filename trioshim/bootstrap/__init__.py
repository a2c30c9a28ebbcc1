"""What containerd says when it runs the shim's binary, what follows from it, and the verbs.

Nothing here imports trio or protobuf (`-info` alone needs protobuf): `start` and `delete` run
once for each container.  Decisions are in `_arguments` and `_dialects`, pure; `_start`, `_delete`
and `_info` do them.
"""

from ._arguments import Arguments as Arguments
from ._arguments import Verb as Verb
from ._arguments import check_arguments as check_arguments
from ._arguments import parse_arguments as parse_arguments
from ._dialects import Bootstrap as Bootstrap
from ._dialects import announced_path as announced_path
from ._dialects import plain_path as plain_path
from ._dialects import read_bootstrap as read_bootstrap
from ._dialects import runtime_binary as runtime_binary
from ._dialects import server_argv as server_argv
from ._dialects import server_environment as server_environment
from ._dialects import shim_cgroup as shim_cgroup
from ._dialects import socket_address as socket_address
from ._dialects import ttrpc_address as ttrpc_address
from ._identifiers import check_identifier as check_identifier
