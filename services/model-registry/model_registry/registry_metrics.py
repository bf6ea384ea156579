"""What Prometheus learns of the registry beyond its calls: versions made, and bytes of packages moved."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

__all__ = ["RegistryMetrics"]


class RegistryMetrics:
    """Counters of one registry."""

    def __init__(self, metrics: CollectorRegistry) -> None:
        """Register them in `metrics`, which must not have them yet."""
        self._versions = Counter("tutelage_registry_versions_created", "Versions made.", registry=metrics)
        self._bytes = Counter(
            "tutelage_registry_transferred_bytes",
            "Bytes of packages taken in and sent out.",
            ("direction",),
            registry=metrics,
        )

    def created(self) -> None:
        """Count a version."""
        self._versions.inc()

    def received(self, size_bytes: int) -> None:
        """Count bytes that came in."""
        self._bytes.labels("in").inc(size_bytes)

    def sent(self, size_bytes: int) -> None:
        """Count bytes that went out."""
        self._bytes.labels("out").inc(size_bytes)
