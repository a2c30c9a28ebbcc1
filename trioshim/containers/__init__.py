"""Containers that a trio program holds as it holds a task: for as long as a block lasts."""

from ..client import LaunchError as LaunchError
from ._container import Container as Container
from ._image import Image as Image
from ._image import unpack_image as unpack_image
from ._mounts import Bind as Bind
from ._mounts import Tmpfs as Tmpfs
from ._open import open_container as open_container
from ._options import ContainerOptions as ContainerOptions
from ._outputs import DEVNULL as DEVNULL
from ._outputs import PIPE as PIPE
from ._process import ContainerProcess as ContainerProcess
from ._run import CompletedContainer as CompletedContainer
from ._run import ContainerFailedError as ContainerFailedError
from ._run import run_container as run_container
from ._spec import Terminal as Terminal
from ._stats import Stats as Stats
