"""containerd's Task API in terms of `trioshim.abc`: it knows no wire, no kernel and no runc."""

from ._containers import Containers as Containers
from ._containers import open_containers as open_containers
from ._events import open_events as open_events
from ._service import READS as READS
from ._service import TaskService as TaskService
