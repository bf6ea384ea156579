"""Claims that are cancelled at any moment take nothing with them."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from datetime import timedelta

import pytest

pytest.importorskip("redis")

from queue_makers import SOON, Memory, Redis, claimed

LEASE = timedelta(minutes=5)  # an entry that a cancelled claim kept would not be seen again here


@pytest.fixture(params=["memory", "redis"])
def make(request):
    return Memory() if request.param == "memory" else Redis(request.getfixturevalue("redis_server"))


async def test_no_entry_is_lost_or_counted_to_a_claim_that_was_cancelled(make, seed):
    queue, rng = make(lease=LEASE), random.Random(seed)
    put = {await queue.put({}, key=str(n)) for n in range(20)}
    done = set()
    for _ in range(200):
        claiming = asyncio.create_task(queue.claim("hasty", wait=SOON))
        await asyncio.sleep(rng.uniform(0, 0.002))
        claiming.cancel()
        with suppress(asyncio.CancelledError):
            claim = await claiming
            await queue.give_back(claim)
    while len(done) < len(put):
        claim = await claimed(queue)
        assert claim.deliveries == 1
        done.add(claim.entry.id)
        await queue.settle_done(claim)
    assert done == put
