"""What containerd would hear of a container: its start, pauses, execs, lack of memory, its end.

    sudo python examples/watch_events.py

prints each event while the container gets something to do.
"""

import trio

import trioshim
from trioshim.client import Event, open_event_sink
from trioshim.containers import DEVNULL, Container

GREEDY = ["sh", "-c", "head -c 64m /dev/zero | tail"]  # tail keeps a line until it ends


async def tell(events: trio.MemoryReceiveChannel[Event]) -> None:
    async for event in events:
        fields = {field.name: value for field, value in event.message.ListFields()}
        who = fields.get("exec_id") or fields.get("id") or fields["container_id"]
        print(f"{event.topic:<20} {who:<6} {getattr(event.message, 'exit_status', '')}".rstrip())


async def keep_busy(container: Container) -> None:
    """Pause it, run something in it, let it use too much memory."""
    async with container.paused():
        pass
    async with container.exec(["true"]) as process:
        await process.wait()
    async with container.exec(GREEDY, stdout=DEVNULL, stderr=DEVNULL) as process:
        await process.wait()


async def main() -> None:
    async with (
        open_event_sink() as sink,
        sink.subscribe() as events,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(tell, events)
        async with trioshim.open_container(
            ["sleep", "600"], id="busy", memory="32m", events=sink
        ) as container:
            await keep_busy(container)
        sink.close()  # all is told; `tell` ends


if __name__ == "__main__":
    trio.run(main)
