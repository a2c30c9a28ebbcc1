"""Run a command in a container of its own, as `trio.run_process` runs a process.

    sudo python examples/run_container.py echo hello

No daemon and no image: the container has the host's root file system, read-only, and no network.
"""

import sys

import trio

import trioshim

SECONDS = 60


async def main(args: list[str]) -> int:
    with trio.fail_after(SECONDS):  # when the time is over, so is the container
        done = await trioshim.run_container(args, check=False, memory="256m")
    return done.returncode


if __name__ == "__main__":
    sys.exit(trio.run(main, sys.argv[1:]))
