"""Calls are counted by status, in their own registry, also when they fail."""

from __future__ import annotations

import asyncio
import math

import pytest

pytest.importorskip("prometheus_client")

from certificates import Authority
from prometheus_client import CollectorRegistry

from tutelage.calls import Call
from tutelage.errors import SettingsError, Status
from tutelage.metrics import CallMetrics, HealthMetrics, MetricsServer, tell_of_certificate
from tutelage.settings import Address

LABELS = {"service": "s", "method": "m"}


def test_a_call_is_in_flight_while_it_runs_and_counted_by_its_status_after():
    registry = CollectorRegistry()
    call = Call("s", "m")
    with CallMetrics(registry)(call):
        assert registry.get_sample_value("tutelage_grpc_calls_in_flight", LABELS) == 1
        call.status = Status.NOT_FOUND
    assert registry.get_sample_value("tutelage_grpc_calls_in_flight", LABELS) == 0
    assert registry.get_sample_value("tutelage_grpc_calls_total", {**LABELS, "code": "NOT_FOUND"}) == 1
    assert registry.get_sample_value("tutelage_grpc_call_duration_seconds_count", LABELS) == 1


def test_a_call_that_raises_is_counted_too():
    registry = CollectorRegistry()
    call = Call("s", "m", status=Status.CANCELLED)
    with pytest.raises(KeyboardInterrupt), CallMetrics(registry)(call):
        raise KeyboardInterrupt
    assert registry.get_sample_value("tutelage_grpc_calls_total", {**LABELS, "code": "CANCELLED"}) == 1
    assert registry.get_sample_value("tutelage_grpc_calls_in_flight", LABELS) == 0


def test_names_are_ours_and_labels_a_closed_set():
    registry = CollectorRegistry()
    call = Call("s", "m", metadata={"x-device-id": "door-3"}, request_id="r-17")
    with CallMetrics(registry)(call):
        pass
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    assert all(sample.name.startswith("tutelage_grpc_") for sample in samples)
    assert {name for sample in samples for name in sample.labels} == {"service", "method", "code", "le"}


def test_health_tells_of_each_dependency_how_it_answered_last():
    registry, pauses = CollectorRegistry(), [0.0, 60.0]
    labels = {"service": "s", "dependency": "redis"}

    async def redis() -> None:
        await asyncio.sleep(pauses.pop(0))

    check = HealthMetrics(registry).told_of("s", {"redis": redis})["redis"]
    assert registry.get_sample_value("tutelage_health_dependency_up", labels) == 0
    asyncio.run(check())
    assert registry.get_sample_value("tutelage_health_dependency_up", labels) == 1
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(check(), 0.01))
    assert registry.get_sample_value("tutelage_health_dependency_up", labels) == 0


def test_the_end_of_a_certificate_is_that_of_the_file_as_it_is_now(tmp_path):
    registry, file, name = CollectorRegistry(), tmp_path / "tls.crt", "tutelage_tls_certificate_end_timestamp_seconds"
    tell_of_certificate(None, registry)
    assert registry.get_sample_value(name) is None
    tell_of_certificate(file, registry)
    assert math.isnan(registry.get_sample_value(name))
    for authority in (Authority("first"), Authority("second")):
        authority.write(file)
        assert registry.get_sample_value(name) == authority.certificate.not_valid_after_utc.timestamp()


def test_two_servers_do_not_count_into_each_other():
    CallMetrics(CollectorRegistry())
    CallMetrics(CollectorRegistry())


def test_a_port_that_is_taken_is_refused_and_free_again_after_the_end():
    with MetricsServer(CollectorRegistry(), Address("127.0.0.1", 0)) as first:
        address = Address("127.0.0.1", first.port)
        with pytest.raises(SettingsError, match=str(address)):
            MetricsServer(CollectorRegistry(), address)
    MetricsServer(CollectorRegistry(), address).close()
