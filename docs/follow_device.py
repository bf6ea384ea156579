"""Follows docs/device.md: starts a device, runs every command of the page in order, and writes the answers.

    python docs/follow_device.py           # write the page anew
    python docs/follow_device.py --check   # only compare; exit status 1 where an answer is another than the page's

What differs from run to run is compared by its form alone, as in `follow_grpcurl`, and so is the width of columns.
Needs `grpcurl` and `bash` on the path.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from follow_grpcurl import COMMAND, CONSOLE, form

PAGE = Path(__file__).with_name("device.md")
ADDRESS = "localhost:50061"
DEVICE = "python -m device_sim"
"""Begins the block that this script runs itself."""
START_S = 90.0
WIDTH = re.compile(r"[ ─]{2,}")


def followed(page: str, run: Mapping[str, str], folder: Path) -> str:
    """The page with the answers of now."""

    def answered(block: re.Match[str]) -> str:
        if DEVICE in block[1]:
            return block[0]
        shown = "".join(f"$ {c}\n{_answer(c, run, folder)}" for c in COMMAND.findall(block[1]))
        return f"```console\n{shown}```"

    return CONSOLE.sub(answered, page)


def _answer(command: str, run: Mapping[str, str], folder: Path) -> str:
    """What a command prints, errors too: some of them are there to be seen."""
    here = command.replace(ADDRESS, run["TUTELAGE_DEVICE_ADDRESS"])
    done = subprocess.run(
        ["bash", "-c", here], cwd=folder, env=dict(run), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    text = done.stdout.decode().replace(run["TUTELAGE_DEVICE_ADDRESS"], ADDRESS)
    text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    return text.strip("\n") + "\n" if text.strip() else ""


@contextmanager
def serving(folder: Path) -> Iterator[dict[str, str]]:
    """The environment of the page's commands, while a device serves in `folder`."""
    run = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "NO_COLOR": "1"}
    run |= {"TERM": "dumb", "COLUMNS": "100", "TUTELAGE_SERVER_DRAIN_NOTICE": "0"}
    run |= {"TUTELAGE_DEVICE_ID": "gate-7"}
    own = {"TUTELAGE_METRICS_ENABLED": "false", "TUTELAGE_SERVER_ADDRESS": "localhost:0"}
    log = folder / "device.log"
    with (
        log.open("wb") as out,
        subprocess.Popen(["python", "-m", "device_sim"], cwd=folder, env={**run, **own}, stderr=out) as process,
    ):
        try:
            yield run | {"TUTELAGE_DEVICE_ADDRESS": f"localhost:{_port(log, process)}"}
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


def compared(text: str) -> list[str]:
    """Lines whose differences matter."""
    return WIDTH.sub(" ", form(text)).splitlines()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true")
    words = parser.parse_args()
    if not shutil.which("grpcurl"):
        sys.exit("grpcurl is not on the path")
    before = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as run:
        after = followed(before, run, Path(name))
    if not words.check:
        PAGE.write_text(after, encoding="utf-8")
        return 0
    different = list(difflib.unified_diff(compared(before), compared(after), "page", "now", n=1))
    print("\n".join(different[:100]), file=sys.stderr)
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
