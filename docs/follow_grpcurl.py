"""Follows docs/grpcurl.md, as `followed_page` says, beside `tutelage up`."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from followed_page import DOCS, Page, Served, environment, follow

COMMAND = "tutelage up"


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """All services of the cloud at some free port."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    run = environment(DOCS=str(DOCS), TUTELAGE_METRICS_ENABLED="false")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*COMMAND.split(), "--address", address], cwd=folder, env=run, **pipes) as process:  # type: ignore[call-overload]
        try:
            if not process.stdout.readline():
                sys.exit(f"{COMMAND} does not start")
            yield Served(address, run)
        finally:
            process.terminate()


if __name__ == "__main__":
    sys.exit(follow(Page("grpcurl.md", "localhost:50051", COMMAND, serving)))
