"""For all tests: signals do what they do for people, whoever has started the tests."""

from __future__ import annotations

import signal
from typing import Any

# What a shell has started in the background has the first two ignored; `nohup` does the third.
_USUAL: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGQUIT: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}


def pytest_configure() -> None:
    for signum, usual in _USUAL.items():
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, usual)
