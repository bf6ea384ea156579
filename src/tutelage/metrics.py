"""Metrics: numbers about a running service that Prometheus collects over HTTP.

Names are `tutelage_<area>_<what>_<unit>`. Labels come from closed sets (services, methods, status codes), never from
devices, persons or anything a caller makes up: those grow without bound and tell who was where. Every program has its
own registry, so that two servers in one process, or two tests, do not count into each other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from cryptography import x509
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from tutelage.calls import Call
from tutelage.errors import SettingsError
from tutelage.health import Check
from tutelage.settings import Address

__all__ = ["CallMetrics", "HealthMetrics", "MetricsServer", "MetricsSettings", "tell_of_certificate"]

SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""From an answer out of memory (1 ms) to the longest deadline of a unary call (a minute)."""


@dataclass(frozen=True)
class MetricsSettings:
    """Where metrics are served."""

    enabled: bool = True
    """Whether metrics are served at all."""
    address: Address = field(default_factory=lambda: Address("127.0.0.1", 9464))
    """Where Prometheus collects them over plain HTTP, without any login. Only this machine by default."""


class CallMetrics:
    """Counts, durations and concurrency of a server's calls; an instance is a layer around them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the three metrics in `registry`, which must not have them yet."""
        labels = ("service", "method")
        self._calls = Counter(
            "tutelage_grpc_calls", "Calls that were answered, by status.", (*labels, "code"), registry=registry
        )
        self._seconds = Histogram(
            "tutelage_grpc_call_duration_seconds",
            "From a call's first byte to its last answer.",
            labels,
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self._running = Gauge(
            "tutelage_grpc_calls_in_flight", "Calls that are being answered now.", labels, registry=registry
        )

    @contextmanager
    def __call__(self, call: Call) -> Iterator[None]:
        """Count `call` while it runs and after it ended."""
        begun = time.perf_counter()
        running = self._running.labels(call.service, call.method)
        running.inc()
        try:
            yield
        finally:
            running.dec()
            self._seconds.labels(call.service, call.method).observe(time.perf_counter() - begun)
            self._calls.labels(call.service, call.method, call.status.value).inc()


class HealthMetrics:
    """Whether what services depend on answered when it was last asked."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metric in `registry`, which must not have it yet."""
        self._up = Gauge(
            "tutelage_health_dependency_up",
            "Whether a dependency of a service answered, 1 or 0; the service is SERVING while all do.",
            ("service", "dependency"),
            registry=registry,
        )

    def told_of(self, service: str, checks: Mapping[str, Check]) -> dict[str, Check]:
        """The same `checks` of `service`, by dependency; whoever runs them tells the metric how they end."""
        return {dependency: self._telling(service, dependency, check) for dependency, check in checks.items()}

    def _telling(self, service: str, dependency: str, check: Check) -> Check:
        up = self._up.labels(service, dependency)

        async def told() -> None:
            try:
                await check()
            except BaseException:  # a check that takes too long is cancelled
                up.set(0)
                raise
            up.set(1)

        return told


def tell_of_certificate(file: Path | None, registry: CollectorRegistry) -> None:
    """Let `registry` tell when the certificate in `file`, as it is whenever somebody collects, ends; without one, none.

    A file that cannot be read at the moment, half-written perhaps, makes that NaN, with which no comparison holds.
    """
    if file is None:
        return

    def ends() -> float:
        try:
            return x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc.timestamp()
        except (OSError, ValueError):
            return math.nan

    gauge = Gauge(
        "tutelage_tls_certificate_end_timestamp_seconds",
        "UNIX time at which the server's own certificate is no longer valid.",
        registry=registry,
    )
    gauge.set_function(ends)


class MetricsServer:
    """A registry over HTTP from construction to `close`, in a thread of its own; a context manager."""

    def __init__(self, registry: CollectorRegistry, address: Address) -> None:
        """Serve `registry` at `address`.

        Raises:
            SettingsError: The address cannot be listened on.
        """
        try:
            self._http, self._thread = start_http_server(address.port, address.host.strip("[]"), registry)
        except OSError as error:
            raise SettingsError(f"metrics cannot be served at {address}: {error.strerror or error}") from error
        self.port: int = self._http.server_port
        """The TCP port that is listened on."""
        structlog.get_logger().info("metrics served", port=self.port)

    def close(self) -> None:
        """Stop serving; returns once the port is free."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
