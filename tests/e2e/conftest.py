"""What a user does: pages that are followed, services as processes, alone and together."""

from __future__ import annotations

from real_servers import minio_server, minio_started, pytest_pyfunc_call, redis_server, redis_started

__all__ = ["minio_server", "minio_started", "pytest_pyfunc_call", "redis_server", "redis_started"]
