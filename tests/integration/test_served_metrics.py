"""A program that serves tells over HTTP of its calls, its queues, what it depends on, and its certificate."""

from __future__ import annotations

import asyncio
import gc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import urlopen

from certificates import Authority
from prometheus_client.parser import text_string_to_metric_families
from real_servers import free_port
from registry_calls import settings
from served_part import LOOPBACK, quick_server, twins

from model_registry.service import NAME, PART
from tutelage.metrics import MetricsSettings
from tutelage.serving import ProgramSettings, serve
from tutelage.settings import Address
from tutelage.tls import ServerTls

SECONDS = 20


def told(address: Address) -> dict[tuple[str, ...], float]:
    """Value of every series by its name and the values of its labels, which are sorted by their names."""
    with urlopen(f"http://{address}/metrics", timeout=SECONDS) as page:
        families = list(text_string_to_metric_families(page.read().decode()))
    return {
        (s.name, *(s.labels[label] for label in sorted(s.labels))): s.value
        for family in families
        for s in family.samples
    }


def test_a_program_tells_of_its_dependencies_queues_and_certificate(tmp_path: Path):
    certificate, key = Authority("ours").issue(tmp_path, "registry")
    metrics = Address(LOOPBACK, free_port())
    program = ProgramSettings(
        quick_server(tls=ServerTls(certificate, key)), MetricsSettings(address=metrics), twins(tmp_path / "objects")
    )

    async def scenario() -> dict[tuple[str, ...], float]:
        serving = asyncio.create_task(serve(program, [(PART, settings(tmp_path))]))
        found: dict[tuple[str, ...], float] = {}
        async with asyncio.timeout(SECONDS):
            while found.get(("tutelage_health_dependency_up", "objects", NAME)) != 1:
                await asyncio.sleep(0.1)
                found = await asyncio.to_thread(told, metrics)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        return found

    found = asyncio.run(scenario())
    assert {found["tutelage_health_dependency_up", name, NAME] for name in ("redis", "objects", "events")} == {1}
    assert found["tutelage_queue_entries", "model.events", "dead"] == 0
    assert found["tutelage_queue_waited_seconds", "model.events"] == 0
    ends = datetime.fromtimestamp(found["tutelage_tls_certificate_end_timestamp_seconds",], UTC)
    assert timedelta(minutes=50) < ends - datetime.now(UTC) < timedelta(minutes=70)


def test_a_program_that_serves_is_not_searched_for_garbage_again_and_again(tmp_path: Path):
    program = ProgramSettings(quick_server(), MetricsSettings(enabled=False), twins(tmp_path / "objects"))
    kept: list[int] = []

    async def scenario() -> None:
        begun = asyncio.Event()
        serving = asyncio.create_task(serve(program, [(PART, settings(tmp_path))], started=lambda _: begun.set()))
        async with asyncio.timeout(SECONDS):
            await begun.wait()
        kept.extend((gc.get_freeze_count(), len(gc.get_objects())))
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    try:
        asyncio.run(scenario())
    finally:
        gc.unfreeze()
    frozen, searched = kept
    assert frozen > 10 * searched
