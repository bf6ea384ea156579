"""Pages that show commands with their answers, and are followed: every command is run, in order, beside real services.

A page's script starts what its commands speak to; the rest is here. `python docs/follow_NAME.py` writes the answers of
now into docs/NAME.md; with `--check` it only compares, and ends with status 1 where an answer is another than the
page's. Digests, ids, times, measured numbers, sealed bytes and the width of columns differ from run to run and are
compared by their form alone. Needs `grpcurl` and `bash` on the path.
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
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parent
_CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
"""A command, whose lines but the last end in a backslash, and the answer below it."""
_CHANGING = (
    (re.compile(r"sha256:[0-9a-f]{64}"), "sha256:DIGEST"),
    (re.compile(r"[0-9a-f]{24}/(fused|exit[1-4]|teacher)"), "SPACE"),
    (re.compile(r'"[0-9a-f]{32}"'), '"ID"'),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "TIME"),
    (re.compile(r'"(fused|exit[1-4])"'), '"READOUT"'),
    (re.compile(r'"[A-Za-z0-9+/]{60,}={0,2}"'), '"BYTES"'),
    (re.compile(r'"(\d+(\.\d+)?)s"'), '"SECONDS"'),
    (re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} +\d+ [\d:]+ \d{4}"), "DATE"),
    (re.compile(r"(-[0-9a-f]{7,10})?-[bcdfghjklmnpqrstvwxz2456789]{5}\b"), "-POD"),
    (re.compile(r"\b(\d+m(\d+s)?|\d+s)(?= *$)", re.MULTILINE), "AGE"),
    (re.compile(r"-?\d+(\.\d+)?(e-?\d+)?"), "N"),
    (re.compile(r"[ ─]{2,}"), " "),
)


@dataclass(frozen=True)
class Served:
    """What serves the commands of a page meanwhile."""

    address: str
    """Where it takes calls."""
    environment: Mapping[str, str]
    """Of the commands."""
    spoken: Callable[[str], str] | None = None
    """A command of the page as it is run here, empty where it makes no sense here and the page is believed; absent:
    `address` stands in for the page's."""


@dataclass(frozen=True)
class Page:
    """A page, and how it is followed."""

    name: str
    """Of its file among the docs."""
    shown_address: str
    """What the page has in place of the address of now."""
    starts: str
    """Is in the command of the block that nobody runs: the script has started what it starts."""
    serving: Callable[[Path], AbstractContextManager[Served]]
    """Serves in an empty folder, where the commands are run as well."""

    def followed(self, text: str) -> str:
        """`text` with the answers of now."""
        with tempfile.TemporaryDirectory() as folder, self.serving(Path(folder)) as served:

            def answered(block: re.Match[str]) -> str:
                shown = _COMMAND.findall(block[1])
                if any(self.starts in command for command, _ in shown):
                    return block[0]
                lines = "".join(f"$ {c}\n{self._answer(c, before, served, folder)}" for c, before in shown)
                return f"```console\n{lines}```"

            return _CONSOLE.sub(answered, text)

    def _answer(self, command: str, before: str, served: Served, folder: str) -> str:
        """What a command prints, errors too: some of them are there to be seen."""
        spoken = (served.spoken or self._addressed(served))(command)
        if not spoken:
            return before
        done = subprocess.run(
            ["bash", "-c", spoken],
            cwd=folder,
            env=dict(served.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        said = done.stdout.decode().replace(served.address, self.shown_address)
        lines = "\n".join(line.rstrip() for line in said.splitlines()).strip("\n")
        return f"{lines}\n" if lines else ""

    def _addressed(self, served: Served) -> Callable[[str], str]:
        return lambda command: command.replace(self.shown_address, served.address)


def follow(page: Page) -> int:
    """Follow `page` as the command line says; the exit status."""
    parser = argparse.ArgumentParser(description=f"Follow docs/{page.name} and write its answers anew.")
    parser.add_argument("--check", action="store_true", help="only compare")
    words = parser.parse_args()
    if not shutil.which("grpcurl"):
        sys.exit("grpcurl is not on the path")
    path = DOCS / page.name
    before = path.read_text(encoding="utf-8")
    after = page.followed(before)
    if not words.check:
        path.write_text(after, encoding="utf-8")
        return 0
    different = differences(before, after)
    print("\n".join(different[:100]), file=sys.stderr)
    return int(bool(different))


def differences(before: str, after: str) -> list[str]:
    """Where the forms of two texts of a page differ, as lines of a diff; empty where they do not."""
    return list(difflib.unified_diff(_forms(before), _forms(after), "page", "now", n=1))


def environment(**settings: str) -> dict[str, str]:
    """Of this process, with the programs of its Python first on the path, no colours, and `settings`."""
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": programs, "NO_COLOR": "1", "TUTELAGE_SERVER_DRAIN_NOTICE": "0", **settings}


def _forms(text: str) -> list[str]:
    """Lines of `text`, what changes from run to run replaced by what kind of thing it is."""
    for pattern, word in _CHANGING:
        text = pattern.sub(word, text)
    return text.splitlines()
