"""The only package that makes system calls: the ports of `trioshim.abc` on this machine."""

from ._kernel import LinuxKernel as LinuxKernel
from ._libc import become_subreaper as become_subreaper
from ._listener import PrivateListener as PrivateListener
from ._listener import open_listener as open_listener
from ._log import FifoHandler as FifoHandler
from ._spawn import keep_fds as keep_fds
