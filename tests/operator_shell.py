"""An operator at a shell: the commands of docs/operations.md, run as they are written, in one bash that stays open."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helm_release import CHART
from source_tree import ROOT

PAGE = ROOT / "docs" / "operations.md"
SHOWN = re.compile(r"(-n|namespace) tutelage(?![\w/-])")
"""The page's namespace, wherever a command names it."""
_SECTION = re.compile(r"^## (.+)\n((?:(?!## ).*\n)*)", re.MULTILINE)
_BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
_DONE = "the block has ended"


def blocks() -> dict[str, list[str]]:
    """Blocks of commands that are followed, in their order, by the section of the page."""
    return {title: _BLOCK.findall(text) for title, text in _SECTION.findall(PAGE.read_text(encoding="utf-8"))}


class OperatorShell:
    """One bash: commands see the functions, the variables and the files of those before them."""

    def __init__(self, process: subprocess.Popen[str], folder: Path, namespace: str) -> None:
        """Commands of `process` are run in `folder`, and in this namespace in the place of the page's."""
        self._process, self.folder, self._namespace = process, folder, namespace

    def section(self, title: str) -> list[str]:
        """What each block of a section prints."""
        return [self.run(block) for block in blocks()[title]]

    def run(self, block: str) -> str:
        """What the commands of a block print, errors too.

        Raises:
            AssertionError: One of them failed.
        """
        with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
            file.write(SHOWN.sub(rf"\1 {self._namespace}", block))
            file.flush()
            self._process.stdin.write(f". {file.name} < /dev/null\nprintf '\\n%s\\n' '{_DONE}'\n")
            self._process.stdin.flush()
            said = []
            for line in self._process.stdout:
                if line == f"{_DONE}\n":
                    return "".join(said)
                said.append(line)
        raise AssertionError(f"a command failed of\n{block}\nthe last lines:\n{''.join(said[-30:])}")


@contextmanager
def operator_shell(folder: Path, namespace: str) -> Iterator[OperatorShell]:
    """A bash in a folder where the chart lies as in the repository; it ends with the first command that fails."""
    (folder / "charts").mkdir()
    (folder / "charts" / CHART.name).symlink_to(CHART)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with subprocess.Popen(
        ["bash", "--norc", "-e", "-o", "pipefail"],
        cwd=folder,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield OperatorShell(process, folder, namespace)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
