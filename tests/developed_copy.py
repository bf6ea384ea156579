"""A copy of the repository that `skaffold` builds and installs from: changing a source leaves the checkout alone."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kube import until
from source_tree import ROOT, repository_files

PROFILE = "kind"
BUILD_S = 1500
"""Images are built and loaded, from nothing in the worst case."""


class Developing:
    """A `skaffold dev` that runs."""

    def __init__(self, process: subprocess.Popen[bytes], said: Path) -> None:
        self._process, self._said = process, said

    def says(self, pattern: str, seconds: float) -> re.Match[str]:
        """What it says that is like `pattern`, once it does."""

        def look() -> re.Match[str] | None:
            text = self._said.read_text(errors="replace")
            if self._process.poll() is not None:
                raise RuntimeError(f"skaffold dev ended:\n{text[-4000:]}")
            return re.search(pattern, text)

        return until(look, seconds, f"skaffold dev says {pattern}")


class DevelopedCopy:
    """The repository's files of now in a folder, and the release that `skaffold` makes of them in a namespace."""

    def __init__(self, folder: Path, namespace: str) -> None:
        self.folder, self._namespace = folder, namespace
        for path in repository_files():
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)

    def skaffold(self, *words: str, seconds: float = BUILD_S) -> str:
        """What a command of skaffold says, errors among it; it has to succeed."""
        done = subprocess.run(
            self._command(*words),
            cwd=self.folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=seconds,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    @contextmanager
    def developing(self) -> Iterator[Developing]:
        """`skaffold dev`, with its ports forwarded; what it installed stays when it ends."""
        said = self.folder / "skaffold-dev.log"
        command = self._command("dev", "--port-forward=user", "--cleanup=false")
        with (
            said.open("wb") as output,
            subprocess.Popen(
                command,
                cwd=self.folder,
                env=self._environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ) as process,
        ):
            try:
                yield Developing(process, said)
            finally:
                process.terminate()
                process.wait(60)
                with suppress(ProcessLookupError):  # it leaves some of its forwarded ports behind
                    os.killpg(process.pid, signal.SIGTERM)

    def _command(self, verb: str, *words: str) -> list[str]:
        return ["skaffold", verb, "--profile", PROFILE, *words]

    def _environment(self) -> dict[str, str]:
        own = {"TUTELAGE_NAMESPACE": self._namespace, "SKAFFOLD_UPDATE_CHECK": "false", "SKAFFOLD_INTERACTIVE": "false"}
        return {**os.environ, **own}
