"""What a person waits for: `trioshim run -- echo hello`, from the shell's prompt to the next.

    python -m benchmarks.run [ROUNDS]

Ways take turns: by a process that is ready (`trioshim.cli._ready`) and a shim from a template, and
without either.  Needs root and runc.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from ._figures import Spread, in_turns, machine
from ._report import Report, Verdict, table
from ._shims import WARM, kinds_here, open_place

__all__ = ["measure"]

WAYS = {"ready": "on", "everything anew": "off"}
_ROUNDS = 20
_ASKED = 150  # milliseconds
_PAUSE = 0.1  # seconds: the next spares
_LIMIT = 60
_PROFILE = Path("/usr/share/containers/seccomp.json")


def _took(command: Path, state: Path, template: str) -> float:
    begun = time.perf_counter()
    done = subprocess.run(
        [str(command), "run", "--state-dir", str(state), "-n", state.parent.name, "echo", "hello"],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TRIOSHIM_TEMPLATE": template},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_LIMIT,
        check=True,
    )
    if done.stdout != b"hello\n":
        raise ValueError(f"it said {done.stdout!r} {done.stderr!r}")
    return (time.perf_counter() - begun) * 1e3


def _measured(rounds: int) -> dict[str, Spread]:
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    with open_place() as place:
        command, state = place.ours.with_name("trioshim"), place.base / "run"
        for _ in range(2):  # the first leaves templates behind, the second uses them
            _took(command, state, "on")
            time.sleep(2)
        for number in range(rounds):
            for way in in_turns(list(WAYS), number):
                found[way].append(_took(command, state, WAYS[way]))
                time.sleep(_PAUSE)
    return {way: Spread.of(took) for way, took in found.items()}


def measure(*, quick: bool, rounds: int = 0) -> Report:
    """A table, and whether somebody has to wait.

    Args:
        quick: few rounds, for a look.
        rounds: so many, whatever `quick` says.
    """
    rounds = rounds or (3 if quick else _ROUNDS)
    found = _measured(rounds)
    rows = [[way, str(spread)] for way, spread in found.items()]
    seccomp = "with" if _PROFILE.exists() else "without"
    note = f"{rounds} rounds, {seccomp} a seccomp profile, on {machine(['trio', 'protobuf'])}"
    lines = (*table(["`trioshim run -- echo hello`", "ms"], rows), "", note)
    ready = found["ready"]
    verdict = Verdict(
        "`trioshim run`, ready", f"below {_ASKED} ms", f"{ready} ms", ready.middle < _ASKED
    )
    return Report("A person's wait", lines, (verdict,))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=_ROUNDS)
    told = parser.parse_args()
    if not kinds_here([WARM]):
        sys.exit("benchmarks.run: our shim cannot be measured here")
    print("\n".join(measure(quick=False, rounds=told.rounds).lines))


if __name__ == "__main__":
    main()
