"""trioshim: a containerd shim for runc, whose order, shutdown and cancellation are its shape.

    await trioshim.serve(listener, runtime=..., kernel=..., publisher=...)

The names below are loaded when they are first used: the verbs `start` and `delete` of the shim's
binary import this package too, and must not pay for trio.
"""

from __future__ import annotations

from ._version import __version__ as __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import abc as abc
    from . import client as client
    from . import errors as errors
    from . import rpc as rpc
    from . import testing as testing
    from . import ttrpc as ttrpc
    from .shim import serve as serve

_MODULES = ("abc", "client", "errors", "rpc", "testing", "ttrpc")


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name == "serve":
        return import_module(".shim", __name__).serve
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_MODULES, "__version__", "serve"])
