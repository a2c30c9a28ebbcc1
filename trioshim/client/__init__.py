"""Clients of shims: any shim's, not only this one's."""

from ._event_sink import Event as Event
from ._event_sink import EventSink as EventSink
from ._event_sink import open_event_sink as open_event_sink
from ._launch import launch as launch
from ._launched_shim import LaunchedShim as LaunchedShim
from ._shim_binary import LaunchError as LaunchError
from ._task import Caller as Caller
from ._task import TaskClient as TaskClient
from ._task import Wire as Wire
from ._task import connect as connect
from ._task import open_caller as open_caller
