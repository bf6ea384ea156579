"""Makes the queues that the contract suite tests, kills their workers, and waits for what becomes of entries."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from tutelage.errors import Code
from tutelage.memory_queue import MemoryQueue
from tutelage.queue_entries import Claim, Queue, State, work
from tutelage.queues import RedisQueue

LEASE = timedelta(seconds=0.6)
SOON = timedelta(seconds=20)
NOW = timedelta()
WORKER = Path(__file__).parent / "contract/claiming_worker.py"


class Redis:
    """Makes queues on the server; a worker dies by SIGKILL."""

    def __init__(self, server):
        self.server, self.url = server, f"redis://127.0.0.1:{server.port}"
        self.name, self.made = f"test-{secrets.token_hex(4)}", []

    def __call__(self, **numbers) -> RedisQueue:
        self.made.append(RedisQueue(self.url, self.name, **{"poll": timedelta(seconds=0.1)} | numbers))
        return self.made[-1]

    async def close(self) -> None:
        for queue in self.made:
            await queue.close()

    async def die_with_a_claim(self, queue: Queue) -> int:
        """Deliveries that a worker saw which was then killed."""
        command = [sys.executable, str(WORKER), self.url, self.name, str(queue.lease.total_seconds()), "hold"]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        deliveries = int(await process.stdout.readline())
        process.kill()
        await process.wait()
        process._transport.close()
        return deliveries


class Memory:
    """Makes the twin; a worker dies by forgetting its claim."""

    def __call__(self, **numbers) -> MemoryQueue:
        return MemoryQueue(**{"poll": timedelta(seconds=0.1)} | numbers)

    async def close(self) -> None:
        pass

    async def die_with_a_claim(self, queue: Queue) -> int:
        return (await queue.claim("doomed", wait=SOON)).deliveries


@asynccontextmanager
async def working(queue: Queue, handler: Callable, workers: int = 1):
    """`workers` loops run `handler` until the block ends, then finish what they began."""
    stop = asyncio.Event()
    loops = [asyncio.create_task(work(queue, handler, worker=f"w{n}", stop=stop)) for n in range(workers)]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*loops)


async def until(queue: Queue, entry: str, state: State) -> None:
    async with asyncio.timeout(30):
        while (await queue.status(entry)).state is not state:
            await asyncio.sleep(0.02)


async def claimed(queue: Queue, *, wait: timedelta = SOON) -> Claim:
    claim = await queue.claim("w", wait=wait)
    assert claim is not None
    return claim


def code(raised) -> Code:
    return raised.value.code
