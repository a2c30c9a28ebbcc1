"""Clients of shims: any shim's, not only this one's."""

from ._task import Caller as Caller
from ._task import TaskClient as TaskClient
from ._task import connect as connect
