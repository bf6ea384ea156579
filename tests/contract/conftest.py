"""Contract suites run against real servers and their twins."""

from __future__ import annotations

from model_servers import mlserver_server, mlserver_started, torchserve_server, torchserve_started
from real_servers import minio_server, minio_started, pytest_pyfunc_call, redis_server, redis_started
from served_registry import registries, registry, stores

__all__ = [
    "minio_server",
    "minio_started",
    "mlserver_server",
    "mlserver_started",
    "pytest_pyfunc_call",
    "redis_server",
    "redis_started",
    "registries",
    "registry",
    "stores",
    "torchserve_server",
    "torchserve_started",
]
