"""The public of a device of a release: `tutelage device visit` through a forwarded port, as its owner runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from helm_release import Release

PORT = 50_061
"""Where devices take calls."""


def visited(release: Release, device: str, **options: Any) -> dict[str, Any]:
    """What was seen of a public that came to a device."""
    proof = release.certificate()
    words = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    files = ["--ca-file", proof.ca_file, "--certificate-file", proof.certificate_file, "--key-file", proof.key_file]
    with release.forwarded(device, PORT) as address:
        command = [sys.executable, "-m", "tutelage", "device", "visit", "--address", str(address), "--json"]
        done = subprocess.run([*command, *words, *files], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))
