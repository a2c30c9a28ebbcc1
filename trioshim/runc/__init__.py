"""Runtime over the runc / crun / youki command line."""

from ._command import Timeouts as Timeouts
from ._options import RuncOptions as RuncOptions
from ._options import parse_options as parse_options
from ._runc import Runc as Runc
