"""trioshim: a containerd shim for runc, whose order, shutdown and cancellation are its shape.

    await trioshim.run_container(["echo", "hello"])
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
    from . import containers as containers
    from . import errors as errors
    from . import rpc as rpc
    from . import testing as testing
    from . import ttrpc as ttrpc
    from .containers import open_container as open_container
    from .containers import run_container as run_container
    from .shim import serve as serve

_MODULES = ("abc", "client", "containers", "errors", "rpc", "testing", "ttrpc")
_NAMES = {"open_container": "containers", "run_container": "containers", "serve": "shim"}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _NAMES:
        return getattr(import_module(f".{_NAMES[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_MODULES, *_NAMES, "__version__"])
