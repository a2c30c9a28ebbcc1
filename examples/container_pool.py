"""A pool: containers that stay, and jobs that go to whichever is free.

    sudo python examples/container_pool.py

Starting a container takes a tenth of a second or more; asking one that runs, almost nothing.
"""

import trio

from trioshim.containers import PIPE, open_container

SIZE, JOBS = 3, range(20)
SQUARE = ["sh", "-c", "while read n; do echo $((n * n)); done"]


async def serve_worker(
    jobs: trio.MemoryReceiveChannel[int],
    squares: dict[int, int],
    *,
    task_status: trio.TaskStatus[str],
) -> None:
    """One container of the pool, until there are no more jobs."""
    async with open_container(SQUARE, stdin=PIPE, stdout=PIPE, memory="32m", cpus=0.5) as box:
        assert box.stdin is not None
        assert box.stdout is not None
        task_status.started(box.id)
        async for job in jobs:
            await box.stdin.send_all(b"%d\n" % job)
            squares[job] = int(await box.stdout.receive_some())  # a short line comes whole


async def main() -> None:
    send, receive = trio.open_memory_channel[int](0)
    squares: dict[int, int] = {}
    async with send, trio.open_nursery() as pool:
        for _ in range(SIZE):
            name = await pool.start(serve_worker, receive.clone(), squares)
            print("ready:", name)
        for job in JOBS:
            await send.send(job)
        await send.aclose()
    # Here all three are gone; they would be, too, if one had failed or somebody had cancelled us.
    print(squares == {n: n * n for n in JOBS})


if __name__ == "__main__":
    trio.run(main)
