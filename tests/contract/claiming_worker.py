"""A worker in a process of its own, to be killed: claims one entry, tells so, and holds it until the end.

Arguments: address of the server, name of the queue, lease in seconds, and `renew` to keep the claim alive.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from tutelage.queues import RedisQueue


async def main(url: str, name: str, lease: str, mode: str) -> None:
    queue = RedisQueue(url, name, lease=timedelta(seconds=float(lease)))
    claim = await queue.claim("doomed", wait=timedelta(seconds=20))
    sys.stdout.write(f"{claim.deliveries}\n")
    sys.stdout.flush()
    while True:
        await asyncio.sleep(float(lease) / 3)
        if mode == "renew":
            await queue.renew(claim)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
