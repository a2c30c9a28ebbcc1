"""Run snippets of Python that nobody trusts, a few at a time, each in a container of its own.

    sudo python examples/sandbox_untrusted_code.py [IMAGE]

A snippet gets 64 MB, half a processor, 16 processes, 2 seconds and 4000 bytes to say; no network,
no privileges, nothing to write on but memory of its own.  Without an image it can read what
everybody may read on the host's root; give it one that has python3.
"""

import sys

import trio

from trioshim.containers import PIPE, ContainerOptions, ContainerProcess, open_container

SECONDS, MOST, AT_ONCE = 2, 4000, 2
LIMITS = ContainerOptions(memory="64m", cpus=0.5, pids=16, user="65534:65534", read_only=True)
KILLED = 128 + 9  # nobody inside can do that to init: the kernel did, for want of memory

SNIPPETS = {
    "adds": "print(sum(range(10)))",
    "fails": "import nothing",
    "loops": "while True: pass",
    "grows": "data = bytearray(10**9)",
    "talks": "while True: print('more')",
    "calls home": "import socket; socket.create_connection(('192.0.2.1', 80))",
    "writes": "open('/etc/passwd', 'a')",
    "multiplies": "import os\nwhile True: os.fork()",
}


async def judge(snippet: str, options: ContainerOptions) -> str:
    """Run it to its end, or to the first limit that it meets."""
    said = bytearray()
    kill = ContainerProcess.kill  # do not ask first
    command = ["python3", "-I", "-c", snippet]
    async with open_container(
        command, stdout=PIPE, stderr=PIPE, deliver_cancel=kill, **options
    ) as box:
        with trio.move_on_after(SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, box.stdout, said, nursery.cancel_scope)
                nursery.start_soon(read, box.stderr, said, nursery.cancel_scope)
            if len(said) > MOST:
                return "too much to say"
            if await box.wait() == KILLED:
                return "too much memory"
            last = said.decode(errors="replace").strip().rpartition("\n")[2]
            return f"status {box.returncode}: {last!r}"
    return "too slow"


async def read(
    stream: trio.abc.ReceiveStream | None, said: bytearray, both: trio.CancelScope
) -> None:
    """Keep what it says; at `MOST` bytes read no more, from neither stream."""
    assert stream is not None
    async for chunk in stream:
        said += chunk
        if len(said) > MOST:
            both.cancel()


async def main(images: list[str]) -> None:
    options = LIMITS | ContainerOptions(image=images[0]) if images else LIMITS
    places = trio.CapacityLimiter(AT_ONCE)

    async def run(name: str) -> None:
        async with places:
            print(f"{name:<11}", await judge(SNIPPETS[name], options))

    async with trio.open_nursery() as nursery:
        for name in SNIPPETS:
            nursery.start_soon(run, name)


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
