"""Follows docs/device.md, as `followed_page` says, beside a device."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from followed_page import Page, Served, environment, follow

COMMAND = "python -m device_sim"
START_S = 90.0


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """A device at some free port."""
    run = environment(TERM="dumb", COLUMNS="100", TUTELAGE_DEVICE_ID="gate-7")
    own = {"TUTELAGE_METRICS_ENABLED": "false", "TUTELAGE_SERVER_ADDRESS": "localhost:0"}
    log = folder / "device.log"
    with (
        log.open("wb") as out,
        subprocess.Popen(COMMAND.split(), cwd=folder, env={**run, **own}, stderr=out) as process,
    ):
        try:
            address = f"localhost:{_port(log, process)}"
            yield Served(address, {**run, "TUTELAGE_DEVICE_ADDRESS": address})
        finally:
            process.terminate()


def _port(log: Path, process: subprocess.Popen[bytes]) -> int:
    """Where the device takes calls, as its log says."""
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        if found := re.search(r'"port": (\d+), .*"server started"', log.read_text()):
            return int(found[1])
        time.sleep(0.1)
    sys.exit(f"the device does not start: {log.read_text()}")


if __name__ == "__main__":
    sys.exit(follow(Page("device.md", "localhost:50061", COMMAND, serving)))
