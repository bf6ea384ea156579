"""Follows docs/grpcurl.md: starts `tutelage up`, runs every command of the page in order, and writes the answers.

    python docs/follow_grpcurl.py           # write the page anew
    python docs/follow_grpcurl.py --check   # only compare; exit status 1 where an answer is another than the page's

Digests, ids, times, measured numbers and sealed bytes differ from run to run and are compared by their form alone.
Needs `grpcurl` and `bash` on the path.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PAGE = Path(__file__).with_name("grpcurl.md")
ADDRESS = "localhost:50051"
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (.*(?:\\\n.*)*)", re.MULTILINE)
UP = "$ tutelage up"
"""Begins the block that this script runs itself."""
CHANGING = (
    (re.compile(r"sha256:[0-9a-f]{64}"), "sha256:DIGEST"),
    (re.compile(r"[0-9a-f]{24}/(fused|exit[1-4]|teacher)"), "SPACE"),
    (re.compile(r'"[0-9a-f]{32}"'), '"ID"'),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "TIME"),
    (re.compile(r'"(fused|exit[1-4])"'), '"READOUT"'),
    (re.compile(r'"[A-Za-z0-9+/]{60,}={0,2}"'), '"BYTES"'),
    (re.compile(r'"(\d+(\.\d+)?)s"'), '"SECONDS"'),
    (re.compile(r"-?\d+(\.\d+)?(e-?\d+)?"), "N"),
)


def form(text: str) -> str:
    """`text` with what changes from run to run replaced by what kind of thing it is."""
    for pattern, word in CHANGING:
        text = pattern.sub(word, text)
    return text


def followed(page: str, run: Mapping[str, str], folder: Path) -> str:
    """The page with the answers of now."""

    def answered(block: re.Match[str]) -> str:
        if block[1].startswith(UP):
            return block[0]
        shown = "".join(f"$ {c}\n{_answer(c, run, folder)}" for c in COMMAND.findall(block[1]))
        return f"```console\n{shown}```"

    return CONSOLE.sub(answered, page)


def _answer(command: str, run: Mapping[str, str], folder: Path) -> str:
    """What a command prints, errors too: some of them are there to be seen."""
    here = command.replace(ADDRESS, run["ADDRESS"])
    done = subprocess.run(
        ["bash", "-c", here], cwd=folder, env=dict(run), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    text = done.stdout.decode().replace(run["ADDRESS"], ADDRESS)
    return text if not text or text.endswith("\n") else text + "\n"


@contextmanager
def serving(folder: Path) -> Iterator[dict[str, str]]:
    """The environment of the page's commands, while `tutelage up` serves in `folder`."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    docs, programs = str(PAGE.parent), str(Path(sys.executable).parent)
    run = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "DOCS": docs, "ADDRESS": address}
    run |= {"TUTELAGE_METRICS_ENABLED": "false", "TUTELAGE_SERVER_DRAIN_NOTICE": "0", "NO_COLOR": "1"}
    command = ["tutelage", "up", "--address", address]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=folder, env=run, **pipes) as process:  # type: ignore[call-overload]
        try:
            if not process.stdout.readline():
                sys.exit("tutelage up does not start")
            yield run
        finally:
            process.terminate()


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
    different = list(difflib.unified_diff(form(before).splitlines(), form(after).splitlines(), "page", "now", n=1))
    print("\n".join(different[:100]), file=sys.stderr)
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
