"""Dead letters are seen, and tried again, with `tutelage queue`."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

pytest.importorskip("redis")

from queue_makers import claimed
from served_part import LOOPBACK

from model_registry.events import QUEUE as EVENTS
from student_distiller.jobs import QUEUE as JOBS
from teacher_inference.label_batches import QUEUE as BATCHES
from tutelage.cli import main
from tutelage.commands.queue import QUEUES
from tutelage.errors import CATALOGUE, Code
from tutelage.queue_entries import State
from tutelage.queues import RedisQueue


@pytest.fixture
def ask(redis_server, monkeypatch, capsys):
    monkeypatch.setenv("TUTELAGE_STORES_REDIS_ADDRESS", f"{LOOPBACK}:{redis_server.port}")
    monkeypatch.setenv("TUTELAGE_STORES_REDIS_TLS", "false")

    def asked(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["queue", *words])
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return asked


def fill(port: int) -> str:
    """Id of a dead letter, beside an entry that waits."""

    async def filled() -> str:
        queue = RedisQueue(f"redis://{LOOPBACK}:{port}", BATCHES)
        entry = await queue.put({"batch": "b7"}, key="a")
        await queue.settle_failed(await claimed(queue), "the teacher\nis gone", retry_after=None)
        await queue.put({"batch": "b8"}, key="b")
        await queue.close()
        return entry

    return asyncio.run(filled())


def state(port: int, entry: str) -> State:
    async def asked() -> State:
        queue = RedisQueue(f"redis://{LOOPBACK}:{port}", BATCHES, lease=timedelta(seconds=1))
        found = await queue.status(entry)
        await queue.close()
        return found.state

    return asyncio.run(asked())


def test_the_queues_are_those_of_the_services():
    assert set(QUEUES) == {EVENTS, JOBS, BATCHES}


def test_a_dead_letter_is_seen_and_revived(ask, redis_server):
    entry = fill(redis_server.port)
    code, out, _ = ask("status")
    assert code == 0
    assert "label.batches: 1 queued, 0 delayed, 0 running, 1 dead; the first has waited" in out
    assert "distill.jobs: 0 queued" in out
    assert json.loads(ask("status", "--json")[1])["label.batches"]["dead"] == 1

    assert ask("dead", BATCHES)[1] == f'{entry}  {{"batch": "b7"}}  deliveries: 1  \'the teacher\\nis gone\'\n'
    (letter,) = json.loads(ask("dead", BATCHES, "--json")[1])
    assert (letter["id"], letter["body"], letter["error"]) == (entry, {"batch": "b7"}, "the teacher\nis gone")

    assert ask("revive", BATCHES, entry)[:2] == (0, f"{entry} is queued again\n")
    assert state(redis_server.port, entry) is State.QUEUED
    assert ask("dead", BATCHES)[1] == ""


def test_what_is_not_there_is_an_error(ask, redis_server):
    for words in (("revive", BATCHES, "nothing"), ("dead", "label.butches")):
        code, _, said = ask(*words)
        assert code == CATALOGUE[Code.ENTRY_UNKNOWN].exit_code
        assert words[-1] in said


def test_without_a_server_it_says_so(monkeypatch, capsys):
    monkeypatch.delenv("TUTELAGE_STORES_REDIS_ADDRESS", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["queue", "status"])
    assert ended.value.code == CATALOGUE[Code.SETTING_INVALID].exit_code
    assert "no Redis server is set" in capsys.readouterr().err
