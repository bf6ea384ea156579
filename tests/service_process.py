"""A service as a process of its own, for tests that kill it: started from its module, found by the port it names."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tutelage.channel import Channel, ChannelSettings
from tutelage.settings import Address

START_SECONDS = 60
LOOPBACK = "127.0.0.1"


def stores_environment(redis: Any, minio: Any, bucket: str, folder: Path) -> dict[str, str]:
    """Variables that lead a service to real servers."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "access").write_text("tester")
    (folder / "secret").write_text("tester-secret")
    return {
        "TUTELAGE_STORES_REDIS_ADDRESS": f"{LOOPBACK}:{redis.port}",
        "TUTELAGE_STORES_REDIS_TLS": "false",
        "TUTELAGE_STORES_OBJECTS_ADDRESS": f"{LOOPBACK}:{minio.port}",
        "TUTELAGE_STORES_OBJECTS_BUCKET": bucket,
        "TUTELAGE_STORES_OBJECTS_TLS": "false",
        "TUTELAGE_STORES_OBJECTS_ACCESS_KEY_FILE": str(folder / "access"),
        "TUTELAGE_STORES_OBJECTS_SECRET_KEY_FILE": str(folder / "secret"),
    }


class ServiceProcess:
    """`python -m MODULE`, which is started, killed and started again."""

    def __init__(self, module: str, environment: Mapping[str, str], log: Path) -> None:
        quick = {"TUTELAGE_SERVER_DRAIN_NOTICE": "0", "TUTELAGE_SERVER_DRAIN_GRACE": "2"}
        here = {"TUTELAGE_SERVER_ADDRESS": f"{LOOPBACK}:0", "TUTELAGE_METRICS_ENABLED": "false"}
        self._environment = {**os.environ, **here, **quick, **environment}
        self._command, self.log = [sys.executable, "-m", module], log
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    async def start(self) -> None:
        """Returns once it takes calls."""
        begin = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)
        async with asyncio.timeout(START_SECONDS):
            while not (port := self._port(begin)):
                assert self.process.poll() is None, self.log.read_text()[-2000:]
                await asyncio.sleep(0.02)
        self.port = port

    def _port(self, begin: int) -> int:
        for line in self.log.read_bytes()[begin:].splitlines():
            if b'"server started"' in line and line.endswith(b"}"):
                return int(json.loads(line)["port"])
        return 0

    def kill(self, number: int = signal.SIGKILL) -> int:
        """End it; the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=30)

    @property
    def channel(self) -> Channel:
        """A new channel to where it takes calls now."""
        return Channel(ChannelSettings(Address(LOOPBACK, self.port)))


@asynccontextmanager
async def running(module: str, environment: Mapping[str, str], folder: Path) -> AsyncIterator[ServiceProcess]:
    """A service that takes calls; it is gone afterwards."""
    service = ServiceProcess(module, environment, folder / f"{module}.log")
    await service.start()
    try:
        yield service
    finally:
        if service.process is not None and service.process.poll() is None:
            service.kill()
